//! What a target should hold, what it lacks, and which steps the first store keeps for it. No IO, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::super::state::{Job, StepRecord};
use super::{Order, Target};
use crate::ids::Step;

/// Of the first store and the target together, what the target's rules keep, and what is pinned. What they would
/// remove at once is not copied. What can't be copied does not count: good steps would go for one that never comes.
///
/// Asked with every commit and every order: it looks at all steps, and copies none of their records.
pub fn wanted(known: &Job, target: &Target) -> BTreeSet<Step> {
    let held = target.steps.iter().flatten().map(|(step, record)| (*step, record));
    let mut all: BTreeMap<Step, &StepRecord> = held.collect();
    let copyable = known.steps.iter().filter(|(step, record)| is_copyable(target, **step, record));
    all.extend(copyable.map(|(step, record)| (*step, record)));
    let surplus: BTreeSet<Step> =
        target.keep.surplus_of(all.iter().map(|(step, record)| (*step, *record))).into_iter().collect();
    // The first store's pin counts for what the target has of a step that can't be copied, too.
    let is_pinned = |step: &Step, record: &StepRecord| known.steps.get(step).unwrap_or(record).is_pinned();
    let is_kept = |step: &Step, record: &StepRecord| is_pinned(step, record) || !surplus.contains(step);
    all.retain(|step, record| is_kept(step, record) && !is_doomed(known, target, *step));
    all.into_keys().collect()
}

/// A step whose COMMIT could not be read when it was found has no generation that could be copied.
fn is_copyable(target: &Target, step: Step, record: &StepRecord) -> bool {
    record.generation.0 > 0 && !target.refused.contains(&step)
}

/// Once its removal has ended, what the first store has under that number is another attempt, and is wanted.
fn is_doomed(known: &Job, target: &Target, step: Step) -> bool {
    known.is_doomed(&target.name, step) && (!known.steps.contains_key(&step) || is_being_removed(known, step))
}

pub(super) fn is_being_removed(known: &Job, step: Step) -> bool {
    known.removals.iter().any(|removal| removal.committed && removal.step == step)
}

/// Under the number of a step that the first store has, another attempt: it was saved anew while the target was away.
fn is_foreign(known: &Job, target: &Target, step: Step) -> bool {
    known.steps.get(&step).is_some_and(|record| target.has(step) && !target.has_attempt(step, record))
}

/// Committed steps that the target is to get and has not, ascending.
pub fn lacking(known: &Job, target: &Target, wanted: &BTreeSet<Step>) -> Vec<Step> {
    let lacks = |step: &&Step| {
        let record = known.steps.get(*step);
        record
            .is_some_and(|record| is_copyable(target, **step, record) && !target.has_attempt(**step, record))
    };
    wanted.iter().filter(lacks).copied().collect()
}

/// First foreign attempts, which are in the way of copies; then the oldest step that it lacks: the first store need not
/// keep that any longer. Next what its rules give up. What failed waits for its time, and holds up nothing else.
pub(super) fn next(
    known: &Job,
    target: &Target,
    now: Duration,
    is_read: impl Fn(Step) -> bool,
) -> Option<Order> {
    let (may_fill, may_remove) = (target.filling.is_open(now), target.removing.is_open(now));
    let Some(steps) = &target.steps else { return may_fill.then_some(Order::List) };
    let removal = |(step, record): (&Step, &StepRecord)| Order::Remove {
        step: *step,
        generation: record.generation,
        committed: true,
    };
    if may_remove {
        let foreign = steps.iter().filter(|(step, _)| is_foreign(known, target, **step) && !is_read(**step));
        if let Some(foreign) = behind(target.stuck, foreign.map(removal)) {
            return Some(foreign);
        }
    }
    let wanted = wanted(known, target);
    if may_fill
        && let Some(step) = lacking(known, target, &wanted).into_iter().find(|step| !target.has(*step))
    {
        return Some(Order::Copy(step));
    }
    if !may_remove {
        return None;
    }
    // Whatever is still to come may never come: the newest stays until a newer one is there.
    let stays = |step: &Step| !known.is_doomed(&target.name, *step) && !is_foreign(known, target, *step);
    let whole = steps.iter().filter(|(step, record)| record.kind.holds_whole_state() && stays(step));
    let newest = whole.map(|(step, _)| *step).next_back();
    let goes = |step: &Step| !wanted.contains(step) && Some(*step) != newest && !is_read(*step);
    let surplus = steps.iter().filter(|(step, _)| goes(step)).map(removal);
    let leftovers = target.leftovers.iter().map(|(step, generation)| Order::Remove {
        step: *step,
        generation: *generation,
        committed: false,
    });
    behind(target.stuck, surplus.chain(leftovers))
}

/// The one behind `stuck`, else the first.
fn behind(stuck: Option<Order>, orders: impl Iterator<Item = Order> + Clone) -> Option<Order> {
    let mut first = orders.clone();
    orders.skip_while(|order| Some(*order) != stuck).nth(1).or_else(|| first.next())
}

/// Of the steps that the first store's rules give up: those that stay until the target has them, and those that it will
/// never get. What is being copied stays, else a slow target would never get any; then the newest.
pub fn held_back(known: &Job, target: &Target, surplus: &[Step]) -> (BTreeSet<Step>, Vec<Step>) {
    let lacking = lacking(known, target, &wanted(known, target));
    let mut waiting: Vec<Step> = surplus.iter().filter(|step| lacking.contains(step)).copied().collect();
    waiting.sort_by_key(|step| (Some(*step) == target.copying(), *step));
    let lost = waiting.len().saturating_sub(target.hold as usize);
    let held = waiting.split_off(lost);
    (held.into_iter().collect(), waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::engine::targets::Busy;
    use crate::coordinator::keep::KeepRules;
    use crate::coordinator::state::Removal;
    use crate::ids::Generation;
    use crate::proto::v1;

    const NOW: Duration = Duration::from_secs(1000);

    fn records(steps: &[u64]) -> BTreeMap<Step, StepRecord> {
        steps.iter().map(|step| (Step(*step), StepRecord::for_tests())).collect()
    }

    fn job(steps: &[u64]) -> Job {
        Job { steps: records(steps), ..Job::default() }
    }

    fn doom(job: &mut Job, steps: &[u64]) {
        job.dooms.entry("remote".into()).or_default().extend(all(steps));
    }

    fn target(steps: &[u64], keep: KeepRules, hold: u32) -> Target {
        let told = v1::Target { name: "remote".into(), hold, ..v1::Target::default() };
        Target { steps: Some(records(steps)), keep, ..Target::new(&told) }
    }

    fn all(steps: &[u64]) -> Vec<Step> {
        steps.iter().copied().map(Step).collect()
    }

    fn removal(step: u64) -> Order {
        Order::Remove { step: Step(step), generation: Generation(1), committed: true }
    }

    #[test]
    fn a_target_gets_what_its_own_rules_keep_the_oldest_first_and_then_gives_up_the_rest() {
        let mut remote = target(&[10, 20], KeepRules::last(3), 2);
        let first = job(&[30, 40, 50]);
        assert_eq!(lacking(&first, &remote, &wanted(&first, &remote)), all(&[30, 40, 50]));
        for step in [30, 40, 50] {
            assert_eq!(next(&first, &remote, NOW, |_| false), Some(Order::Copy(Step(step))));
            remote.steps.as_mut().unwrap().insert(Step(step), StepRecord::for_tests());
        }
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(removal(10)));
        assert_eq!(
            next(&first, &remote, NOW, |step| step == Step(10)),
            Some(removal(20)),
            "what is read stays"
        );
        let everything = target(&[10, 20, 30, 40, 50], KeepRules::default(), 2);
        assert_eq!(next(&first, &everything, NOW, |_| false), None);
    }

    #[test]
    fn what_can_not_be_removed_holds_up_neither_copies_nor_other_removals() {
        let mut remote = target(&[10, 20, 30], KeepRules::last(1), 2);
        let first = job(&[30]);
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(removal(10)));
        remote.removing.failed(NOW);
        remote.stuck = Some(removal(10));
        assert_eq!(next(&first, &remote, NOW, |_| false), None, "its time has not come");
        let first = job(&[30, 40]);
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(Order::Copy(Step(40))));
        remote.filling.failed(NOW);
        remote.removing.served();
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(removal(20)), "another one goes first");
        remote.stuck = Some(removal(20));
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(removal(10)), "and it is tried again");
    }

    #[test]
    fn what_a_person_removed_goes_and_does_not_come_back() {
        let mut remote = target(&[10], KeepRules::default(), 2);
        let mut first = job(&[20]);
        doom(&mut first, &[10, 20]);
        first.removals.push(Removal { step: Step(20), generation: Generation(1), committed: true });
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(removal(10)));
        remote.steps = Some(BTreeMap::new());
        assert_eq!(next(&first, &remote, NOW, |_| false), None);
    }

    #[test]
    fn p3_a_target_keeps_its_last_good_step_while_the_newer_ones_cannot_be_copied() {
        let mut remote = target(&[10], KeepRules::last(1), 2);
        let mut first = job(&[10, 20]);
        remote.refused.insert(Step(20));
        assert_eq!(next(&first, &remote, NOW, |_| false), None);
        remote.refused.clear();
        first.steps.get_mut(&Step(20)).unwrap().generation = Generation(0);
        assert_eq!(next(&first, &remote, NOW, |_| false), None);
        assert_eq!(lacking(&first, &remote, &wanted(&first, &remote)), [], "nothing is waited for in vain");
        assert_eq!(held_back(&first, &remote, &all(&[10, 20])), (BTreeSet::new(), vec![]));
    }

    #[test]
    fn a_number_that_was_saved_anew_replaces_what_the_target_has_under_it() {
        let mut remote = target(&[10, 40], KeepRules::default(), 2);
        let mut first = job(&[10, 30, 40]);
        doom(&mut first, &[40]);
        first.steps.get_mut(&Step(40)).unwrap().generation = Generation(2);
        assert_eq!(held_back(&first, &remote, &all(&[10, 40])).0, all(&[40]).into_iter().collect());
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(removal(40)), "before anything is copied");
        let reading = next(&first, &remote, NOW, |step| step == Step(40));
        assert_eq!(reading, Some(Order::Copy(Step(30))), "what is read stays");
        assert_eq!(remote.ended_dooms(&first), [], "until it is gone, it is not to be restored");
        remote.steps.as_mut().unwrap().remove(&Step(40));
        assert_eq!(remote.ended_dooms(&first), all(&[40]));
        remote.busy = Some(Busy::new("n", Order::Copy(Step(40)), NOW));
        assert_eq!(remote.ended_dooms(&first), [], "the old one may still arrive");
        remote.steps.as_mut().unwrap().extend(records(&[30]));
        assert_eq!(next(&first, &remote, NOW, |_| false), Some(Order::Copy(Step(40))));
    }

    #[test]
    fn the_first_store_holds_what_is_being_copied_and_the_newest_up_to_the_limit() {
        let first = job(&[10, 20, 30, 40, 50]);
        let mut remote = target(&[], KeepRules::default(), 2);
        let surplus = all(&[10, 20, 30, 40]);
        assert_eq!(
            held_back(&first, &remote, &surplus),
            (all(&[30, 40]).into_iter().collect(), all(&[10, 20]))
        );
        remote.busy = Some(Busy::new("n", Order::Copy(Step(10)), NOW));
        assert_eq!(
            held_back(&first, &remote, &surplus),
            (all(&[10, 40]).into_iter().collect(), all(&[20, 30]))
        );
        remote.steps.as_mut().unwrap().extend(records(&[10, 20, 30]));
        assert_eq!(held_back(&first, &remote, &surplus), (all(&[40]).into_iter().collect(), vec![]));
        let picky = target(&[], KeepRules::last(1), 2);
        assert_eq!(
            held_back(&first, &picky, &surplus).0.len(),
            0,
            "what its rules would not keep is not waited for"
        );
        let unlisted = Target { steps: None, ..target(&[], KeepRules::default(), 9) };
        assert_eq!(held_back(&first, &unlisted, &surplus).0.len(), 4, "nobody knows what it has");
    }
}
