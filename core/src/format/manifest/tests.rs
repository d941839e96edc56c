use super::*;
use crate::error::Kind;
use crate::proto::format::{BaseChunk, Pack, Tensor};

/// As the first version wrote it, before chunks could be encoded.
const FIRST: &[u8] = include_bytes!("../../../tests/samples/format/manifest-1");
/// With a chunk of each encoding.
const SECOND: &[u8] = include_bytes!("../../../tests/samples/format/manifest-2");

fn second() -> Manifest {
    let tensor = |name: &str, dtype: &str, offset, bytes| Tensor {
        name: name.into(),
        dtype: dtype.into(),
        shape: vec![bytes / if dtype == "float32" { 4 } else { 2 }],
        offset,
        bytes,
        replicated: false,
        staged: true,
    };
    let pack = |step: u64, bytes| Pack { path: format!("data/{step:020}.g7/node-0.000000ab.0.pack"), bytes };
    let chunk = |slot_offset, bytes, encoding: ChunkEncoding| Chunk {
        slot_offset,
        bytes,
        crc32c: 0xdead_beef,
        encoding: encoding.into(),
        ..Chunk::default()
    };
    let base = BaseChunk { pack: 1, pack_offset: 8192, crc32c: 5, ..BaseChunk::default() };
    let base_in_planes = BaseChunk { encoding: 1, stored_bytes: 90_000, stored_crc32c: 6, width: 4, ..base };
    let difference = |offset, base| Chunk {
        pack: 0,
        pack_offset: 4096,
        stored_bytes: 70_000,
        stored_crc32c: 8,
        width: 4,
        base: Some(base),
        ..chunk(offset, 131_072, ChunkEncoding::Difference)
    };
    Manifest {
        job_uuid: "6f0c3c57-7d7c-4a6b-9a52-3d0f6a1f6a01".into(),
        step: 120,
        generation: 7,
        rank: 1,
        world_size: 2,
        kind: 1,
        tree: b"{}".to_vec(),
        tensors: vec![
            tensor("master", "float32", 0, 131_072),
            tensor("exp_avg", "float32", 131_072, 131_072),
            tensor("exp_avg_sq", "float32", 262_144, 131_072),
            tensor("weight", "bfloat16", 393_216, 65_536),
            tensor("step", "float32", 458_752, 4),
        ],
        packs: vec![pack(120, 1 << 20), pack(110, 1 << 21)],
        chunks: vec![
            difference(0, base),
            Chunk {
                stored_bytes: 110_000,
                stored_crc32c: 9,
                width: 4,
                ..chunk(131_072, 131_072, ChunkEncoding::Planes)
            },
            difference(262_144, base_in_planes),
            Chunk {
                source_offset: 0,
                source_bytes: 131_072,
                ..chunk(393_216, 65_536, ChunkEncoding::Rounded)
            },
            Chunk { pack_offset: 12_288, ..chunk(458_752, 4096, ChunkEncoding::Raw) },
        ],
        state_bytes: 458_756,
        slot_bytes: 462_848,
    }
}

#[test]
fn a_manifest_of_the_first_version_still_loads() {
    let old = decode(FIRST, "m").unwrap();
    assert_eq!((old.step, old.rank, old.tensors.len(), old.packs.len()), (120, 1, 2, 2));
    assert_eq!(old.chunks[1].pack_offset, 4_194_304);
    assert!(old.chunks.iter().all(|chunk| matches!(Encoding::of(chunk), Ok(Encoding::Whole(_)))));
    assert_eq!(encode(&old).bytes, FIRST, "and is written as it was, for readers of the first version");
}

#[test]
fn a_manifest_with_every_encoding_is_as_it_was_written() {
    assert_eq!(encode(&second()).bytes, SECOND);
    assert_eq!(decode(SECOND, "m").unwrap(), second());
    assert_eq!(SECOND[MAGIC.len()], 2, "the first version's readers say that it is newer");
}

#[test]
fn a_manifest_that_leads_nowhere_is_refused() {
    let refused = |what: &str, change: &dyn Fn(&mut Manifest)| {
        let mut manifest = second();
        change(&mut manifest);
        let error = decode(&encode(&manifest).bytes, "m").map(drop).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{what}: {error}");
    };
    refused("an encoding of tomorrow", &|m| m.chunks[1].encoding = 9);
    refused("a base in no pack", &|m| m.chunks[0].base.as_mut().unwrap().pack = 2);
    refused("a base beyond its pack", &|m| m.chunks[0].base.as_mut().unwrap().pack_offset = 1 << 21);
    refused("a frame beyond its pack", &|m| m.chunks[1].stored_bytes = 2 << 20);
    refused("no frame at all", &|m| m.chunks[1].stored_bytes = 0);
    refused("masters that are not there", &|m| m.chunks[3].source_offset = 400_000);
    refused("masters that are rounded themselves", &|m| m.chunks[3].source_offset = 327_680);
}
