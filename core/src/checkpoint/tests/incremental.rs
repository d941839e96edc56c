//! INCREMENTAL: unchanged chunks are referred to, from memory or read back; FULL never refers.

use super::fixture::*;
use crate::checkpoint::{BaseSlot, RankSlot};
use crate::ids::Step;
use crate::proto::v1;

fn state(step: u64) -> Vec<Spec> {
    // One tensor changes with every step, the others don't.
    vec![
        spec("frozen", (9 << 20) + 100),
        spec("trained", (4 << 20) + 5).version(step),
        spec("tiny.frozen", 100),
        replicated("shared.frozen", 5 << 20),
    ]
}

fn with_base(mut slots: Vec<Vec<RankSlot>>, base: impl Fn(&RankSlot) -> BaseSlot) -> Vec<Vec<RankSlot>> {
    for slot in slots.iter_mut().flatten() {
        slot.base = Some(base(slot));
    }
    slots
}

#[test]
fn unchanged_chunks_are_not_stored_again() {
    for in_memory in [true, false] {
        let job = local();
        let mut before = one_node(2, 0, &state(0));
        let full = save(&job.store, job.uuid, 0, 2, one_node(2, 0, &state(0)));
        assert!(full.stored_bytes() > 2 * (13 << 20));
        for step in 1..5 {
            let slots = one_node(2, step, &state(step));
            let now = with_base(one_node(2, step, &state(step)), |slot| match in_memory {
                true => base_of(before[0].iter().find(|other| other.rank == slot.rank).unwrap()),
                false => BaseSlot { step: Step(step - 1), slot: None },
            });
            let record = save(&job.store, job.uuid, step, 2, now);
            assert!(record.stored_bytes() <= 2 * ((4 << 20) + 8192), "{}", record.stored_bytes());
            (0..2).for_each(|rank| check(&job.store, step, rank, 2, rank, &state(step)));
            verify(&job.store, step).unwrap();
            before = slots;
        }
    }
}

#[test]
fn a_full_step_needs_no_other_steps_objects() {
    let job = local();
    for step in [1, 2] {
        save(&job.store, job.uuid, step, 2, one_node(2, step, &state(0)));
    }
    std::fs::remove_dir_all(job.folder.path().join(format!("{JOB}/data/{:020}.g1", 1))).unwrap();
    (0..2).for_each(|rank| check(&job.store, 2, rank, 2, rank, &state(0)));
    assert!(restore_all(&job.store, 1, 2).is_err());
}

#[test]
fn a_base_of_another_layout_or_rank_is_no_harm() {
    let job = local();
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &state(0)));
    // A slot that says it is step 1 and holds other tensors at other places: only the store counts.
    let other = slot(0, 1, 1, &[spec("other", 9 << 20)], true);
    let now = with_base(one_node(2, 2, &state(0)), |_| base_of(&other));
    let record = save(&job.store, job.uuid, 2, 2, now);
    (0..2).for_each(|rank| check(&job.store, 2, rank, 2, rank, &state(0)));
    assert_eq!(record.ranks[0].stored_bytes, 0, "rank 0 found all in the store");
    assert!(record.ranks[1].stored_bytes > 13 << 20, "rank 1 had not saved the base");
}

#[test]
fn equal_sums_are_compared_byte_by_byte_with_the_base() {
    let job = local();
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &state(0)));
    // The base's slot in memory is another state than the store's: its bytes are equal to nothing stored.
    let mut now = slot(0, 1, 2, &state(0), true);
    let lying = slot(0, 1, 1, &state(7).into_iter().map(|spec| spec.version(7)).collect::<Vec<_>>(), true);
    now.base = Some(base_of(&lying));
    let record = save(&job.store, job.uuid, 2, 1, vec![vec![now]]);
    let path = job.folder.path().join(JOB).join(&record.ranks[0].path);
    let manifest = crate::format::manifest::decode(&std::fs::read(path).unwrap(), "m").unwrap();
    assert!(!manifest.chunks.is_empty());
    for chunk in &manifest.chunks {
        // Told by themselves, or as differences to the store's chunks: never as what the slot in memory only claims.
        let pack = &manifest.packs[chunk.pack as usize].path;
        assert!(pack.contains(&format!("{:020}.g1", 2)), "{pack}");
    }
    check(&job.store, 2, 0, 1, 0, &state(0));
}

#[test]
fn a_damaged_base_is_not_referred_to() {
    let job = local();
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &state(0)));
    let folder = job.folder.path().join(format!("{JOB}/data/{:020}.g1", 1));
    let pack = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let pack = pack.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "pack")).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes.iter_mut().step_by(1 << 20).for_each(|byte| *byte ^= 1);
    std::fs::write(&pack, bytes).unwrap();
    let now = with_base(one_node(1, 2, &state(0)), |_| BaseSlot { step: Step(1), slot: None });
    save(&job.store, job.uuid, 2, 1, now);
    check(&job.store, 2, 0, 1, 0, &state(0));
}

#[test]
fn the_kind_of_a_save_comes_back() {
    let job = local();
    let mut slots = one_node(1, 1, &state(0));
    slots[0][0].index.kind = v1::SaveKind::ModelOnly as u32;
    save(&job.store, job.uuid, 1, 1, slots);
    let restore = open_step(&job.store, 1, 0, 1, "").unwrap();
    assert_eq!(restore.index().kind, v1::SaveKind::ModelOnly as u32);
}
