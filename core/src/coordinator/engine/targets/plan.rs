//! What a target should hold, what it lacks, and which steps the first store keeps for it. No IO, no clock.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::state::{Job, StepRecord};
use super::{Order, Target};
use crate::ids::Step;

/// Of the first store and the target together, what the target's rules keep, and what is pinned. What they would
/// remove at once is not copied.
pub fn wanted(known: &Job, target: &Target) -> BTreeSet<Step> {
    let mut all: BTreeMap<Step, StepRecord> = target.steps.clone().unwrap_or_default();
    all.extend(known.steps.iter().map(|(step, record)| (*step, record.clone())));
    let surplus: BTreeSet<Step> = target.keep.surplus(&all).into_iter().collect();
    let is_kept = |step: &Step, record: &StepRecord| record.pinned || !surplus.contains(step);
    let kept = all.iter().filter(|(step, record)| is_kept(step, record) && !target.doomed.contains(step));
    kept.map(|(step, _)| *step).collect()
}

/// Committed steps that the target is to get and has not, ascending.
pub fn lacking(known: &Job, target: &Target, wanted: &BTreeSet<Step>) -> Vec<Step> {
    let lacks = |step: &&Step| known.steps.contains_key(step) && !target.has(**step);
    wanted.iter().filter(lacks).copied().collect()
}

/// The oldest step that it lacks first: then the first store need not keep it any longer. Next what its rules give up.
pub(super) fn next(known: &Job, target: &Target, is_read: impl Fn(Step) -> bool) -> Option<Order> {
    let Some(steps) = &target.steps else { return Some(Order::List) };
    let wanted = wanted(known, target);
    // A step whose COMMIT could not be read when it was found has no generation that could be copied.
    let can = |step: &&Step| !target.refused.contains(step) && known.steps[*step].generation.0 > 0;
    if let Some(step) = lacking(known, target, &wanted).iter().find(can) {
        return Some(Order::Copy(*step));
    }
    let surplus = steps.iter().find(|(step, _)| !wanted.contains(step) && !is_read(**step));
    if let Some((step, record)) = surplus {
        return Some(Order::Remove { step: *step, generation: record.generation, committed: true });
    }
    target.leftovers.first().map(|(step, generation)| Order::Remove {
        step: *step,
        generation: *generation,
        committed: false,
    })
}

/// Of the steps that the first store's rules give up: those that stay until the target has them, and those that it will
/// never get. What is being copied stays, else a slow target would never get any; then the newest.
pub fn held_back(known: &Job, target: &Target, surplus: &[Step]) -> (BTreeSet<Step>, Vec<Step>) {
    let wanted = wanted(known, target);
    let awaits =
        |step: &&Step| wanted.contains(step) && !target.has(**step) && !target.refused.contains(step);
    let mut waiting: Vec<Step> = surplus.iter().filter(awaits).copied().collect();
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
    use crate::ids::Generation;
    use crate::proto::v1;

    fn records(steps: &[u64]) -> BTreeMap<Step, StepRecord> {
        steps.iter().map(|step| (Step(*step), StepRecord::for_tests())).collect()
    }

    fn job(steps: &[u64]) -> Job {
        Job { steps: records(steps), ..Job::default() }
    }

    fn target(steps: &[u64], keep: KeepRules, hold: u32) -> Target {
        let told = v1::Target { hold, ..v1::Target::default() };
        Target { steps: Some(records(steps)), keep, ..Target::new(&told) }
    }

    fn all(steps: &[u64]) -> Vec<Step> {
        steps.iter().copied().map(Step).collect()
    }

    #[test]
    fn a_target_gets_what_its_own_rules_keep_the_oldest_first_and_then_gives_up_the_rest() {
        let mut remote = target(&[10, 20], KeepRules::last(3), 2);
        let first = job(&[30, 40, 50]);
        assert_eq!(lacking(&first, &remote, &wanted(&first, &remote)), all(&[30, 40, 50]));
        for step in [30, 40, 50] {
            assert_eq!(next(&first, &remote, |_| false), Some(Order::Copy(Step(step))));
            remote.steps.as_mut().unwrap().insert(Step(step), StepRecord::for_tests());
        }
        let removal = |step| Order::Remove { step: Step(step), generation: Generation(1), committed: true };
        assert_eq!(next(&first, &remote, |_| false), Some(removal(10)));
        assert_eq!(next(&first, &remote, |step| step == Step(10)), Some(removal(20)), "what is read stays");
        let everything = target(&[10, 20, 30, 40, 50], KeepRules::default(), 2);
        assert_eq!(next(&first, &everything, |_| false), None);
    }

    #[test]
    fn what_a_person_removed_goes_and_does_not_come_back() {
        let mut remote = target(&[10], KeepRules::default(), 2);
        remote.doomed.extend(all(&[10, 20]));
        let found = next(&job(&[20]), &remote, |_| false);
        assert_eq!(found, Some(Order::Remove { step: Step(10), generation: Generation(1), committed: true }));
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
        remote.busy = Some(Busy { node: "n".into(), what: Order::Copy(Step(10)) });
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
