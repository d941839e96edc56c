//! Jobs whose seconds are known.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(step: u64) -> Seen {
    Seen { step: Some(Step(step)), ..Seen::default() }
}

fn spent(track: &Track, what: Use) -> Duration {
    track.settled.spent.get(&what).copied().unwrap_or_default()
}

/// Two ranks at a step a second from `from`, which is made at `began + 1`.
fn train(track: &mut Track, began: Duration, steps: std::ops::Range<u64>) -> Duration {
    let mut now = began;
    for step in steps {
        now += s(1);
        for rank in 0..2 {
            track.seen(now, Rank(rank), at(step));
        }
    }
    now
}

#[test]
fn every_second_of_a_loss_has_its_use() {
    let mut track = Track::new(None);
    track.registered(s(10));
    track.registered(s(11));
    track.opened(s(12));
    let now = train(&mut track, s(15), 1..21);
    assert_eq!((now, spent(&track, Use::Start), spent(&track, Use::Productive)), (s(35), s(6), s(19)));
    // Silent for its lease of 10 s, of which the survivors made no step.
    track.lost(s(45), s(10));
    track.lingers(s(46));
    track.lingers(s(48));
    track.registered(s(55));
    track.opened(s(56));
    let seen = Seen { step: None, restoring: s(2), ..Seen::default() };
    track.seen(s(58), Rank(0), seen);
    track.seen(s(58), Rank(1), seen);
    // Step 10 was the last that was saved: 11 to 20 are made again.
    let mut now = s(59);
    for step in 11..=25 {
        now += s(1);
        track.seen(now, Rank(0), Seen { step: Some(Step(step)), ..seen });
        track.seen(now, Rank(1), Seen { step: Some(Step(step)), ..seen });
    }
    let uses = [
        (Use::Detection, 10),
        (Use::Fencing, 3),
        (Use::Reassignment, 1),
        (Use::Restore, 2),
        (Use::Restart, 7 + 1),
        (Use::Replay, 10),
        (Use::Productive, 19 + 5),
    ];
    for (what, seconds) in uses {
        assert_eq!(spent(&track, what), s(seconds), "{what:?}");
    }
    assert_eq!(track.settled.losses, 1);
}

#[test]
fn saves_hold_training_by_the_slowest_rank_and_a_stall_is_what_is_not_usual() {
    let mut track = Track::new(None);
    track.opened(s(0));
    let now = train(&mut track, s(0), 1..11);
    let held = |step, seconds| Seen { step: Some(Step(step)), saving: s(seconds), ..Seen::default() };
    track.seen(now + s(3), Rank(0), held(11, 1));
    track.seen(now + s(3), Rank(1), held(11, 2));
    assert_eq!((spent(&track, Use::Save), spent(&track, Use::Stall)), (s(2), s(0)));
    // One rank goes on, the other hangs.
    track.seen(now + s(4), Rank(0), held(12, 1));
    assert_eq!(track.unsettled(now + s(4)), Some((Use::Productive, s(1))));
    assert_eq!(track.unsettled(now + s(60)), Some((Use::Stall, s(57))));
    track.seen(now + s(63), Rank(1), held(12, 2));
    assert_eq!((spent(&track, Use::Stall), spent(&track, Use::Productive)), (s(59), s(9 + 1 + 1)));
}

#[test]
fn a_step_that_was_not_finished_is_lost_with_its_rank_and_not_when_all_leave() {
    for lost in [true, false] {
        let mut track = Track::new(None);
        track.opened(s(0));
        let now = train(&mut track, s(0), 1..11);
        match lost {
            true => track.lost(now + s(2), s(0)),
            false => track.closed(now + s(2)),
        }
        assert_eq!(spent(&track, Use::Replay), if lost { s(2) } else { s(0) });
        assert_eq!(track.reached(), Some(Step(10)));
        assert_eq!(track.unsettled(now + s(9)).is_some(), lost);
    }
}

#[test]
fn a_job_that_names_no_step_trains_all_the_same_and_a_coordinator_that_was_away_lost_none_of_it() {
    let mut track = Track::new(None);
    track.opened(s(0));
    track.seen(s(5), Rank(0), Seen { saving: s(1), ..Seen::default() });
    track.lost(s(100), s(0));
    assert_eq!((spent(&track, Use::Save), spent(&track, Use::Productive)), (s(1), s(99)));

    let mut track = Track::resumed_open(s(1), s(30), Some(Step(4)));
    train(&mut track, s(1), 10..12);
    assert_eq!(spent(&track, Use::Productive), s(32));
    assert_eq!(track.settled.spent.len(), 1);
}

/// Whatever happens in whatever order: no second is lost, and none is counted twice.
#[test]
fn seconds_add_up() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut track = Track::new(None);
        let (mut now, mut closed) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..300 {
            let passed = Duration::from_millis(random.random_range(0..3000));
            if track.unsettled(now).is_none() {
                closed += passed;
            }
            now += passed;
            match random.random_range(0..20) {
                0 => track.registered(now),
                1 | 2 => track.opened(now),
                3 => track.lost(now, Duration::from_millis(random.random_range(0..9000))),
                4 if random.random_bool(0.3) => track.closed(now),
                5 => track.lingers(now),
                _ => {
                    let seen = Seen {
                        step: random.random_bool(0.9).then(|| Step(random.random_range(0..50))),
                        saving: Duration::from_millis(random.random_range(0..4000)),
                        restoring: Duration::from_millis(random.random_range(0..4000)),
                    };
                    track.seen(now, Rank(random.random_range(0..3)), seen);
                }
            }
            let settled: Duration = track.settled.spent.values().sum();
            let open = track.unsettled(now).map_or(Duration::ZERO, |(_, time)| time);
            let missing = (now - closed).abs_diff(settled + open);
            assert!(missing < Duration::from_micros(10), "seed {seed}: {missing:?} at {now:?}");
        }
    }
}
