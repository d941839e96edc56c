//! Several targets for one save, against a real coordinator and sidecar: the first store commits, the others get each step
//! in the background, each keeps by its own rules, and a restore finds a step wherever it still is.

mod sidecar;

use std::fs;
use std::path::{Path, PathBuf};

use sidecar::trainer::{committed, contents};
use sidecar::{Cluster, PATIENCE, State, Trainer, Tune, eventually, files};
use strata_core::client::{RestoreOptions, Uninterrupted};
use strata_core::coordinator::KeepRules;
use strata_core::error::Kind;
use strata_core::ids::Step;
use strata_core::proto::v1::{self, SaveKind};
use strata_core::sidecar::{SidecarSettings, TargetSettings};
use strata_core::storage::StoreUrl;

/// Beside the first store.
fn remote(first: &Path) -> PathBuf {
    first.with_file_name("remote")
}

fn with_remote(settings: &mut SidecarSettings, keep_last: u32, hold: u32) {
    let url = StoreUrl::local(remote(Path::new(settings.store.as_deref().unwrap()))).unwrap();
    let keep = v1::KeepRules { last: keep_last, ..v1::KeepRules::default() };
    settings.targets = vec![TargetSettings { keep, hold, ..TargetSettings::new("remote", url) }];
    settings.slots = 3;
}

fn cluster(keep: fn(&mut strata_core::coordinator::CoordinatorSettings)) -> Cluster {
    Cluster::tuned(Tune { coordinator: keep, sidecar: |settings| with_remote(settings, 0, 2) })
}

fn keep_one(settings: &mut strata_core::coordinator::CoordinatorSettings) {
    settings.keep = KeepRules::last(1);
}

fn commits(store: &Path) -> Vec<u64> {
    let Ok(folders) = fs::read_dir(store.join("j/steps")) else { return Vec::new() };
    let mut steps: Vec<u64> = folders
        .filter(|folder| folder.as_ref().unwrap().path().join("COMMIT").exists())
        .map(|folder| folder.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    steps.sort_unstable();
    steps
}

fn save(trainer: &Trainer, step: u64) {
    committed(&trainer.save(step, &State::of(0, step, false)).unwrap()).unwrap();
}

fn status(cluster: &Cluster) -> v1::TargetStatus {
    cluster.coordinator_status().jobs[0].targets[0].clone()
}

fn step_of(step: u64) -> RestoreOptions {
    RestoreOptions { step: Some(Step(step)), ..RestoreOptions::default() }
}

/// Slots of this node would answer otherwise.
fn forget_arenas(cluster: &mut Cluster) {
    cluster.stop_sidecar();
    fs::remove_dir_all(cluster.arenas()).unwrap();
    cluster.start_sidecar();
}

#[track_caller]
fn restores(trainer: &Trainer, step: u64) {
    let found = trainer.restore(step_of(step)).unwrap().unwrap();
    assert_eq!(contents(&found), State::of(0, step, false));
}

#[test]
fn every_step_reaches_the_target_whole_and_each_keeps_by_its_own_rules() {
    let cluster = cluster(keep_one);
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    let state = State::of(0, 1, false);
    for step in 1..=5 {
        let kind = if step == 1 { SaveKind::Full } else { SaveKind::Incremental };
        committed(&trainer.save_as(step, &state, kind, &[]).unwrap()).unwrap();
        eventually("the target has the step", || commits(&remote(&cluster.store())).contains(&step));
    }
    eventually("the first store keeps the newest alone", || commits(&cluster.store()) == [5]);
    assert_eq!(commits(&remote(&cluster.store())), [1, 2, 3, 4, 5]);
    eventually("nothing is behind", || status(&cluster).behind == 0 && status(&cluster).steps == 5);
    let listed = trainer.session.all_steps(Some(PATIENCE), &Uninterrupted).unwrap();
    assert_eq!(
        listed.iter().map(|info| (info.step, info.elsewhere)).collect::<Vec<_>>(),
        [(1, true), (2, true), (3, true), (4, true), (5, false)]
    );
    for step in 1..=5 {
        assert_eq!(contents(&trainer.restore(step_of(step)).unwrap().unwrap()), state, "step {step}");
    }
    // Whole there without the first store: the packs of its bases came along.
    fs::remove_dir_all(cluster.store().join("j/data")).unwrap();
    assert_eq!(contents(&trainer.restore(step_of(3)).unwrap().unwrap()), state);
}

#[test]
fn p5_a_target_that_fails_delays_no_commit_and_catches_up() {
    let cluster = cluster(keep_one);
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    save(&trainer, 1);
    eventually("the target has the step", || commits(&remote(&cluster.store())) == [1]);
    fs::rename(remote(&cluster.store()), remote(&cluster.store()).with_extension("away")).unwrap();
    for step in 2..=6 {
        save(&trainer, step);
    }
    // Two are held for it beyond the newest; the others are given up with a warning.
    eventually("the first store is bounded", || commits(&cluster.store()) == [4, 5, 6]);
    eventually("the lag is shown", || status(&cluster).behind == 3 && !status(&cluster).problem.is_empty());
    fs::rename(remote(&cluster.store()).with_extension("away"), remote(&cluster.store())).unwrap();
    eventually("it catches up", || commits(&remote(&cluster.store())) == [1, 4, 5, 6]);
    eventually("and nothing is held any more", || commits(&cluster.store()) == [6]);
    eventually("nor wrong", || status(&cluster).problem.is_empty());
    restores(&trainer, 4);
}

#[test]
fn copies_go_on_after_the_death_of_sidecar_and_coordinator() {
    let mut cluster = cluster(|_| ());
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    for step in 1..=8 {
        save(&trainer, step);
        match step % 4 {
            1 => {
                cluster.stop_sidecar();
                cluster.start_sidecar();
            }
            3 => {
                cluster.stop_coordinator();
                cluster.start_coordinator();
            }
            _ => {}
        }
    }
    eventually("the target has them all", || commits(&remote(&cluster.store())) == [1, 2, 3, 4, 5, 6, 7, 8]);
    // Whole without the first store, and without the slots of this node.
    fs::remove_dir_all(cluster.store().join("j/data")).unwrap();
    forget_arenas(&mut cluster);
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    (1..=8).for_each(|step| restores(&trainer, step));
}

#[test]
fn p2_a_damaged_step_is_read_from_the_target_and_the_object_is_named() {
    let cluster = cluster(|_| ());
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    for step in 1..=4 {
        save(&trainer, step);
    }
    eventually("the target has them", || commits(&remote(&cluster.store())).len() == 4);
    let folder = cluster.store().join(format!("j/data/{:020}.g1", 1));
    let pack = files(&folder, "pack").pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[10] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let found = trainer.restore(step_of(1)).unwrap().unwrap();
    assert_eq!(contents(&found), State::of(0, 1, false));
    assert!(found.damaged().is_empty(), "it is the step that was asked for");
    let [note] = found.notes() else { panic!("{:?}", found.notes()) };
    assert!(
        note.contains("target remote") && note.contains(pack.file_name().unwrap().to_str().unwrap()),
        "{note}"
    );
    drop(found);
    let commit = cluster.store().join(format!("j/steps/{:020}/COMMIT", 2));
    fs::remove_file(commit).unwrap();
    restores(&trainer, 2);
    // Damaged in both: that is Corrupt, and names both.
    let folder = remote(&cluster.store()).join(format!("j/data/{:020}.g1", 1));
    fs::remove_file(files(&folder, "pack").pop().unwrap()).unwrap();
    let again = trainer.restore(step_of(1));
    // The slot that it was brought into may still hold it.
    if let Err(error) = again {
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert!(error.message.contains("target remote"), "{error}");
    }
}

#[test]
fn a_lost_first_store_is_taken_up_from_the_target() {
    let mut cluster = cluster(|_| ());
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    for step in 1..=3 {
        save(&trainer, step);
    }
    eventually("the target has them", || commits(&remote(&cluster.store())) == [1, 2, 3]);
    trainer.session.close(None, &Uninterrupted).unwrap();
    drop(trainer);
    // A new machine: no first store, no coordinator state, no arenas.
    cluster.stop_sidecar();
    cluster.stop_coordinator();
    fs::remove_dir_all(cluster.store()).unwrap();
    let _ = fs::remove_dir_all(cluster.arenas());
    cluster.start_coordinator();
    cluster.start_sidecar();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    let found =
        trainer.restore(RestoreOptions::default()).unwrap().expect("the newest step is in the target");
    assert_eq!(found.step(), Step(3));
    assert_eq!(contents(&found), State::of(0, 3, false));
    drop(found);
    let error = trainer.save(2, &State::of(0, 2, false)).and_then(|handle| committed(&handle)).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "that number is another step's: {error}");
    save(&trainer, 4);
    eventually("new steps join the old ones", || commits(&remote(&cluster.store())) == [1, 2, 3, 4]);
    restores(&trainer, 1);
}

#[test]
fn a_job_begins_anew_only_when_every_target_could_be_asked() {
    let cluster = Cluster::tuned(Tune {
        coordinator: |_| (),
        sidecar: |settings| {
            with_remote(settings, 0, 2);
            // A file where its directory should be: it can't be looked into.
            fs::write(remote(Path::new(settings.store.as_deref().unwrap())), "x").unwrap();
        },
    });
    let error = Trainer::connect(Trainer::options(&cluster, "j", 0, 1)).err().expect("refused");
    assert!(error.message.contains("remote"), "{error}");
}

#[test]
fn a_removal_by_hand_means_the_step_wherever_it_is() {
    let cluster = cluster(keep_one);
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    for step in 1..=3 {
        save(&trainer, step);
        eventually("the target has the step", || commits(&remote(&cluster.store())).contains(&step));
    }
    eventually("the first store keeps the newest alone", || commits(&cluster.store()) == [3]);
    trainer.session.delete(Step(1), false, Some(PATIENCE), &Uninterrupted).unwrap();
    assert_eq!(commits(&remote(&cluster.store())), [2, 3]);
    trainer.session.delete(Step(3), true, Some(PATIENCE), &Uninterrupted).unwrap();
    eventually("gone from both", || {
        commits(&remote(&cluster.store())) == [2] && commits(&cluster.store()).is_empty()
    });
    eventually("with its objects", || {
        !remote(&cluster.store()).join(format!("j/data/{:020}.g1", 3)).exists()
    });
    // Within one generation a committed number stays taken.
    trainer.session.close(None, &Uninterrupted).unwrap();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    save(&trainer, 3);
    eventually("and saved anew it is copied again", || commits(&remote(&cluster.store())) == [2, 3]);
}

/// As if its disk were not mounted: where it was, nothing is.
fn take_away(store: &Path) {
    fs::rename(remote(store), remote(store).with_extension("away")).unwrap();
}

fn bring_back(store: &Path) {
    fs::rename(remote(store).with_extension("away"), remote(store)).unwrap();
}

#[test]
fn what_a_person_removed_while_a_target_was_away_stays_removed_over_restarts() {
    let mut cluster = cluster(|_| ());
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    (1..=3).for_each(|step| save(&trainer, step));
    eventually("the target has them", || commits(&remote(&cluster.store())) == [1, 2, 3]);
    take_away(&cluster.store());
    trainer.session.delete(Step(2), false, Some(PATIENCE), &Uninterrupted).unwrap();
    for _ in 0..2 {
        cluster.stop_coordinator();
        cluster.start_coordinator();
    }
    eventually("somebody looked for it in vain", || {
        let jobs = cluster.coordinator_status().jobs;
        jobs.first().is_some_and(|job| job.targets.iter().any(|target| !target.problem.is_empty()))
    });
    assert!(!remote(&cluster.store()).exists(), "nothing is made where a target was");
    bring_back(&cluster.store());
    eventually("gone there too", || commits(&remote(&cluster.store())) == [1, 3]);
    let error = trainer.restore(step_of(2)).err().expect("it was removed");
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    restores(&trainer, 3);
}

#[test]
fn the_targets_own_rule_removes_there_and_pins_hold() {
    let cluster =
        Cluster::tuned(Tune { coordinator: |_| (), sidecar: |settings| with_remote(settings, 2, 2) });
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    save(&trainer, 1);
    trainer.session.pin(Step(1), None, &Uninterrupted).unwrap();
    for step in 2..=5 {
        save(&trainer, step);
        eventually("the target has the step", || commits(&remote(&cluster.store())).contains(&step));
    }
    eventually("two and the pinned one", || commits(&remote(&cluster.store())) == [1, 4, 5]);
    let folders = || fs::read_dir(remote(&cluster.store()).join("j/data")).unwrap().count();
    eventually("nothing else is left there", || folders() == 3);
    assert_eq!(commits(&cluster.store()), [1, 2, 3, 4, 5]);
    trainer.session.unpin(Step(1), None, &Uninterrupted).unwrap();
    eventually("pinned no more", || commits(&remote(&cluster.store())) == [4, 5]);
}
