//! Saves and restores through a real sidecar and a real coordinator.

mod sidecar;

use sidecar::trainer::{committed, contents, lost};
use sidecar::{Cluster, PATIENCE, State, Trainer, Tune, eventually};
use strata_core::client::{Interrupt, RestoreOptions, SaveState, Uninterrupted};
use strata_core::error::{Error, Kind};
use strata_core::handoff::{MemoryBudget, Promise};
use strata_core::ids::Step;
use strata_core::proto::v1::{RestoreSource, SaveKind};

#[test]
fn saved_step_is_committed_and_restored_from_the_arena_whole_and_in_part() {
    let cluster = Cluster::start();
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    assert!(trainer.restore(RestoreOptions::default()).unwrap().is_none(), "the job has no step yet");
    let state = State::of(0, 10, false);
    let handle = trainer.save(10, &state).unwrap();
    let info = committed(&handle).unwrap();
    assert_eq!((info.step, info.world_size), (10, 1));
    assert_eq!(handle.state().unwrap(), SaveState::Committed);
    assert_eq!(trainer.session.latest_step(None, &Uninterrupted).unwrap(), Some(Step(10)));

    let warm = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!((warm.step(), warm.source(), warm.committed()), (Step(10), "arena", true));
    assert_eq!(contents(&warm), state);
    let part = RestoreOptions { only: "own.bias".into(), ..RestoreOptions::default() };
    let part = trainer.restore(part).unwrap().unwrap();
    let bias = part.tensors().iter().position(|tensor| tensor.name == "own.bias").unwrap();
    assert_eq!((part.source(), part.bytes(bias).unwrap()), ("arena", &state.tensors[1].1[..]));
    let missing = RestoreOptions { step: Some(Step(11)), ..RestoreOptions::default() };
    assert_eq!(trainer.restore(missing).err().unwrap().kind, Kind::NotFound);
}

#[test]
fn step_is_read_back_from_the_store_when_no_arena_has_it() {
    let mut cluster = Cluster::start();
    let state = State::of(0, 3, false);
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    committed(&trainer.save(3, &state).unwrap()).unwrap();
    trainer.close();
    eventually("the closed job's arena is removed at once", || cluster.arena_files().is_empty());
    cluster.stop_sidecar();
    cluster.start_sidecar();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    let cold = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!((cold.step(), cold.source()), (Step(3), "store"));
    assert_eq!(contents(&cold), state);
    drop(cold);
    let warm = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!((warm.source(), contents(&warm)), ("arena", state));
}

#[test]
fn replicated_tensors_are_staged_once_a_node_stored_once_and_restored_to_all() {
    let cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 4);
    let states: Vec<State> = (0..4).map(|rank| State::of(rank, 7, true)).collect();
    let handles: Vec<_> =
        ranks.iter().zip(&states).map(|(rank, state)| rank.save(7, state).unwrap()).collect();
    let info = committed(&handles[0]).unwrap();
    let own: u64 = states.iter().map(|state| state.tensors[0].1.len() as u64).sum();
    let shared = states[0].tensors[2].1.len() as u64;
    assert!(info.stored_bytes < own + shared + 100_000, "{} of {own} + {shared}", info.stored_bytes);
    for handle in &handles {
        assert_eq!(committed(handle).unwrap().step, 7);
    }
    for rank in ranks {
        rank.close();
    }
    eventually("the closed job's arenas are removed", || cluster.arena_files().is_empty());
    let ranks = Trainer::world(&cluster, "j", 4);
    for (rank, state) in ranks.iter().zip(&states) {
        let restored = rank.restore(RestoreOptions::default()).unwrap().unwrap();
        assert_eq!((restored.source(), &contents(&restored)), ("store", state));
    }
}

#[test]
fn ranks_that_staged_only_their_own_are_restored_from_memory_too() {
    let cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 3);
    let states: Vec<State> = (0..3).map(|rank| State::of(rank, 7, true)).collect();
    let handles: Vec<_> =
        ranks.iter().zip(&states).map(|(rank, state)| rank.save(7, state).unwrap()).collect();
    for handle in &handles {
        committed(handle).unwrap();
    }
    for _ in 0..2 {
        for (rank, state) in ranks.iter().zip(&states) {
            let restored = rank.restore(RestoreOptions::default()).unwrap().unwrap();
            assert_eq!((restored.source(), &contents(&restored)), ("arena", state));
        }
    }
    let next: Vec<State> = (0..3).map(|rank| State::of(rank, 8, true)).collect();
    for (rank, state) in ranks.iter().zip(&next) {
        rank.save(8, state).unwrap();
    }
    for (rank, state) in ranks.iter().zip(&next) {
        let staged = RestoreOptions { source: RestoreSource::Staged, ..RestoreOptions::default() };
        let restored = rank.restore(staged).unwrap().unwrap();
        assert!(restored.step() == Step(7) || contents(&restored) == *state, "step {}", restored.step());
    }
}

#[test]
fn save_of_some_ranks_needs_no_others_and_gives_all_the_same_commit() {
    let cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    let state = State::of(0, 5, false);
    let all: Vec<_> =
        ranks.iter().map(|rank| rank.save_as(5, &state, SaveKind::Full, &[0]).unwrap()).collect();
    let infos: Vec<_> = all.iter().map(|handle| committed(handle).unwrap()).collect();
    assert_eq!(infos[0], infos[1]);
    for rank in &ranks {
        let restored = rank.restore(RestoreOptions::default()).unwrap().unwrap();
        assert_eq!(contents(&restored).tensors, state.tensors);
    }
    // One that comes when it is committed already gets its commit too.
    committed(&ranks[0].save_as(6, &state, SaveKind::Full, &[0]).unwrap()).unwrap();
    let late = ranks[1].save_as(6, &state, SaveKind::Full, &[0]).unwrap();
    assert_eq!(committed(&late).unwrap().step, 6);
}

#[test]
fn unchanged_chunks_of_an_incremental_step_are_not_stored_again() {
    let cluster = Cluster::tuned(Tune { sidecar: |settings| settings.slots = 3, ..Tune::default() });
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    let mut state = State::of(0, 1, true);
    let first = committed(&trainer.save(1, &state).unwrap()).unwrap();
    state.tensors[1].1[0] ^= 1;
    let handle = trainer.save_as(2, &state, SaveKind::Incremental, &[]).unwrap();
    let second = committed(&handle).unwrap();
    assert_eq!(second.base_steps, [1]);
    assert!(
        second.stored_bytes * 10 < first.stored_bytes,
        "{} after {}",
        second.stored_bytes,
        first.stored_bytes
    );
    let restored = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!((restored.step(), contents(&restored)), (Step(2), state));
}

#[test]
fn state_whose_shape_changed_gets_a_larger_arena_and_is_restored_whole() {
    let cluster = Cluster::start();
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    committed(&trainer.save(1, &State::of(0, 1, false)).unwrap()).unwrap();
    let larger = State::of(0, 2, true);
    committed(&trainer.save(2, &larger).unwrap()).unwrap();
    eventually("the small arena is removed", || cluster.arena_files().len() == 1);
    let restored = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!((restored.step(), restored.source(), contents(&restored)), (Step(2), "arena", larger));
}

#[test]
fn staged_step_is_restored_before_it_is_committed() {
    let cluster = Cluster::start();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    let state = State::of(0, 4, false);
    // What is durable can't be published while a file is in the place of the folder of COMMITs.
    let steps = cluster.store().join("j/steps");
    let _ = std::fs::remove_dir(&steps);
    std::fs::write(&steps, "in the way").unwrap();
    let handle = trainer.save(4, &state).unwrap();
    let staged = RestoreOptions { source: RestoreSource::Staged, ..RestoreOptions::default() };
    let mut found = None;
    eventually("the coordinator knows it is sealed", || {
        found = trainer.restore(staged.clone()).unwrap();
        found.is_some()
    });
    let found = found.unwrap();
    assert_eq!((found.step(), found.source(), contents(&found)), (Step(4), "arena", state));
    std::fs::remove_file(&steps).unwrap();
    committed(&handle).unwrap();
}

struct Full;

impl MemoryBudget for Full {
    fn promise(&self, _: &std::path::Path, needed: u64) -> strata_core::error::Result<Promise> {
        Err(Error::overloaded(format!(
            "finding memory for the arena: needs {needed} bytes, 7 bytes are free"
        )))
    }
}

#[test]
fn arena_that_memory_has_no_room_for_is_overloaded_with_the_numbers_and_training_goes_on() {
    let cluster = Cluster::tuned(Tune {
        sidecar: |settings| settings.budget = std::sync::Arc::new(Full),
        ..Tune::default()
    });
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    for step in [1, 2] {
        let error = trainer.save(step, &State::of(0, step, false)).err().unwrap();
        assert_eq!(error.kind, Kind::Overloaded);
        assert!(
            error.message.contains("7 bytes are free") && error.message.contains("saving step"),
            "{error}"
        );
    }
    trainer.session.barrier("b", Some(PATIENCE), &Uninterrupted).unwrap();
}

#[test]
fn number_of_a_removed_step_is_saved_again_by_the_next_generation() {
    let cluster = Cluster::start();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    for step in [1, 2, 3] {
        committed(&trainer.save(step, &State::of(0, step, false)).unwrap()).unwrap();
    }
    trainer.session.delete(Step(2), false, None, &Uninterrupted).unwrap();
    trainer.close();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    let error = trainer.save(3, &State::of(0, 3, false)).err().unwrap();
    assert_eq!(error.kind, Kind::Conflict, "that one is still there: {error}");
    let other = State::of(0, 22, false);
    committed(&trainer.save(2, &other).unwrap()).unwrap();
    let named = RestoreOptions { step: Some(Step(2)), ..RestoreOptions::default() };
    assert_eq!(contents(&trainer.restore(named).unwrap().unwrap()), other);
}

/// As Ctrl-C does.
struct Stopped;

impl Interrupt for Stopped {
    fn check(&self) -> strata_core::error::Result<()> {
        Err(Error::cancelled("enough"))
    }
}

#[test]
fn p5_save_that_was_given_up_while_it_waited_for_a_slot_is_given_up_on_all_ranks() {
    let mut cluster =
        Cluster::tuned(Tune { sidecar: |settings| settings.save_wait = PATIENCE, ..Tune::default() });
    let ranks = Trainer::world(&cluster, "j", 2);
    let save = |rank: u32, step| ranks[rank as usize].save(step, &State::of(rank, step, false)).unwrap();
    cluster.stop_coordinator();
    let kept: Vec<_> = [1, 2].into_iter().flat_map(|step| [save(0, step), save(1, step)]).collect();
    let error = ranks[0].save_until(3, &State::of(0, 3, false), &Stopped).err().unwrap();
    assert_eq!(error.kind, Kind::Cancelled);
    cluster.start_coordinator();
    for handle in &kept {
        committed(handle).unwrap();
    }
    let outcome = ranks[1].save(3, &State::of(1, 3, false));
    let error = outcome.map_or_else(|error| error, |handle| lost(&handle));
    assert!(error.message.contains("enough"), "{error}");
    for handle in [save(0, 4), save(1, 4)] {
        committed(&handle).unwrap();
    }
}

#[test]
fn p5_save_without_a_free_slot_is_skipped_on_all_ranks_and_training_goes_on() {
    let mut cluster = Cluster::tuned(Tune {
        sidecar: |settings| settings.save_wait = std::time::Duration::from_millis(100),
        ..Tune::default()
    });
    let ranks = Trainer::world(&cluster, "j", 2);
    let save = |rank: u32, step| ranks[rank as usize].save(step, &State::of(rank, step, false)).unwrap();
    // Without a coordinator nothing is committed, and no slot comes free.
    cluster.stop_coordinator();
    let kept: Vec<_> = [1, 2].into_iter().flat_map(|step| [save(0, step), save(1, step)]).collect();
    let skipped = save(0, 3);
    assert_eq!(skipped.state().unwrap(), SaveState::Skipped);
    assert!(ranks[0].session.take_warnings().iter().any(|warning| warning.contains("no slot came free")));
    let error = lost(&skipped);
    assert_eq!(error.kind, Kind::Overloaded);
    assert!(error.message.contains("no slot came free"), "{error}");
    cluster.start_coordinator();
    for handle in &kept {
        committed(handle).unwrap();
    }
    let other = save(1, 3);
    assert_eq!(lost(&other).kind, Kind::Overloaded, "its step was given up on all ranks");
    for handle in [save(0, 4), save(1, 4)] {
        committed(&handle).unwrap();
    }
}

#[test]
fn damaged_arena_file_that_keeps_its_name_stops_no_save() {
    let cluster = Cluster::start();
    for file in 1..4 {
        std::fs::write(cluster.arenas().join(format!("j.rank-0.{file}.arena")), "nonsense").unwrap();
    }
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    committed(&trainer.save(1, &State::of(0, 1, false)).unwrap()).unwrap();
}
