//! Persisting and committing a step beside older ones.

use super::*;
use crate::checkpoint::{Attempt, Durable};
use crate::format::{CommitRecord, StepKind};
use crate::ids::JobUuid;

fn state(step: u64) -> Vec<Spec> {
    vec![
        spec("frozen", 70_000),
        spec("trained", 66_000).version(step),
        replicated("shared", 9000).version(step),
        spec("small", 10).version(step),
    ]
}

/// Two ranks on two nodes; INCREMENTAL on the step before.
fn nodes(step: u64) -> Vec<Vec<RankSlot>> {
    let node = |rank| {
        let mut now = slot(rank, 2, step, &state(step), true);
        now.base = (step > 1).then(|| base_of(&slot(rank, 2, step - 1, &state(step - 1), true)));
        vec![now]
    };
    vec![node(0), node(1)]
}

fn record_of(attempt: Attempt, durable: &[Durable]) -> CommitRecord {
    record(attempt, 2, StepKind::Incremental, durable)
}

#[track_caller]
fn is_whole(store: &JobStore, step: u64) {
    (0..2).for_each(|rank| check(store, step, rank, 2, rank, &state(step)));
    verify(store, step).unwrap();
}

#[test]
fn a_crash_at_any_point_of_a_save_leaves_the_step_whole_or_absent_and_harms_no_other() {
    let prepare = |store: &JobStore| {
        let uuid = run(store.attach(crate::ids::ClusterId::new(), Takeover::No, OWN)).unwrap().job_uuid;
        (1..3).for_each(|step| drop(save(store, uuid, step, 2, nodes(step))));
        (uuid, std::sync::OnceLock::new())
    };
    let work =
        |store: &JobStore, (uuid, intent): &(JobUuid, std::sync::OnceLock<CommitRecord>), log: &Recorder| {
            let attempt = attempt(*uuid, 3, 1);
            let durable = persist(store, attempt, 2, nodes(3)).unwrap();
            log.told("durable");
            let record = intent.get_or_init(|| record_of(attempt, &durable));
            log.told("intended");
            publish(store, record).unwrap();
            log.told("committed");
        };
    crash_everywhere("crash-save", prepare, work, |crashed, (uuid, intent)| {
        let store = crashed.store();
        let listed = run(store.steps()).unwrap();
        assert!(listed.iter().all(|step| step.commit.is_ok()), "never half a COMMIT: {listed:?}");
        let steps: Vec<u64> = listed.iter().map(|step| step.step.0).collect();
        let exists = steps == [1, 2, 3];
        assert!(exists || steps == [1, 2], "{steps:?}");
        assert!(exists || !crashed.was_told("committed"), "an acknowledged step is lost");
        assert!(!exists || crashed.was_told("intended"), "a step that nobody meant to commit");
        steps.iter().for_each(|step| is_whole(&store, *step));
        // What the coordinator does next depends on what it had logged.
        if crashed.was_told("durable") {
            let intent = intent.get().unwrap();
            publish(&store, intent).unwrap();
            is_whole(&store, 3);
            goes_on(&store, *uuid, 4);
        } else {
            goes_on(&store, *uuid, 3);
            run(store.remove(&removal(3, 1, false, &[1, 2, 3]))).unwrap();
            nothing_is_left_over(crashed.root, &store);
        }
        (1..4).for_each(|step| is_whole(&store, step));
    });
}

/// A new generation saves.
fn goes_on(store: &JobStore, uuid: JobUuid, step: u64) {
    let attempt = attempt(uuid, step, 2);
    let durable = persist(store, attempt, 2, nodes(step)).unwrap();
    publish(store, &record_of(attempt, &durable)).unwrap();
    is_whole(store, step);
}
