//! What survives whom: restarts of the sidecar and of the coordinator, killed trainers, zombies, damaged bytes.

mod sidecar;

use std::time::Duration;

use sidecar::trainer::{committed, contents};
use sidecar::{Cluster, PATIENCE, State, Trainer, Tune, eventually, files, process, raw};
use strata_core::client::{RestoreOptions, Uninterrupted};
use strata_core::error::Kind;
use strata_core::ids::Step;
use strata_core::proto::v1;
use strata_core::sidecar::{DeathProof, SidecarSettings};

#[test]
fn plays_a_trainer() {
    process::play();
}

#[test]
fn p3_sealed_step_and_membership_survive_a_killed_sidecar() {
    let mut cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    let generation = ranks[0].session.generation();
    // Durable or not, nothing is committed while the coordinator is away.
    cluster.stop_coordinator();
    let states: Vec<State> = [0, 1].map(|rank| State::of(rank, 5, true)).into();
    let handles: Vec<_> =
        ranks.iter().zip(&states).map(|(rank, state)| rank.save(5, state).unwrap()).collect();
    cluster.stop_sidecar();
    cluster.start_sidecar();
    cluster.start_coordinator();
    for handle in &handles {
        assert_eq!(committed(handle).unwrap().step, 5);
    }
    // Nobody was evicted: the same generation goes on, and saves and barriers with it.
    let next: Vec<_> = ranks.iter().zip(&states).map(|(rank, state)| rank.save(6, state).unwrap()).collect();
    for handle in &next {
        committed(handle).unwrap();
    }
    std::thread::scope(|scope| {
        for rank in &ranks {
            scope.spawn(|| rank.session.barrier("b", Some(PATIENCE), &Uninterrupted).unwrap());
        }
    });
    assert_eq!(ranks[0].session.generation(), generation);
    for (rank, state) in ranks.iter().zip(&states) {
        let restored = rank.restore(RestoreOptions::default()).unwrap().unwrap();
        assert_eq!((restored.step(), &contents(&restored)), (Step(6), state));
    }
}

#[test]
fn restored_views_stay_whole_over_a_killed_sidecar() {
    let mut cluster = Cluster::start();
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    let state = State::of(0, 1, false);
    committed(&trainer.save(1, &state).unwrap()).unwrap();
    let view = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    cluster.stop_sidecar();
    cluster.start_sidecar();
    // One slot is leased: all these go through the other one.
    for step in 2..5 {
        committed(&trainer.save(step, &State::of(0, step, false)).unwrap()).unwrap();
    }
    assert_eq!(contents(&view), state);
}

#[test]
fn coordinator_that_is_restarted_finds_its_members_and_their_barriers_again() {
    let mut cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    let done = std::thread::scope(|scope| {
        let first = scope.spawn(|| ranks[0].session.barrier("b", Some(PATIENCE), &Uninterrupted));
        std::thread::sleep(Duration::from_millis(200));
        cluster.stop_coordinator();
        cluster.start_coordinator();
        ranks[1].session.barrier("b", Some(PATIENCE), &Uninterrupted).unwrap();
        first.join().unwrap()
    });
    done.unwrap();
    committed(&ranks[0].save_as(1, &State::of(0, 1, false), v1::SaveKind::Full, &[0]).unwrap()).unwrap();
}

#[test]
fn p3_step_sealed_by_a_killed_trainer_is_committed_and_its_generation_ends_by_proof_of_death() {
    let proofs: [fn(&mut SidecarSettings); 3] = [
        |settings| settings.death_proof = DeathProof::Auto,
        |settings| settings.death_proof = DeathProof::PidfdOpen,
        // Its life line alone.
        |settings| settings.death_proof = DeathProof::Nothing,
    ];
    for sidecar in proofs {
        let tune = Tune { sidecar, ..Tune::default() };
        let cluster = Cluster::tuned(tune);
        let done = cluster.store().with_extension("done");
        let mut killed = process::start(&cluster.socket(), "j", 0, 2, 9, &done);
        let survivor = Trainer::join(&cluster, "j", 1, 2);
        survivor.session.wait_world(Some(PATIENCE), &Uninterrupted).unwrap();
        let handle = survivor.save(9, &State::of(1, 9, false)).unwrap();
        eventually("the trainer has staged", || done.exists());
        killed.kill().unwrap();
        killed.wait().unwrap();
        eventually("the survivor is fenced", || {
            let outcome = survivor.session.barrier("b", Some(Duration::from_millis(50)), &Uninterrupted);
            outcome.is_err_and(|error| error.kind == Kind::Fenced && error.message.contains("rank 0 on here"))
        });
        drop(handle);
        drop(survivor);
        let mut again = process::start(&cluster.socket(), "j", 0, 2, 10, &done.with_extension("2"));
        let survivor = Trainer::join(&cluster, "j", 1, 2);
        survivor.session.wait_world(Some(PATIENCE), &Uninterrupted).unwrap();
        eventually("step 9 is committed", || {
            survivor.session.latest_step(None, &Uninterrupted).unwrap() == Some(Step(9))
        });
        let steps = survivor.session.all_steps(None, &Uninterrupted).unwrap();
        assert_eq!(steps[0].step, 9);
        again.kill().unwrap();
        again.wait().unwrap();
        std::fs::remove_file(&done).unwrap();
        let _ = std::fs::remove_file(done.with_extension("2"));
    }
}

#[test]
fn p6_zombie_of_an_older_generation_is_refused_everywhere() {
    // Nothing proves its death: the lease does.
    let cluster = Cluster::tuned(Tune {
        coordinator: |settings| {
            settings.timings.lease = Duration::from_secs(2);
            settings.timings.suspect_after = Duration::from_millis(500);
            settings.timings.heartbeat = Duration::from_millis(500);
        },
        sidecar: |settings| settings.death_proof = DeathProof::Nothing,
    });
    let mut ranks = Trainer::world(&cluster, "j", 2);
    let zombie = ranks.pop().unwrap();
    drop(ranks);
    eventually("the rank whose stream ended is lost with its lease", || {
        let outcome = zombie.session.barrier("b", Some(Duration::from_millis(50)), &Uninterrupted);
        outcome.is_err_and(|error| error.kind == Kind::Fenced && error.message.contains("rank 0"))
    });
    let fresh = Trainer::world(&cluster, "j", 2);
    let state = State::of(1, 4, false);
    assert_eq!(zombie.save(4, &state).err().unwrap().kind, Kind::Fenced);
    assert_eq!(zombie.restore(RestoreOptions::default()).err().unwrap().kind, Kind::Fenced);
    let handles: Vec<_> = fresh
        .iter()
        .zip(0..)
        .map(|(rank, number)| rank.save(4, &State::of(number, 4, false)).unwrap())
        .collect();
    for handle in &handles {
        committed(handle).unwrap();
    }
    assert_eq!(zombie.session.barrier("b", Some(PATIENCE), &Uninterrupted).err().unwrap().kind, Kind::Fenced);
}

#[test]
fn p2_byte_that_flips_in_an_arena_is_found_and_the_store_answers() {
    let cluster = Cluster::start();
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    let state = State::of(0, 2, false);
    committed(&trainer.save(2, &state).unwrap()).unwrap();
    flip_in(&cluster.arena_files()[0], &state.tensors[0].1);
    let restored = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!((restored.source(), contents(&restored)), ("store", state));
}

#[test]
fn p2_byte_that_flips_in_a_slot_that_waits_for_its_store_is_found_and_never_committed() {
    for restarted in [false, true] {
        let mut cluster = Cluster::start();
        let trainer = &Trainer::world(&cluster, "j", 1)[0];
        let [before, state] = [1, 2].map(|step| State::of(0, step, false));
        committed(&trainer.save(1, &before).unwrap()).unwrap();
        let (store, away) = (cluster.store(), cluster.store().with_extension("away"));
        std::fs::rename(&store, &away).unwrap();
        let handle = trainer.save(2, &state).unwrap();
        eventually("step 2 is summed", || files(&cluster.arenas(), "sums").len() == 2);
        if restarted {
            cluster.stop_sidecar();
        }
        flip_in(&cluster.arena_files()[0], &state.tensors[0].1);
        if restarted {
            cluster.start_sidecar();
        }
        std::fs::rename(&away, &store).unwrap();
        let error = sidecar::trainer::lost(&handle);
        assert!(error.message.contains("changed in memory"), "{error}");
        let restored = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
        assert_eq!((restored.step(), contents(&restored)), (Step(1), before));
    }
}

/// Flips one bit of the bytes that start like `tensor`.
fn flip_in(path: &std::path::Path, tensor: &[u8]) {
    use std::os::unix::fs::FileExt;
    let bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(64).position(|window| window == &tensor[..64]).expect("the tensor is in the file");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at + 5] ^ 1], at as u64 + 5).unwrap();
}

#[test]
fn all_ranks_fall_back_alike_when_one_finds_its_part_damaged() {
    let cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    for step in [1, 2] {
        let save =
            |(rank, number): (&Trainer, u32)| rank.save(step, &State::of(number, step, false)).unwrap();
        let handles: Vec<_> = ranks.iter().zip(0..).map(save).collect();
        handles.iter().for_each(|handle| drop(committed(handle).unwrap()));
    }
    for rank in ranks {
        rank.close();
    }
    eventually("the closed job's arenas are removed", || cluster.arena_files().is_empty());
    let lost = State::of(1, 2, false).tensors[0].1.clone();
    let packs = files(&cluster.store(), "pack");
    let damaged = packs
        .iter()
        .find(|pack| std::fs::read(pack).unwrap().windows(64).any(|window| window == &lost[..64]));
    flip_in(damaged.expect("a pack holds rank 1's tensor of step 2"), &lost);

    let ranks = Trainer::world(&cluster, "j", 2);
    let error = ranks[1].restore(RestoreOptions { step: Some(Step(2)), ..Default::default() }).err().unwrap();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    ranks[0].restore(RestoreOptions { step: Some(Step(2)), ..Default::default() }).unwrap().unwrap();
    std::thread::scope(|scope| {
        let restore = |rank: u32| {
            let trainer = &ranks[rank as usize];
            scope.spawn(move || {
                let options = RestoreOptions { fall_back: true, ..Default::default() };
                let restored = trainer.restore(options).unwrap().unwrap();
                assert_eq!((restored.step(), contents(&restored)), (Step(1), State::of(rank, 1, false)));
                restored.damaged().to_vec()
            })
        };
        let told = [restore(0), restore(1)].map(|rank| rank.join().unwrap());
        assert!(told[0][0].contains("another rank"), "{told:?}");
        assert!(told[1][0].starts_with("step 2: ") && told[1][0].contains(".pack"), "{told:?}");
    });
}

#[test]
fn drained_sidecar_brings_what_is_sealed_to_its_commit_and_names_what_it_could_not() {
    let mut cluster = Cluster::start();
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    let handle = trainer.save(1, &State::of(0, 1, false)).unwrap();
    let left = cluster.block(cluster.sidecar.as_ref().unwrap().drain(PATIENCE));
    assert_eq!(left, Vec::<String>::new());
    committed(&handle).unwrap();
    let skipped = trainer.save(2, &State::of(0, 2, false)).unwrap();
    assert_eq!(sidecar::trainer::lost(&skipped).kind, Kind::Overloaded, "no new saves");

    cluster.stop_sidecar();
    cluster.start_sidecar();
    cluster.stop_coordinator();
    let _held = trainer.save(3, &State::of(0, 3, false)).unwrap();
    let left = cluster.block(cluster.sidecar.as_ref().unwrap().drain(Duration::from_millis(300)));
    assert!(left.len() == 1 && left[0].contains("step 3 of job j"), "{left:?}");
}

#[test]
fn save_that_is_being_copied_when_the_sidecar_is_killed_is_sealed_and_committed() {
    let mut cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    let copying = raw::begin(&cluster, 0, 2, 7, &[0]);
    cluster.stop_sidecar();
    cluster.start_sidecar();
    copying.seal();
    copying.tell(&cluster);
    eventually("step 7 is committed", || {
        ranks[0].session.latest_step(None, &Uninterrupted).unwrap() == Some(Step(7))
    });
}

#[test]
fn p3_last_part_that_a_fenced_rank_seals_in_silence_is_adopted() {
    let cluster = Cluster::start();
    let done = cluster.store().with_extension("done");
    let mut killed = process::start(&cluster.socket(), "j", 0, 2, 9, &done);
    let survivor = Trainer::join(&cluster, "j", 1, 2);
    survivor.session.wait_world(Some(PATIENCE), &Uninterrupted).unwrap();
    let copying = raw::begin(&cluster, 1, 2, 9, &[]);
    eventually("rank 0 has staged", || done.exists());
    killed.kill().unwrap();
    killed.wait().unwrap();
    eventually("the survivor is fenced", || {
        let outcome = survivor.session.barrier("b", Some(Duration::from_millis(50)), &Uninterrupted);
        outcome.is_err_and(|error| error.kind == Kind::Fenced)
    });
    copying.seal();
    drop(survivor);
    let next = Trainer::join(&cluster, "other", 0, 1);
    eventually("step 9 is committed", || {
        let Some(sidecar) = &cluster.sidecar else { return false };
        let status = sidecar.status();
        status.jobs.iter().any(|job| job.job == "j" && job.latest_step == Some(9))
    });
    drop(next);
}

#[test]
fn two_nodes_store_replicated_bytes_once_and_restore_each_others() {
    let cluster = Cluster::start();
    let there = cluster.other_node(&cluster.store());
    let join = |rank: u32| {
        let mut options = Trainer::options(&cluster, "j", rank, 4);
        if rank > 1 {
            options.sockets = vec![there.socket.clone()];
        }
        Trainer::connect(options).unwrap()
    };
    let world = || {
        let ranks: Vec<Trainer> = (0..4).map(join).collect();
        ranks.iter().for_each(|rank| drop(rank.session.wait_world(Some(PATIENCE), &Uninterrupted).unwrap()));
        ranks
    };
    let ranks = world();
    let states: Vec<State> = (0..4).map(|rank| State::of(rank, 3, true)).collect();
    let handles: Vec<_> =
        ranks.iter().zip(&states).map(|(rank, state)| rank.save(3, state).unwrap()).collect();
    let info = committed(&handles[3]).unwrap();
    let own: u64 = states.iter().map(|state| state.tensors[0].1.len() as u64).sum();
    let shared = states[0].tensors[2].1.len() as u64;
    assert!(info.stored_bytes < own + shared + 100_000, "{} of {own} + {shared}", info.stored_bytes);
    ranks.into_iter().for_each(Trainer::close);
    let ranks = world();
    for (rank, state) in ranks.iter().zip(&states) {
        let restored = rank.restore(RestoreOptions::default()).unwrap().unwrap();
        assert_eq!((restored.step(), &contents(&restored)), (Step(3), state));
    }
}

#[test]
fn store_that_the_nodes_do_not_share_is_conflict() {
    let cluster = Cluster::start();
    let other = tempfile::tempdir().unwrap();
    let there = cluster.other_node(other.path());
    let _first = Trainer::join(&cluster, "j", 0, 2);
    let mut options = Trainer::options(&cluster, "j", 1, 2);
    options.sockets = vec![there.socket.clone()];
    assert_eq!(Trainer::connect(options).err().unwrap().kind, Kind::Conflict);
}

#[test]
fn session_that_was_taken_up_again_closes_in_good_order() {
    let mut cluster = Cluster::start();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    cluster.stop_sidecar();
    cluster.start_sidecar();
    committed(&trainer.save(1, &State::of(0, 1, false)).unwrap()).unwrap();
    let restored = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    drop(restored);
    trainer.close();
    eventually("the closed job's arena and session are gone", || {
        cluster.arena_files().is_empty() && files(&cluster.arenas(), "session").is_empty()
    });
}

#[test]
fn p3_part_that_is_sealed_after_the_others_of_its_node_are_durable_is_persisted_too() {
    let mut cluster = Cluster::start();
    let before = Trainer::world(&cluster, "j", 2);
    let record = files(&cluster.arenas(), "job").pop().expect("the job is noted");
    let of_before = std::fs::read(&record).unwrap();
    before.into_iter().for_each(Trainer::close);
    let ranks = Trainer::world(&cluster, "j", 2);
    let states = [0, 1].map(|rank| State::of(rank, 5, true));
    let first = ranks[0].save(5, &states[0]).unwrap();
    cluster.stop_coordinator();
    cluster.stop_sidecar();
    // The record of this generation never reached the directory: nobody knows any more who lives here.
    std::fs::write(&record, of_before).unwrap();
    cluster.start_sidecar();
    eventually("rank 0's part is durable", || !files(&cluster.store(), "manifest").is_empty());
    let second = ranks[1].save(5, &states[1]).unwrap();
    cluster.start_coordinator();
    for handle in [first, second] {
        assert_eq!(committed(&handle).unwrap().step, 5);
    }
    // Nothing of it was left out.
    ranks.into_iter().for_each(Trainer::close);
    forget(&mut cluster);
    for (rank, state) in Trainer::world(&cluster, "j", 2).iter().zip(&states) {
        let restored = rank.restore(RestoreOptions::default()).unwrap().unwrap();
        assert_eq!((restored.source(), &contents(&restored)), ("store", state));
    }
}

/// Slots and sessions of this node.
fn forget(cluster: &mut Cluster) {
    cluster.stop_sidecar();
    std::fs::remove_dir_all(cluster.arenas()).unwrap();
    cluster.start_sidecar();
}
