//! Retention against a real coordinator and sidecar: rules composed, pins, what is refused to every rule.

mod sidecar;

use std::time::Duration;

use sidecar::trainer::{committed, contents};
use sidecar::{Cluster, State, Trainer, Tune, eventually, files};
use strata_core::client::{RestoreOptions, Uninterrupted};
use strata_core::config::Extreme;
use strata_core::coordinator::{KeepBest, KeepRules};
use strata_core::error::Kind;
use strata_core::ids::Step;
use strata_core::proto::v1::SaveKind;

fn steps(trainer: &Trainer) -> Vec<u64> {
    let steps = trainer.session.all_steps(None, &Uninterrupted).unwrap();
    let mut steps: Vec<u64> = steps.iter().map(|step| step.step).collect();
    steps.sort_unstable();
    steps
}

fn in_store(cluster: &Cluster) -> Vec<u64> {
    let commits = std::fs::read_dir(cluster.store().join("j/steps")).unwrap().map(|entry| entry.unwrap());
    let mut steps: Vec<u64> = commits
        .filter(|folder| folder.path().join("COMMIT").exists())
        .map(|folder| folder.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    steps.sort_unstable();
    steps
}

#[track_caller]
fn keeps(cluster: &Cluster, trainer: &Trainer, wanted: &[u64]) {
    eventually("the collector keeps what the rules say", || {
        steps(trainer) == wanted && in_store(cluster) == wanted
    });
    let folders = || std::fs::read_dir(cluster.store().join("j/data")).unwrap().count();
    eventually("nothing else is left in the store", || folders() == wanted.len());
    for &step in wanted {
        let options = RestoreOptions { step: Some(Step(step)), ..RestoreOptions::default() };
        let restored = trainer.restore(options).unwrap().unwrap();
        assert_eq!(contents(&restored), State::of(0, step, false));
    }
}

#[test]
fn p4_rules_together_keep_what_any_of_them_keeps_and_pins_beside_them() {
    let cluster = Cluster::tuned(Tune {
        coordinator: |settings| {
            let best = KeepBest { count: 2, metric: "loss".into(), is: Extreme::Min };
            settings.keep = KeepRules { every_steps: 40, best: Some(best), ..KeepRules::last(2) };
        },
        ..Tune::default()
    });
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    let losses = [9.0, 1.0, 8.0, 7.0, 2.0, 6.0, 5.0, 4.5, 4.0, 3.5];
    for (number, loss) in losses.into_iter().enumerate() {
        let step = 10 * (number as u64 + 1);
        let metrics = format!("{{\"loss\": {loss}}}");
        committed(&trainer.save_measured(step, &State::of(0, step, false), &metrics).unwrap()).unwrap();
        if step == 30 {
            trainer.session.pin(Step(30), None, &Uninterrupted).unwrap();
        }
    }
    // 10, 40 and 80 begin a stretch of forty; 20 and 50 are the best; 30 is pinned; 90 and 100 are the newest.
    keeps(&cluster, trainer, &[10, 20, 30, 40, 50, 80, 90, 100]);
    trainer.session.unpin(Step(30), None, &Uninterrupted).unwrap();
    let step = 110;
    committed(&trainer.save_measured(step, &State::of(0, step, false), "{\"loss\": 0.5}").unwrap()).unwrap();
    // A new best: 50 goes, and so does what is pinned no more.
    keeps(&cluster, trainer, &[10, 20, 40, 80, 100, 110]);
}

#[test]
fn p4_one_step_for_every_stretch_of_time_is_kept_beside_the_newest() {
    let cluster = Cluster::tuned(Tune {
        coordinator: |settings| {
            settings.keep = KeepRules { every: Some(Duration::from_secs(3600)), ..KeepRules::last(1) };
        },
        ..Tune::default()
    });
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    for step in 1..=5 {
        committed(&trainer.save(step, &State::of(0, step, false)).unwrap()).unwrap();
    }
    keeps(&cluster, trainer, &[1, 5]);
}

/// A base goes with its last referrer's needs: the step is removed, the packs that others name stay.
#[test]
fn p4_incremental_steps_stay_whole_when_a_rule_removes_what_they_refer_to() {
    let cluster = Cluster::tuned(Tune {
        coordinator: |settings| settings.keep = KeepRules::last(1),
        sidecar: |settings| settings.slots = 3,
    });
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    // The same bytes at every step: each refers to the packs of the first.
    let state = State::of(0, 1, false);
    for step in 1..=4 {
        let kind = if step == 1 { SaveKind::Full } else { SaveKind::Incremental };
        committed(&trainer.save_as(step, &state, kind, &[]).unwrap()).unwrap();
    }
    eventually("only the newest is left", || steps(trainer) == [4] && in_store(&cluster) == [4]);
    let options = RestoreOptions { step: Some(Step(4)), ..RestoreOptions::default() };
    assert_eq!(contents(&trainer.restore(options).unwrap().unwrap()), state);
    assert!(!files(&cluster.store(), "pack").is_empty());
}

/// P5: a disk that holds what nobody can restore, for as long as a generation lasts, would be full one day.
#[test]
fn p5_what_a_save_that_was_given_up_has_written_goes_with_the_next_commit() {
    let cluster = Cluster::tuned(Tune::default());
    let trainers = Trainer::world(&cluster, "j", 2);
    let save = |step: u64, kinds: [SaveKind; 2]| {
        let ranks = trainers.iter().zip(kinds).zip(0..);
        let saved = ranks
            .map(|((trainer, kind), rank)| trainer.save_as(step, &State::of(rank, step, false), kind, &[]));
        // Every rank has asked before the first is waited for.
        let saved: Vec<_> = saved.collect();
        saved.into_iter().map(|saved| saved.and_then(|handle| committed(&handle))).collect::<Vec<_>>()
    };
    // The second may be told as it asks or later; what the first writes may have come to its end or not: nothing
    // stays either way.
    for saved in save(10, [SaveKind::Full, SaveKind::ModelOnly]) {
        assert_eq!(saved.expect_err("the ranks do not agree").kind, Kind::Invalid);
    }
    for saved in save(20, [SaveKind::Full; 2]) {
        saved.expect("the ranks agree");
    }
    let folders = || {
        let folders = std::fs::read_dir(cluster.store().join("j/data")).unwrap();
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    eventually(
        "step 20 alone is in the store",
        || matches!(folders().as_slice(), [one] if one.starts_with(&format!("{:020}.", 20))),
    );
}

#[test]
fn a_job_whose_steps_lack_the_metric_is_told_so_once() {
    let cluster = Cluster::tuned(Tune {
        coordinator: |settings| {
            let best = KeepBest { count: 1, metric: "loss".into(), is: Extreme::Min };
            settings.keep = KeepRules { best: Some(best), ..KeepRules::last(1) };
        },
        ..Tune::default()
    });
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    committed(&trainer.save_measured(1, &State::of(0, 1, false), "{\"accuracy\": 1}").unwrap()).unwrap();
    let told = cluster.coordinator_status().jobs[0].last_warning.clone();
    assert!(told.contains("it has accuracy"), "{told}");
}
