//! Removing a step that others refer to, and the objects of an abandoned attempt.

use super::*;
use crate::error::Kind;
use crate::ids::{JobUuid, Step};
use crate::proto::v1::RemoveStep;

fn state(step: u64) -> Vec<Spec> {
    vec![spec("frozen", 70_000), spec("trained", 66_000).version(step), spec("small", 10).version(step)]
}

/// Steps 1 and 2, 2 INCREMENTAL on 1, and 3 for itself; step 4 persisted and abandoned.
fn prepare(store: &JobStore) {
    let uuid: JobUuid = run(store.attach(crate::ids::ClusterId::new(), Takeover::No, OWN)).unwrap().job_uuid;
    save(store, uuid, 1, 1, one_node(1, 1, &state(1)));
    let mut second = slot(0, 1, 2, &state(2), true);
    second.base = Some(base_of(&slot(0, 1, 1, &state(1), true)));
    save(store, uuid, 2, 1, vec![vec![second]]);
    save(store, uuid, 3, 1, one_node(1, 3, &state(3)));
    persist(store, attempt(uuid, 4, 1), 1, one_node(1, 4, &state(4))).unwrap();
}

fn orders() -> [RemoveStep; 3] {
    [removal(1, 1, true, &[2, 3]), removal(4, 1, false, &[2, 3]), removal(2, 1, true, &[3])]
}

const TOLD: [&str; 3] = ["1 is removed", "4 is removed", "2 is removed"];

#[test]
fn a_crash_at_any_point_of_a_removal_harms_no_other_step_and_the_removal_ends_when_made_again() {
    let work = |store: &JobStore, (): &(), log: &Recorder| {
        for (order, told) in orders().iter().zip(TOLD) {
            run(store.remove(order)).unwrap();
            log.told(told);
        }
    };
    crash_everywhere("crash-removal", prepare, work, |crashed, ()| {
        let store = crashed.store();
        let listed = run(store.steps()).unwrap();
        for step in listed.iter().map(|listed| listed.step.0) {
            check(&store, step, 0, 1, 0, &state(step));
            verify(&store, step).unwrap();
        }
        let is_there = |step: u64| listed.iter().any(|listed| listed.step.0 == step);
        assert!(is_there(3));
        assert!(is_there(2) || crashed.was_told(TOLD[1]), "nobody had said that 2 may go");
        assert!(!is_there(1) || !crashed.was_told(TOLD[0]), "a step that was removed is back");
        assert!(!is_there(2) || !crashed.was_told(TOLD[2]), "a step that was removed is back");
        // The coordinator gives each order again that it has no answer to.
        for (order, told) in orders().iter().zip(TOLD) {
            if !crashed.was_told(told) {
                run(store.remove(order)).unwrap();
            }
        }
        assert_eq!(run(store.commit(Step(2))).unwrap_err().kind, Kind::NotFound);
        check(&store, 3, 0, 1, 0, &state(3));
        let left = files(&crashed.root.join(JOB));
        let names: Vec<_> = left.iter().map(|path| path.extension().and_then(|end| end.to_str())).collect();
        assert_eq!(names, [None, Some("pack"), Some("manifest"), None], "OWNER and step 3: {left:?}");
    });
}
