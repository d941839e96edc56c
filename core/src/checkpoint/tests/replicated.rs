//! Replicated tensors, `ranks=`, other world sizes: who gets whose bytes, and that they are stored once.

use super::fixture::*;
use crate::checkpoint::{NodeShare, PersistRequest};
use crate::error::Kind;
use crate::format::StepKind;
use crate::ids::WorldSize;

fn big_replicated(version: u64) -> Vec<Spec> {
    let mut specs: Vec<Spec> =
        (0..5).map(|n| replicated(&format!("model.layer{n}"), (n + 1) * (1 << 20) + 17)).collect();
    specs.extend([replicated("model.small.a", 100), spec("rng", 5000), replicated("model.small.b", 9)]);
    specs.into_iter().map(|spec| spec.version(version)).collect()
}

/// Two nodes of two ranks, where one rank of each node staged the replicated tensors.
fn two_nodes(step: u64, specs: &[Spec], stagers: [u32; 2]) -> Vec<Vec<crate::checkpoint::RankSlot>> {
    let node = |ranks: [u32; 2], stager| {
        ranks.into_iter().map(|rank| slot(rank, 4, step, specs, rank == stager)).collect()
    };
    vec![node([0, 1], stagers[0]), node([2, 3], stagers[1])]
}

#[test]
fn replicated_tensors_are_stored_once_over_all_nodes_and_given_to_every_rank() {
    for stagers in [[0, 2], [1, 3], [1, 2]] {
        let job = local();
        let specs = big_replicated(1);
        let record = save(&job.store, job.uuid, 5, 4, two_nodes(5, &specs, stagers));
        for rank in 0..4 {
            check(&job.store, 5, rank, 4, rank, &specs);
        }
        verify(&job.store, 5).unwrap();
        let once: u64 = specs.iter().filter(|spec| spec.replicated).map(|spec| spec.bytes).sum();
        let private: u64 = 4 * 8192;
        // Padding of runs to pages, beyond the bytes themselves.
        assert!(record.stored_bytes() <= once + private + 8 * 4096, "{} of {once}", record.stored_bytes());
        let nodes: Vec<bool> = record.ranks.iter().map(|rank| rank.stored_bytes > 1 << 20).collect();
        assert_eq!(nodes.iter().filter(|stores| **stores).count(), 2, "both nodes take their share");
    }
}

#[test]
fn equal_tensors_of_several_ranks_are_stored_once_without_being_told() {
    let job = local();
    let specs = vec![replicated("a", (6 << 20) + 5), replicated("b", 70 << 10)];
    let mut ranks = one_node(4, 1, &specs).remove(0);
    // Equal bytes, which nobody declared.
    for slot in &mut ranks {
        slot.index.tensors.iter_mut().for_each(|tensor| tensor.replicated = false);
    }
    let record = save(&job.store, job.uuid, 1, 4, vec![ranks]);
    let once: u64 = specs.iter().map(|spec| spec.bytes).sum();
    assert!(record.stored_bytes() as f64 <= 1.02 * once as f64, "{} of {once}", record.stored_bytes());
    (0..4).for_each(|rank| check(&job.store, 1, rank, 4, rank, &specs));
}

#[test]
fn a_node_whose_ranks_hold_no_replicated_bytes_is_refused_before_they_are_lost() {
    let job = local();
    let ranks = vec![slot(0, 2, 1, &big_replicated(0), false)];
    let request = PersistRequest {
        attempt: attempt(job.uuid, 1, 1),
        world_size: WorldSize(2),
        ranks,
        replicated: NodeShare::ALONE,
    };
    let error = run(job.store.persist(request)).unwrap_err();
    assert_eq!(error.kind, Kind::Internal);
    assert!(error.message.contains("model.layer"), "{error}");
}

#[test]
fn what_one_rank_saved_is_given_to_all() {
    let job = local();
    let specs = mixed(3);
    let attempt = attempt(job.uuid, 9, 1);
    let durable = persist(&job.store, attempt, 4, vec![vec![slot(0, 4, 9, &specs, true)]]).unwrap();
    publish(&job.store, &record(attempt, 4, StepKind::Full, &durable)).unwrap();
    for (rank, world) in [(0, 4), (1, 4), (3, 4), (0, 1), (6, 8)] {
        check(&job.store, 9, rank, world, 0, &specs);
    }
}

#[test]
fn what_some_ranks_saved_is_their_own_and_the_lowest_ones_for_the_others() {
    let job = local();
    let specs = mixed(3);
    let attempt = attempt(job.uuid, 9, 1);
    let ranks = [1, 3].map(|rank| slot(rank, 4, 9, &specs, true)).into();
    let durable = persist(&job.store, attempt, 4, vec![ranks]).unwrap();
    publish(&job.store, &record(attempt, 4, StepKind::Full, &durable)).unwrap();
    for (rank, from) in [(0, 1), (1, 1), (2, 1), (3, 3)] {
        check(&job.store, 9, rank, 4, from, &specs);
    }
}

#[test]
fn another_world_size_gets_the_replicated_part_and_an_error_for_the_rest() {
    let job = local();
    let specs = big_replicated(1);
    save(&job.store, job.uuid, 5, 4, two_nodes(5, &specs, [0, 2]));
    let error = open_step(&job.store, 5, 1, 2, "").err().unwrap();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("saved by 4 ranks and is restored by 2"), "{error}");
    assert!(error.message.contains("\"rng\""), "{error}");
    for rank in [0, 1, 5] {
        let restore = open_step(&job.store, 5, rank, 6, "model.*").unwrap();
        for (name, bytes) in read(&restore).unwrap() {
            let spec = specs.iter().find(|spec| spec.name == name).unwrap();
            assert!(bytes == spec.content(0), "{name}");
        }
    }
    // All of it replicated: all of it for any world.
    let shared: Vec<Spec> = specs.into_iter().filter(|spec| spec.replicated).collect();
    save(&job.store, job.uuid, 6, 4, two_nodes(6, &shared, [0, 2]));
    check(&job.store, 6, 2, 8, 2, &shared);
    check(&job.store, 6, 7, 8, 0, &shared);
}
