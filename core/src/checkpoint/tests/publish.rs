//! P1: a step exists if and only if its COMMIT does.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fixture::*;
use crate::error::Kind;
use crate::format::{CommitRecord, StepKind, paths};
use crate::ids::{Generation, Step};
use crate::storage::crc32c;

fn records(job: &LocalJob, count: u64) -> Vec<CommitRecord> {
    (1..=count)
        .map(|generation| {
            let attempt = attempt(job.uuid, 5, generation);
            let durable = persist(&job.store, attempt, 1, one_node(1, 5, &mixed(generation))).unwrap();
            record(attempt, 1, StepKind::Full, &durable)
        })
        .collect()
}

#[test]
fn without_its_commit_a_step_does_not_exist() {
    let job = local();
    let record = records(&job, 1).remove(0);
    assert!(run(job.store.steps()).unwrap().is_empty());
    assert_eq!(run(job.store.commit(Step(5))).unwrap_err().kind, Kind::NotFound);
    publish(&job.store, &record).unwrap();
    assert_eq!(run(job.store.commit(Step(5))).unwrap().record, record);
}

#[test]
fn the_same_commit_again_is_success_and_another_one_is_conflict() {
    let job = local();
    let records = records(&job, 2);
    publish(&job.store, &records[0]).unwrap();
    publish(&job.store, &records[0]).unwrap();
    let error = publish(&job.store, &records[1]).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "{error}");
    assert!(error.message.contains("generation 1"), "{error}");
    check(&job.store, 5, 0, 1, 0, &mixed(1));
}

#[test]
fn p1_an_order_that_was_held_up_until_its_step_was_removed_brings_nothing_back() {
    let job = local();
    let record = records(&job, 1).remove(0);
    publish(&job.store, &record).unwrap();
    run(job.store.remove(&removal(5, 1, true, &[]))).unwrap();
    let error = publish(&job.store, &record).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    assert!(run(job.store.steps()).unwrap().is_empty());
}

#[test]
fn of_several_attempts_at_a_step_exactly_one_commits() {
    for _ in 0..5 {
        let job = local();
        let (records, won) = (records(&job, 6), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for record in &records {
                scope.spawn(|| match publish(&job.store, record) {
                    Ok(()) => drop(won.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => assert_eq!(error.kind, Kind::Conflict, "{error}"),
                });
            }
        });
        assert_eq!(won.into_inner(), 1);
        let generation = run(job.store.commit(Step(5))).unwrap().record.generation.0;
        check(&job.store, 5, 0, 1, 0, &mixed(generation));
    }
}

#[test]
fn only_a_commit_is_published() {
    let job = local();
    for path in ["OWNER", "steps/5/COMMIT", "data/x", "../COMMIT"] {
        let error = run(job.store.publish(path, "x".into())).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{path}");
    }
}

#[test]
fn a_damaged_commit_is_not_overwritten() {
    let job = local();
    let record = records(&job, 1).remove(0);
    let path = job.folder.path().join(JOB).join(paths::commit(Step(5)));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "half").unwrap();
    assert_eq!(publish(&job.store, &record).unwrap_err().kind, Kind::Corrupt);
}

/// A writer killed between its packs and its COMMIT, then the step again under a newer generation.
#[test]
fn a_step_lost_before_its_commit_is_saved_again() {
    let job = local();
    records(&job, 1);
    let attached =
        run(job.store.attach(crate::ids::ClusterId::new(), crate::checkpoint::Takeover::No, OWN)).unwrap();
    assert!(attached.steps.is_empty());
    assert_eq!(attached.highest_generation, Generation(1), "it starts above what it finds");
    let again = attempt(job.uuid, 5, 2);
    let durable = persist(&job.store, again, 1, one_node(1, 5, &mixed(8))).unwrap();
    publish(&job.store, &record(again, 1, StepKind::Full, &durable)).unwrap();
    check(&job.store, 5, 0, 1, 0, &mixed(8));
}

#[test]
fn a_slot_that_changes_while_it_is_written_is_never_durable() {
    use bytes::Bytes;
    /// Memory whose bytes another thread changes, as a trainer that writes into a sealed slot would.
    struct Changing(Vec<std::sync::atomic::AtomicU8>);
    impl AsRef<[u8]> for Changing {
        fn as_ref(&self) -> &[u8] {
            // SAFETY: as an arena's bytes: shared memory read as plain bytes while a rogue writer changes one of them.
            unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
        }
    }
    let job = local();
    let specs = [spec("a", 64 << 20)];
    let mut slot = slot(0, 1, 1, &specs, true);
    let memory: Vec<_> = slot.data.iter().map(|byte| std::sync::atomic::AtomicU8::new(*byte)).collect();
    let (start, length) = (memory.as_ptr().addr(), memory.len());
    slot.data = Bytes::from_owner(Changing(memory));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let before = crc32c(&slot.data);
    let data = slot.data.clone();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for at in (0..length).step_by(65536) {
                    let byte = std::ptr::with_exposed_provenance::<std::sync::atomic::AtomicU8>(start + at);
                    // SAFETY: inside of the memory, which `data` keeps alive.
                    unsafe { (*byte).fetch_add(1, Ordering::Relaxed) };
                }
            }
        });
        let outcome = persist(&job.store, attempt(job.uuid, 1, 1), 1, vec![vec![slot]]);
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    assert!(error.message.contains("changed"), "{error}");
    assert!(!data.is_empty() && before != 0);
}
