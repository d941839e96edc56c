//! Jobs whose ranks step, save, wait for each other and hang, followed in frames as the coordinator follows real ones.

use proptest::prelude::*;

use super::*;

const FRAME: Duration = Duration::from_millis(250);
const FLOOR: Duration = Duration::from_secs(300);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a rank writes into its line, and when.
type Written = Vec<(Duration, Step, RankPhase)>;

/// Writes a step after each of these times.
fn steps(times: impl IntoIterator<Item = Duration>) -> Written {
    let mut now = Duration::ZERO;
    let times = times.into_iter().zip(1..);
    times.map(|(time, step)| (advance(&mut now, time), Step(step), RankPhase::Training)).collect()
}

fn advance(now: &mut Duration, by: Duration) -> Duration {
    *now += by;
    *now
}

/// Who is named at any frame until `end`, with when it was for the first time.
fn follow(lines: &[Written], end: Duration) -> Vec<(Rank, Duration)> {
    follow_every(FRAME, lines, end)
}

fn follow_every(frame: Duration, lines: &[Written], end: Duration) -> Vec<(Rank, Duration)> {
    let (mut pace, mut followed) = (Pace::default(), vec![Line::default(); lines.len()]);
    let mut named: Vec<(Rank, Duration)> = Vec::new();
    let mut now = Duration::ZERO;
    while now < end {
        now += frame;
        let mut standings = Vec::new();
        for (number, written) in lines.iter().enumerate() {
            let Some((at, step, phase)) = written.iter().rev().find(|(at, ..)| *at <= now) else { continue };
            if let Some(time) = followed[number].read(now, *step, *phase, Some(now - *at)) {
                pace.learn(time);
            }
            let rank = Rank(number as u32);
            standings.push(Standing { rank, step: *step, phase: *phase, still: now - *at, owes: false });
        }
        for rank in stalled(&standings, pace.patience(FLOOR)) {
            if !named.iter().any(|(known, _)| *known == rank) {
                named.push((rank, now));
            }
        }
    }
    named
}

fn ranks(named: Vec<(Rank, Duration)>) -> Vec<u32> {
    named.into_iter().map(|(rank, _)| rank.0).collect()
}

fn end_of(line: &Written) -> Duration {
    line.last().expect("not empty").0
}

proptest! {
    /// Steps of any usual length, with some jitter, and some that are six times as long.
    #[test]
    fn nobody_is_named_while_steps_of_any_length_go_on(
        usual in 1u64..400_000,
        jitter in prop::collection::vec((80u64..120, prop::bool::weighted(0.05)), 20..60),
        world in 1usize..4,
    ) {
        let time = |(percent, is_long): &(u64, bool)| {
            Duration::from_millis(usual * percent / 100) * if *is_long { 6 } else { 1 }
        };
        let line = steps(jitter.iter().map(time));
        let end = end_of(&line);
        let frame = FRAME.max(Duration::from_millis(usual / 20));
        prop_assert_eq!(follow_every(frame, &vec![line; world], end), vec![]);
    }

    /// Whatever hangs, in a job of short steps, is named within a third more than the floor, and nobody else is.
    #[test]
    fn the_rank_that_falls_behind_is_named_alone(
        step in 100u64..20_000,
        world in 2usize..6,
        hung in 0usize..6,
        at in 6u64..15,
    ) {
        let hung = hung % world;
        let time = Duration::from_millis(step);
        // The others do one more step, and wait for it in the next.
        let line = |number: usize| steps(vec![time; at as usize + usize::from(number != hung)]);
        let lines: Vec<Written> = (0..world).map(line).collect();
        let stopped = end_of(&lines[hung]);
        let named = follow(&lines, stopped + FLOOR * 2);
        prop_assert_eq!(ranks(named.clone()), vec![hung as u32]);
        prop_assert!(named[0].1 >= stopped + FLOOR && named[0].1 <= stopped + FLOOR * 4 / 3);
    }

    /// In a collective of the same step all are named, since their lines say no more.
    #[test]
    fn ranks_that_stop_at_one_step_are_named_together(step in 100u64..20_000, world in 1usize..6) {
        let lines = vec![steps(vec![Duration::from_millis(step); 8]); world];
        let named = follow(&lines, end_of(&lines[0]) + FLOOR * 2);
        prop_assert_eq!(named.len(), world);
        prop_assert!(named.windows(2).all(|pair| pair[0].1 == pair[1].1));
    }
}

fn then(mut line: Written, after: Duration, phase: RankPhase) -> Written {
    let (at, step, _) = *line.last().unwrap();
    line.push((at + after, step, phase));
    line
}

#[test]
fn a_rank_that_has_never_told_a_step_is_not_judged() {
    let silent = vec![(FRAME, Step(0), RankPhase::Unspecified)];
    assert_eq!(follow(&[silent], FLOOR * 20), []);
    assert_eq!(Line::default().moved(), None);
}

#[test]
fn who_waits_at_a_barrier_is_not_named_but_who_has_not_come_is() {
    let line = || steps(vec![seconds(1); 8]);
    let waiting = then(line(), seconds(1), RankPhase::Waiting);
    assert_eq!(ranks(follow(&[waiting.clone(), line(), waiting.clone()], FLOOR * 2)), [1]);
    assert_eq!(follow(&[waiting.clone(), waiting], FLOOR * 2), [], "its release is on its way");
}

#[test]
fn long_saves_and_restores_are_work_and_so_is_to_wait_for_them() {
    for phase in [RankPhase::Checkpointing, RankPhase::Restoring, RankPhase::Loading] {
        let line = || steps(vec![seconds(1); 8]);
        assert_eq!(follow(&[then(line(), seconds(1), phase), line()], FLOOR * 20), [], "{phase:?}");
        // One that is ahead of them waits for nobody.
        let ahead = then(steps(vec![seconds(1); 9]), seconds(1), phase);
        assert_eq!(ranks(follow(&[ahead, line()], FLOOR * 2)), [1], "{phase:?}");
    }
}

#[test]
fn who_has_not_begun_a_save_that_the_others_wait_for_is_named_and_they_are_not() {
    let standing =
        |rank, phase, owes| Standing { rank: Rank(rank), step: Step(8), phase, still: FLOOR, owes };
    let (training, saving) = (RankPhase::Training, RankPhase::Checkpointing);
    let ranks = [standing(0, saving, false), standing(1, training, true), standing(2, training, false)];
    assert_eq!(stalled(&ranks, FLOOR), [Rank(1)]);
}

#[test]
fn the_first_step_may_take_ten_times_the_floor() {
    // Compilation. What it took is not what later steps are measured by.
    let line = steps([seconds(1), FLOOR * 9, seconds(1), seconds(1), seconds(1), seconds(1), seconds(1)]);
    let stopped = end_of(&line);
    let named = follow(&[line], stopped + FLOOR * 2);
    assert!(named[0].1 >= stopped + FLOOR && named[0].1 < stopped + FLOOR * 2, "{named:?}");
}

#[test]
fn evaluations_between_steps_are_learnt_from_the_first_one_on() {
    let round = || std::iter::repeat_n(seconds(1), 40).chain([FLOOR * 2 / 3]);
    let named = follow(&[steps((0..5).flat_map(|_| round()))], seconds(1100));
    assert_eq!(named, []);
    let mut pace = Pace::default();
    for length in round() {
        pace.learn(StepTime { length, is_first: false });
    }
    assert_eq!(pace.patience(FLOOR), FLOOR * 4 / 3);
    assert_eq!(pace.usual(), Some(seconds(1)));
}

#[test]
fn a_job_that_tells_only_of_its_saves_is_given_ten_of_their_intervals() {
    let mut line = Written::new();
    for save in 1..=6 {
        let at = seconds(1800) * save;
        line.push((at, Step(u64::from(save) * 100), RankPhase::Checkpointing));
        line.push((at + FRAME, Step(u64::from(save) * 100), RankPhase::Training));
    }
    assert_eq!(follow(&[line.clone()], end_of(&line) + seconds(1800) * 9), []);
    assert_eq!(ranks(follow(&[line.clone()], end_of(&line) + seconds(1800) * 11)), [0]);
}

#[test]
fn a_rank_that_moves_again_is_not_named_any_more() {
    let mut line = steps(vec![seconds(1); 8]);
    let stopped = end_of(&line);
    line.push((stopped + FLOOR * 2, Step(9), RankPhase::Training));
    let (mut followed, mut pace) = (Line::default(), Pace::default());
    let mut is_named = |now: Duration| {
        let (at, step, phase) = *line.iter().rev().find(|(at, ..)| *at <= now).unwrap();
        followed.read(now, step, phase, Some(now - at)).into_iter().for_each(|time| pace.learn(time));
        let still = now - followed.moved().unwrap();
        !stalled(&[Standing { rank: Rank(0), step, phase, still, owes: false }], pace.patience(FLOOR))
            .is_empty()
    };
    (1..=8).for_each(|second| assert!(!is_named(seconds(second))));
    assert!(is_named(stopped + FLOOR));
    assert!(!is_named(stopped + FLOOR * 2));
    assert!(!is_named(stopped + FLOOR * 5), "so long it has stood still before, and gone on");
    assert!(is_named(stopped + FLOOR * 6));
}

#[test]
fn of_a_worker_whose_line_has_no_age_only_a_change_is_a_sign() {
    let mut line = Line::default();
    line.read(seconds(1), Step(1), RankPhase::Training, None);
    line.read(seconds(2), Step(1), RankPhase::Training, None);
    assert_eq!(line.moved(), Some(seconds(1)));
    assert_eq!(line.read(seconds(5), Step(2), RankPhase::Training, None).unwrap().length, seconds(4));
    assert_eq!(line.moved(), Some(seconds(5)));
}

#[test]
fn a_step_begins_anew_after_a_restore_and_at_an_earlier_number() {
    let mut line = Line::default();
    let mut read = |at, step, phase| line.read(seconds(at), Step(step), phase, Some(Duration::ZERO));
    assert_eq!(read(1, 5, RankPhase::Training), None);
    assert_eq!(read(2, 5, RankPhase::Restoring), None);
    assert_eq!(read(900, 7, RankPhase::Training), None);
    assert_eq!(read(901, 8, RankPhase::Training).unwrap().length, seconds(1));
    assert_eq!(read(1000, 3, RankPhase::Training), None);
    assert_eq!(read(1002, 4, RankPhase::Checkpointing).unwrap().length, seconds(2));
    assert_eq!(read(1003, 4, RankPhase::Training), None);
    assert_eq!(read(1004, 5, RankPhase::Waiting).unwrap().length, seconds(2), "with its save");
}
