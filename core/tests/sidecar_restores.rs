//! Restores that are given up, fall back or are asked for anew.

mod sidecar;

use std::cell::Cell;
use std::time::Duration;

use sidecar::trainer::{committed, contents};
use sidecar::{Cluster, State, Trainer, eventually, files};
use strata_core::client::{Interrupt, RestoreOptions, Uninterrupted};
use strata_core::error::{Error, Kind, Result};
use strata_core::ids::Step;

/// Large enough that bringing it in takes longer than a trainer waits before it asks whether to stop.
fn large(step: u64) -> State {
    let tensors = vec![("large".to_owned(), vec![step as u8; 192 << 20], false)];
    State { tree: b"{}".to_vec(), tensors }
}

/// As Ctrl-C does, the first time that it is asked.
struct Stopped(Cell<bool>);

impl Interrupt for Stopped {
    fn check(&self) -> Result<()> {
        self.0.set(true);
        Err(Error::cancelled("enough"))
    }
}

#[test]
fn p5_restore_that_its_trainer_gave_up_holds_no_slot() {
    let cluster = Cluster::start();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    committed(&trainer.save(1, &large(1)).unwrap()).unwrap();
    trainer.close();
    eventually("the closed job's arena is removed", || cluster.arena_files().is_empty());
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    // What a restore of a part has brought in is not what the next one wants: it comes from the store again.
    let part = RestoreOptions { only: "large".into(), ..RestoreOptions::default() };
    for _ in 0..4 {
        let stopped = Stopped(Cell::new(false));
        let _ = trainer.session.restore(&part, &stopped);
    }
    eventually("the loads have ended, and their slots are free", || {
        let asked = RestoreOptions { timeout: Some(Duration::from_secs(5)), ..part.clone() };
        trainer.session.restore(&asked, &Uninterrupted).is_ok()
    });
    for step in 2..5 {
        committed(&trainer.save(step, &large(step)).unwrap()).unwrap();
    }
}

/// Two committed steps, none of them in memory any more; the packs of `damaged` are short.
fn damaged(cluster: &mut Cluster, damaged: &[u64]) -> Trainer {
    let trainer = Trainer::world(cluster, "j", 1).pop().unwrap();
    for step in [1, 2] {
        committed(&trainer.save(step, &State::of(0, step, false)).unwrap()).unwrap();
    }
    trainer.close();
    eventually("the closed job's arena is removed", || cluster.arena_files().is_empty());
    for pack in files(&cluster.store(), "pack") {
        if damaged.iter().any(|step| pack.display().to_string().contains(&format!("/{step:020}."))) {
            std::fs::write(&pack, "short").unwrap();
        }
    }
    Trainer::world(cluster, "j", 1).pop().unwrap()
}

#[test]
fn named_step_that_is_damaged_falls_back_to_the_one_before_it() {
    let mut cluster = Cluster::start();
    let trainer = damaged(&mut cluster, &[2]);
    let named = RestoreOptions { step: Some(Step(2)), ..RestoreOptions::default() };
    assert_eq!(trainer.restore(named.clone()).err().unwrap().kind, Kind::Corrupt);
    let found = trainer.restore(RestoreOptions { fall_back: true, ..named }).unwrap().unwrap();
    assert_eq!((found.step(), contents(&found)), (Step(1), State::of(0, 1, false)));
    assert_eq!(found.damaged().len(), 1);
}

#[test]
fn job_whose_every_step_is_damaged_is_not_taken_for_one_without_steps() {
    let mut cluster = Cluster::start();
    let trainer = damaged(&mut cluster, &[1, 2]);
    let any = RestoreOptions { fall_back: true, ..RestoreOptions::default() };
    let error = trainer.restore(any).err().unwrap();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(error.message.contains("step 1") && error.message.contains("step 2"), "{error}");
}

#[test]
fn restore_of_another_step_is_not_answered_with_what_was_given_up() {
    let cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    for step in [1, 2] {
        let save = |rank: usize| ranks[rank].save(step, &State::of(rank as u32, step, false)).unwrap();
        for handle in [save(0), save(1)] {
            committed(&handle).unwrap();
        }
    }
    // One rank was handed the newest step; the other gave up.
    let newest = ranks[0].restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!(newest.step(), Step(2));
    let hasty = RestoreOptions { timeout: Some(Duration::from_nanos(1)), ..RestoreOptions::default() };
    let _ = ranks[1].session.restore(&hasty, &Uninterrupted);
    let first = RestoreOptions { step: Some(Step(1)), ..RestoreOptions::default() };
    for (number, rank) in ranks.iter().enumerate() {
        let found = rank.restore(first.clone()).unwrap().unwrap();
        assert_eq!((found.step(), contents(&found)), (Step(1), State::of(number as u32, 1, false)));
    }
}
