//! Taking a store: the directories, the probe of create-only, OWNER.

use super::*;
use crate::ids::{ClusterId, JobUuid};

#[test]
fn a_crash_at_any_point_of_an_attach_leaves_an_owner_or_none_and_the_next_attach_succeeds() {
    let prepare = |_: &JobStore| (ClusterId::new(), std::sync::OnceLock::<JobUuid>::new());
    let work =
        |store: &JobStore, (cluster, uuid): &(ClusterId, std::sync::OnceLock<JobUuid>), log: &Recorder| {
            uuid.set(run(store.attach(*cluster, Takeover::No, OWN)).unwrap().job_uuid).unwrap();
            log.told("attached");
            save(store, *uuid.get().unwrap(), 1, 1, one_node(1, 1, &[spec("a", 5000)]));
            log.told("committed");
        };
    crash_everywhere("crash-attach", prepare, work, |crashed, (cluster, uuid)| {
        let store = crashed.store();
        let owner = run(store.owner()).unwrap();
        assert!(owner.is_some() || !crashed.was_told("attached"), "the job has lost its identity");
        let attached = run(store.attach(*cluster, Takeover::No, OWN)).unwrap();
        if owner.is_some() {
            assert_eq!(Some(&attached.job_uuid), uuid.get());
        }
        assert!(attached.steps.iter().all(|step| step.commit.is_ok()));
        assert!(attached.steps.len() == 1 || !crashed.was_told("committed"), "an acknowledged step is lost");
        let first = attached.steps.len() as u64;
        (1..=first).for_each(|step| check(&store, step, 0, 1, 0, &[spec("a", 5000)]));
        save(&store, attached.job_uuid, first + 1, 1, one_node(1, first + 1, &[spec("a", 5000)]));
        check(&store, first + 1, 0, 1, 0, &[spec("a", 5000)]);
    });
}
