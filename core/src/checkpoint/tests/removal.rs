//! Removal deletes what nobody names, and only that (P4).

use std::fs;

use super::fixture::*;
use crate::error::{Error, Kind, Result};
use crate::format::paths;
use crate::ids::{Generation, JobUuid, Step};

fn remove(job: &LocalJob, step: u64, remaining: &[u64]) -> Result<u64> {
    run(job.store.remove(&removal(step, 1, true, remaining)))
}

fn used(job: &LocalJob) -> u64 {
    fn bytes(path: &std::path::Path) -> u64 {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { bytes(&path) } else { path.metadata().unwrap().len() }).sum()
    }
    bytes(job.folder.path())
}

fn state(step: u64) -> Vec<Spec> {
    vec![spec("frozen", 6 << 20), spec("trained", 1 << 20).version(step), spec("small", 10).version(step)]
}

/// A FULL step 1, then INCREMENTAL 2, 3, 4, each on the one before.
fn chain(uuid: JobUuid, job: &LocalJob) {
    let mut before = None;
    for step in 1..5 {
        let mut now = slot(0, 1, step, &state(step), true);
        now.base = before.as_ref().map(base_of);
        save(&job.store, uuid, step, 1, vec![vec![now]]);
        before = Some(slot(0, 1, step, &state(step), true));
    }
}

#[test]
fn a_base_is_kept_as_long_as_a_step_needs_it_and_goes_with_the_last() {
    let orders: [[u64; 4]; 4] = [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3], [3, 1, 4, 2]];
    for steps in orders {
        let job = local();
        chain(job.uuid, &job);
        let mut left: Vec<u64> = vec![1, 2, 3, 4];
        for step in steps {
            left.retain(|other| *other != step);
            let before = used(&job);
            let freed = remove(&job, step, &left).unwrap();
            assert!(freed > 0 && before - used(&job) >= freed, "{steps:?}: {freed} of {before}");
            for &step in &left {
                check(&job.store, step, 0, 1, 0, &state(step));
            }
            assert_eq!(run(job.store.commit(Step(step))).unwrap_err().kind, Kind::NotFound);
            assert_eq!(remove(&job, step, &left).unwrap(), 0, "made again, it frees nothing more");
        }
        assert_eq!(used(&job), 0, "{steps:?}");
        assert!(!job.folder.path().join(JOB).join("data").exists());
    }
}

#[test]
fn an_abandoned_attempt_goes_and_its_rival_stays() {
    let job = local();
    let attempts = [1, 2].map(|generation| attempt(job.uuid, 5, generation));
    for attempt in attempts {
        let durable = persist(&job.store, attempt, 1, one_node(1, 5, &state(attempt.generation.0))).unwrap();
        if attempt.generation == Generation(2) {
            publish(&job.store, &record(attempt, 1, Default::default(), &durable)).unwrap();
        }
    }
    let error = run(job.store.remove(&removal(5, 2, false, &[5]))).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "a committed attempt is not abandoned: {error}");
    assert!(run(job.store.remove(&removal(5, 1, false, &[5]))).unwrap() > 7 << 20);
    check(&job.store, 5, 0, 1, 0, &state(2));
    let error = run(job.store.remove(&removal(5, 1, true, &[]))).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "the number is another attempt's: {error}");
    check(&job.store, 5, 0, 1, 0, &state(2));
}

#[test]
fn leftovers_of_a_killed_writer_go_with_the_attempt() {
    let job = local();
    let attempt = attempt(job.uuid, 5, 1);
    let stray = job.folder.path().join(JOB).join(paths::attempt_folder(attempt.step, attempt.generation));
    fs::create_dir_all(&stray).unwrap();
    fs::write(stray.join(".writing-node-0.pack-00ff"), vec![1; 5000]).unwrap();
    assert_eq!(run(job.store.remove(&removal(5, 1, false, &[]))).unwrap(), 5000);
    assert!(!stray.exists());
}

#[test]
fn what_a_killed_sidecar_wrote_for_a_step_that_was_committed_after_all_goes_with_the_next_removal() {
    let job = local();
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &state(1)));
    // Twice the same attempt: the objects of the first try are named by nobody.
    persist(&job.store, attempt(job.uuid, 2, 1), 1, one_node(1, 2, &state(2))).unwrap();
    let killed = paths::attempt_folder(Step(2), Generation(1));
    let torn = job.folder.path().join(JOB).join(killed).join(".writing-node-0.pack-00ff");
    fs::write(&torn, vec![1; 5000]).unwrap();
    // And a COMMIT whose writing never ended.
    let commit =
        job.folder.path().join(JOB).join(paths::commit(Step(2))).with_file_name(".writing-COMMIT-00ff");
    fs::create_dir_all(commit.parent().unwrap()).unwrap();
    fs::write(&commit, "x").unwrap();
    save(&job.store, job.uuid, 2, 1, one_node(1, 2, &state(2)));
    // Another attempt's, whose fate is open.
    persist(&job.store, attempt(job.uuid, 3, 1), 1, one_node(1, 3, &state(3))).unwrap();
    let open = used_by(&job, 3);
    assert!(remove(&job, 1, &[2]).unwrap() > 14 << 20, "step 1 and the first try of step 2");
    assert!(!torn.exists() && !commit.exists());
    nothing_is_left_over_but(job.folder.path(), &job.store, &[3]);
    assert_eq!(used_by(&job, 3), open);
    check(&job.store, 2, 0, 1, 0, &state(2));
}

fn used_by(job: &LocalJob, step: u64) -> usize {
    files(&job.folder.path().join(JOB).join(paths::attempt_folder(Step(step), Generation(1)))).len()
}

#[track_caller]
fn stops(outcome: Result<u64>, kind: Kind) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    error
}

#[test]
fn what_cannot_be_read_stops_the_removal() {
    let job = local();
    chain(job.uuid, &job);
    let steps = job.folder.path().join(JOB).join("steps");
    let commit = steps.join(format!("{:020}/COMMIT", 3));
    let whole = fs::read(&commit).unwrap();
    fs::write(&commit, "half").unwrap();
    let error = stops(remove(&job, 1, &[2, 3, 4]), Kind::Corrupt);
    assert!(error.message.contains("step 3"), "{error}");
    fs::write(&commit, whole).unwrap();
    (2..5).for_each(|step| check(&job.store, step, 0, 1, 0, &state(step)));

    let folder = job.folder.path().join(JOB).join(paths::attempt_folder(Step(4), Generation(1)));
    let manifest = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let manifest = manifest.into_iter().find(|path| path.extension().unwrap() == "manifest").unwrap();
    let whole = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    stops(remove(&job, 1, &[2, 3, 4]), Kind::Corrupt);
    fs::write(&manifest, whole).unwrap();
    (2..5).for_each(|step| check(&job.store, step, 0, 1, 0, &state(step)));

    let error = stops(remove(&job, 1, &[2, 3, 4, 9]), Kind::NotFound);
    assert!(error.message.contains("step 9"), "{error}");
    assert!(remove(&job, 1, &[2, 3, 4]).unwrap() > 0);
}

#[test]
fn a_step_that_the_coordinator_forgot_still_holds_what_it_names() {
    let job = local();
    chain(job.uuid, &job);
    remove(&job, 1, &[]).unwrap();
    (2..5).for_each(|step| check(&job.store, step, 0, 1, 0, &state(step)));
}

#[test]
fn a_damaged_step_can_be_removed() {
    let job = local();
    chain(job.uuid, &job);
    fs::write(job.folder.path().join(JOB).join(paths::commit(Step(4))), "half").unwrap();
    assert!(remove(&job, 4, &[1, 2, 3]).unwrap() > 0);
    assert_eq!(run(job.store.steps()).unwrap().len(), 3);
}

#[test]
fn a_step_whose_attempt_nobody_can_tell_any_more_is_removed_whole() {
    let job = local();
    chain(job.uuid, &job);
    fs::write(job.folder.path().join(JOB).join(paths::commit(Step(4))), "half").unwrap();
    // As the coordinator knows a step whose COMMIT was damaged when it was first listed.
    let order = removal(4, 0, true, &[1, 2, 3]);
    assert!(run(job.store.remove(&order)).unwrap() > 1 << 20);
    assert!(!job.folder.path().join(JOB).join(paths::attempt_folder(Step(4), Generation(1))).exists());
    assert_eq!(run(job.store.remove(&order)).unwrap(), 0, "made again, it frees nothing more");
    (1..4).for_each(|step| check(&job.store, step, 0, 1, 0, &state(step)));

    let order = removal(3, 0, true, &[1, 2]);
    assert!(run(job.store.remove(&order)).unwrap() > 1 << 20, "readable again meanwhile");
    (1..3).for_each(|step| check(&job.store, step, 0, 1, 0, &state(step)));
}
