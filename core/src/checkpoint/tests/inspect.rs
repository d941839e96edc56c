//! What `inspect` tells: where every byte lies, how it is stored, what changed. Proved by reading it there.

use super::fixture::*;
use crate::checkpoint::{BaseSlot, Inspection, RankSlot, TensorInfo};
use crate::ids::Step;

fn state(step: u64) -> Vec<Spec> {
    vec![
        spec("frozen", (9 << 20) + 100),
        spec("trained", (4 << 20) + 5).version(step),
        spec("tiny", 100),
        replicated("shared", 5 << 20),
        spec("empty", 0),
    ]
}

fn inspect(job: &LocalJob, step: u64) -> Inspection {
    run(job.store.inspect(Step(step))).unwrap()
}

fn of<'a>(found: &'a Inspection, rank: u32, name: &str) -> &'a TensorInfo {
    let mut tensors = found.tensors.iter();
    tensors.find(|tensor| tensor.name == name && (tensor.replicated || tensor.rank.0 == rank)).unwrap()
}

/// The bytes where `inspect` says that they lie.
fn read_there(job: &LocalJob, tensor: &TensorInfo) -> Vec<u8> {
    let mut found = Vec::new();
    for piece in &tensor.pieces {
        assert_eq!((piece.at, piece.encoding, &piece.base), (found.len() as u64, "raw", &None));
        let run = piece.stored.as_ref().unwrap();
        assert_eq!(run.bytes, piece.bytes);
        let object = std::fs::read(job.folder.path().join(JOB).join(&run.object)).unwrap();
        found.extend_from_slice(&object[run.offset as usize..][..run.bytes as usize]);
    }
    found
}

fn incremental(step: u64) -> Vec<Vec<RankSlot>> {
    let mut slots = one_node(2, step, &state(step));
    for slot in slots.iter_mut().flatten() {
        slot.base = Some(BaseSlot { step: Step(step - 1), slot: None });
    }
    slots
}

#[test]
fn every_byte_lies_where_inspect_says_and_what_changed_is_counted() {
    let job = local();
    save(&job.store, job.uuid, 1, 2, one_node(2, 1, &state(1)));
    save(&job.store, job.uuid, 2, 2, incremental(2));
    save(&job.store, job.uuid, 5, 2, one_node(2, 5, &state(2)));
    let [first, second, third] = [1, 2, 5].map(|step| inspect(&job, step));
    assert_eq!([first.before, second.before, third.before], [None, Some(Step(1)), Some(Step(2))]);
    for (found, version) in [(&first, 1), (&second, 2), (&third, 2)] {
        for rank in 0..2 {
            for spec in state(version) {
                let tensor = of(found, rank, &spec.name);
                assert!(read_there(&job, tensor) == spec.content(rank), "{} of rank {rank}", spec.name);
            }
        }
    }
    for rank in 0..2 {
        assert!(first.tensors.iter().all(|tensor| tensor.changed.is_none()));
        let changed = |found: &Inspection, name: &str| of(found, rank, name).changed.unwrap();
        assert_eq!(changed(&second, "trained"), (4 << 20) + 5);
        for name in ["frozen", "tiny", "shared", "empty"] {
            assert_eq!(changed(&second, name), 0, "{name}");
        }
        // Stored anew, and equal all the same.
        assert!(third.tensors.iter().all(|tensor| tensor.changed == Some(0)));
    }
    let [raw] = &second.encodings[..] else { panic!("{:?}", second.encodings) };
    let trained = 2 * (4 << 20) + 2 * 4096;
    assert_eq!(raw.name, "raw");
    assert_eq!(raw.stored_bytes - raw.older_bytes, trained, "{raw:?}");
    assert!(
        of(&second, 0, "frozen").pieces[0]
            .stored
            .as_ref()
            .unwrap()
            .object
            .contains("/00000000000000000001.g1/")
    );
    // Without the step before there is nothing to compare with.
    std::fs::write(job.folder.path().join(JOB).join("steps/00000000000000000002/COMMIT"), "damaged").unwrap();
    let alone = inspect(&job, 5);
    assert!(alone.before.is_none() && alone.tensors.iter().all(|tensor| tensor.changed.is_none()));
}

#[test]
fn tensor_with_another_shape_or_name_has_changed_as_a_whole() {
    let job = local();
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &[spec("a", 100_000), spec("b", 100_000)]));
    save(&job.store, job.uuid, 2, 1, one_node(1, 2, &[spec("a", 100_001), spec("c", 100_000)]));
    let found = inspect(&job, 2);
    assert_eq!((of(&found, 0, "a").changed, of(&found, 0, "c").changed), (Some(100_001), Some(100_000)));
}
