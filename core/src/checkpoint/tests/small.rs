//! What is stored of dense training: differences, byte planes, rounded masters; each restored, verified, damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fixture::*;
use crate::checkpoint::{BaseSlot, JobStore, RankSlot};
use crate::error::Kind;
use crate::format::encoding::Encoding;
use crate::format::{CommitRecord, chunks, manifest};
use crate::handoff::plan::{TensorSpec, layout};
use crate::ids::{JobUuid, Rank, Step};
use crate::pace::Pace;
use crate::proto::format::{ChunkEncoding, Manifest, SlotIndex, Tensor};

/// Elements of each large tensor: off the chunks' grid, two chunks of fp32.
const ELEMENTS: usize = (1 << 20) + 30_000;

/// Name, dtype and bytes of each tensor.
type State = Vec<(&'static str, &'static str, Vec<u8>)>;

/// Mixed-precision AdamW as far as its bytes go: masters that move a little with every step, weights that are masters
/// rounded, a first moment of noise, a second that moves little, and what is small.
fn trained(step: u64) -> State {
    static KNOWN: Mutex<BTreeMap<u64, State>> = Mutex::new(BTreeMap::new());
    KNOWN.lock().entry(step).or_insert_with(|| trained_of(step, ELEMENTS)).clone()
}

fn trained_of(step: u64, elements: usize) -> State {
    let mut start = StdRng::seed_from_u64(1);
    let mut moved = StdRng::seed_from_u64(100 + step);
    let mut noise = StdRng::seed_from_u64(200 + step);
    let (mut masters, mut weights, mut first, mut second) = (vec![], vec![], vec![], vec![]);
    for _ in 0..elements {
        let weight: f32 = start.random_range(-0.05..0.05);
        let master = weight + step as f32 * moved.random_range(-1e-4..1e-4);
        masters.extend_from_slice(&master.to_le_bytes());
        first.extend_from_slice(&(weight * noise.random_range(-1.0f32..1.0)).to_le_bytes());
        second.extend_from_slice(&(weight * weight * moved.random_range(1.0f32..1.01)).to_le_bytes());
    }
    weights.resize(masters.len() / 2, 0);
    crate::format::delta::round(&masters, &mut weights);
    vec![
        ("model.weight", "bfloat16", weights),
        ("model.bias", "bfloat16", noise_bytes(step, 66)),
        ("master.weight", "float32", masters),
        ("optimizer.exp_avg.weight", "float32", first),
        ("optimizer.exp_avg_sq.weight", "float32", second),
        ("step", "float32", (step as f32).to_le_bytes().to_vec()),
    ]
}

fn noise_bytes(seed: u64, bytes: usize) -> Vec<u8> {
    crate::storage::conformance::noise(seed, bytes)
}

fn slot_of(step: u64, state: &State) -> RankSlot {
    rank_slot(0, 1, step, state, false)
}

fn rank_slot(rank: u32, world: u32, step: u64, state: &State, replicated: bool) -> RankSlot {
    let specs: Vec<TensorSpec> = state
        .iter()
        .map(|(name, _, bytes)| TensorSpec { name: (*name).into(), bytes: bytes.len() as u64, replicated })
        .collect();
    let plan = layout(&specs);
    let mut memory = vec![0; plan.data_bytes as usize];
    let mut tensors = Vec::new();
    for ((name, dtype, bytes), &offset) in state.iter().zip(&plan.offsets) {
        memory[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        tensors.push(Tensor {
            name: (*name).into(),
            dtype: (*dtype).into(),
            shape: vec![bytes.len() as u64],
            offset,
            bytes: bytes.len() as u64,
            replicated,
            staged: true,
        });
    }
    let tree = tree(rank, step);
    let index = SlotIndex { step, rank, world_size: world, tree, tensors, ..SlotIndex::default() };
    RankSlot::new(Rank(rank), Bytes::from(memory), index).unwrap()
}

/// Saves a step, INCREMENTAL where there is a base.
fn save_state(job: &LocalJob, step: u64, state: &State, base: Option<BaseSlot>) -> CommitRecord {
    let mut slot = slot_of(step, state);
    slot.base = base;
    save(&job.store, job.uuid, step, 1, vec![vec![slot]])
}

fn in_store(step: u64) -> Option<BaseSlot> {
    Some(BaseSlot { step: Step(step), slot: None })
}

#[track_caller]
fn comes_back(store: &JobStore, step: u64, state: &State) {
    let found = read(&open_step(store, step, 0, 1, "").unwrap()).unwrap();
    for (name, _, bytes) in state {
        assert!(found[*name] == *bytes, "tensor {name} of step {step}");
    }
}

fn objects(job: &LocalJob, extension: &str) -> Vec<PathBuf> {
    let folder = job.folder.path().join(format!("{JOB}/data"));
    let attempts = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = attempts.flat_map(|attempt| fs::read_dir(attempt).unwrap());
    let mut paths: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

fn manifest_of(job: &LocalJob, record: &CommitRecord) -> Manifest {
    let path = job.folder.path().join(JOB).join(&record.ranks[0].path);
    manifest::decode(&fs::read(path).unwrap(), "m").unwrap()
}

/// How the chunks of each tensor are stored.
fn encodings(manifest: &Manifest) -> BTreeMap<String, Vec<ChunkEncoding>> {
    let mut found: BTreeMap<String, Vec<ChunkEncoding>> = BTreeMap::new();
    for tensor in &manifest.tensors {
        let part = tensor.offset..tensor.offset + tensor.bytes;
        for number in manifest::covering(manifest, &part).unwrap() {
            let encoding = manifest.chunks[number].encoding.try_into().unwrap();
            found.entry(tensor.name.clone()).or_default().push(encoding);
        }
    }
    found
}

fn stored_part(record: &CommitRecord) -> f64 {
    record.stored_bytes() as f64 / record.state_bytes() as f64
}

#[test]
fn dense_training_is_stored_as_differences_planes_and_rounded_masters() {
    for in_memory in [true, false] {
        let job = local();
        let states = [trained(0), trained(1)];
        let full = save_state(&job, 0, &states[0], None);
        let base = if in_memory { Some(base_of(&slot_of(0, &states[0]))) } else { in_store(0) };
        let next = save_state(&job, 1, &states[1], base);
        let (full_part, part) = (stored_part(&full), stored_part(&next));
        assert!((0.85..0.87).contains(&full_part), "12 of 14 bytes: {full_part}");
        assert!(part < 0.70, "{part}");
        let found = encodings(&manifest_of(&job, &next));
        let all = |name: &str, wanted| found[name].iter().all(|encoding| *encoding == wanted);
        assert!(all("model.weight", ChunkEncoding::Rounded), "{found:?}");
        assert!(all("master.weight", ChunkEncoding::Difference), "{found:?}");
        assert!(all("optimizer.exp_avg.weight", ChunkEncoding::Planes), "{found:?}");
        assert!(found["optimizer.exp_avg_sq.weight"].contains(&ChunkEncoding::Difference), "{found:?}");
        assert!(all("step", ChunkEncoding::Raw), "{found:?}");
        for (step, state) in states.iter().enumerate() {
            comes_back(&job.store, step as u64, state);
            assert!(verify(&job.store, step as u64).unwrap().bytes > full.state_bytes());
        }
    }
}

#[test]
fn a_full_step_is_independent_and_knows_its_weights_from_its_masters() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    let record = save_state(&job, 1, &trained(1), None);
    let manifest = manifest_of(&job, &record);
    assert!(manifest.packs.iter().all(|pack| pack.path.contains(&format!("{:020}.g1", 1))));
    let found = encodings(&manifest);
    assert!(found["model.weight"].iter().all(|encoding| *encoding == ChunkEncoding::Rounded));
    assert!(found["master.weight"].iter().all(|encoding| *encoding == ChunkEncoding::Raw));
    comes_back(&job.store, 1, &trained(1));
}

#[test]
fn weights_alone_are_restored_from_masters_that_are_not_asked_for() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    save_state(&job, 1, &trained(1), in_store(0));
    for step in [0, 1] {
        let restore = open_step(&job.store, step, 0, 1, "model.*").unwrap();
        assert!(restore.slot_bytes() < (ELEMENTS * 2 + 16384) as u64, "no master has room in the slot");
        let found = read(&restore).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found["model.weight"] == trained(step)[0].2);
    }
}

#[test]
fn weights_that_differ_from_their_masters_in_one_bit_are_stored_themselves() {
    let job = local();
    let mut state = trained_of(0, (2 << 20) + 30_000);
    let last = state[0].2.len() - 101;
    state[0].2[last] ^= 1;
    let record = save_state(&job, 0, &state, None);
    let found = encodings(&manifest_of(&job, &record));
    let (last, others) = found["model.weight"].split_last().unwrap();
    assert_eq!(*last, ChunkEncoding::Raw);
    assert!(others.iter().all(|encoding| *encoding == ChunkEncoding::Rounded));
    comes_back(&job.store, 0, &state);
}

/// No chunk needs more than one other, however many steps hang together, and what a restore reads is bounded.
#[test]
fn the_end_of_a_long_chain_needs_no_more_than_its_first_link() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    for step in 1..6 {
        let record = save_state(&job, step, &trained(step), in_store(step - 1));
        comes_back(&job.store, step, &trained(step));
        let manifest = manifest_of(&job, &record);
        let (mut bytes, mut reads) = (0, 0);
        for chunk in &manifest.chunks {
            let encoding = Encoding::of(chunk).unwrap();
            (bytes, reads) = (bytes + chunk.bytes, reads + encoding.read_bytes());
        }
        assert!(reads <= bytes * 130 / 100 + chunks::CHUNK_BYTES, "{reads} of {bytes}");
        assert!(stored_part(&record) < 0.75, "step {step}: {}", stored_part(&record));
    }
    verify(&job.store, 5).unwrap();
}

#[test]
fn a_difference_that_grew_old_is_stored_anew_and_is_the_next_ones_base() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    // The second moment of another run: nothing of the base is left in it.
    let other = |step: u64| {
        let mut state = trained(step);
        let mut random = StdRng::seed_from_u64(9);
        let values = (0..ELEMENTS).map(|_| random.random_range(1e-9f32..1e-3));
        state[4].2 = values.flat_map(|value| (value * (1.0 + step as f32 / 500.0)).to_le_bytes()).collect();
        state
    };
    let of_second =
        |record: &CommitRecord| encodings(&manifest_of(&job, record))["optimizer.exp_avg_sq.weight"].clone();
    let anew = save_state(&job, 1, &other(1), in_store(0));
    assert!(of_second(&anew).iter().all(|encoding| *encoding == ChunkEncoding::Planes));
    let next = save_state(&job, 2, &other(2), in_store(1));
    assert!(of_second(&next).contains(&ChunkEncoding::Difference), "{:?}", of_second(&next));
    let manifest = manifest_of(&job, &next);
    let base_in_planes =
        |chunk: &crate::proto::format::Chunk| chunk.base.is_some_and(|base| base.encoding == 1);
    assert!(manifest.chunks.iter().any(base_in_planes));
    for step in [1, 2] {
        comes_back(&job.store, step, &other(step));
        verify(&job.store, step).unwrap();
    }
}

#[test]
fn an_unchanged_difference_is_referred_to_with_its_base() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    save_state(&job, 1, &trained(1), in_store(0));
    for base in [Some(base_of(&slot_of(1, &trained(1)))), in_store(1)] {
        let step = if base.as_ref().unwrap().slot.is_some() { 2 } else { 3 };
        let record = save_state(&job, step, &trained(1), base.map(|base| BaseSlot { step: Step(1), ..base }));
        assert_eq!(record.stored_bytes(), 0, "all is there");
        comes_back(&job.store, step, &trained(1));
    }
}

#[test]
fn noise_is_stored_as_it_is() {
    let job = local();
    let noise = |step| vec![("noise", "float32", noise_bytes(step, 6 << 20))];
    save_state(&job, 0, &noise(0), None);
    let record = save_state(&job, 1, &noise(1), in_store(0));
    let found = encodings(&manifest_of(&job, &record));
    assert!(found["noise"].iter().all(|encoding| *encoding == ChunkEncoding::Raw));
    comes_back(&job.store, 1, &noise(1));
}

/// P2, over every object that step 2 is made of: its own, and those of its bases.
#[test]
fn a_flipped_bit_in_a_base_or_a_difference_is_found() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let job = local();
    save_state(&job, 0, &trained(0), None);
    save_state(&job, 1, &trained(1), in_store(0));
    let record = save_state(&job, 2, &trained(2), in_store(1));
    let manifest = manifest_of(&job, &record);
    let (mut flipped, mut in_bases) = (0, 0);
    for chunk in &manifest.chunks {
        let mut places = Vec::new();
        match Encoding::of(chunk).unwrap() {
            Encoding::Whole(whole) => places.push(whole.stored),
            Encoding::Difference { stored, base, .. } => places.extend([stored, base.stored]),
            Encoding::Rounded { .. } => {}
        }
        for (number, stored) in places.into_iter().enumerate() {
            let path = job.folder.path().join(JOB).join(&manifest.packs[stored.pack as usize].path);
            let whole = fs::read(&path).unwrap();
            let at = stored.offset + random.random_range(0..stored.bytes);
            let mut bytes = whole.clone();
            bytes[at as usize] ^= 1 << random.random_range(0..8);
            fs::write(&path, &bytes).unwrap();
            let errors = [restore_all(&job.store, 2, 1).err(), verify(&job.store, 2).err()];
            for error in errors {
                let error = error.unwrap_or_else(|| panic!("byte {at} of {} was not found", path.display()));
                assert_eq!(error.kind, Kind::Corrupt, "{error}");
                assert!(error.message.contains("step 2") && error.message.contains("data/"), "{error}");
            }
            fs::write(&path, &whole).unwrap();
            flipped += 1;
            in_bases += number;
        }
    }
    assert!(flipped > 5 && in_bases > 1, "{flipped} places, {in_bases} of them in bases");
    comes_back(&job.store, 2, &trained(2));
}

#[test]
fn p2_byte_that_flips_after_its_sum_was_taken_is_stored_in_no_way() {
    let job = local();
    save_state(&job, 1, &trained(1), None);
    let packs = objects(&job, "pack");
    let bases: [fn() -> Option<BaseSlot>; 2] = [|| None, || in_store(1)];
    // Trained further, and not at all: differences, planes, rounded and whole chunks, and those that the base holds.
    for (content, base) in [1, 2].into_iter().flat_map(|content| bases.map(|base| (content, base))) {
        for number in 0..trained(content).len() {
            let mut slot = slot_of(2, &trained(content));
            slot.sums.take_all(&slot.data, &Pace::hurried()).unwrap();
            let tensor = &slot.index.tensors[number];
            let mut data = slot.data.to_vec();
            data[(tensor.offset + tensor.bytes / 2) as usize] ^= 1;
            let name = tensor.name.clone();
            (slot.data, slot.base) = (Bytes::from(data), base());
            let error = persist(&job.store, attempt(job.uuid, 2, 1), 1, vec![vec![slot]]).unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{name}: {error}");
            assert!(error.message.contains("changed in memory"), "{name}: {error}");
            assert_eq!(objects(&job, "pack"), packs);
        }
    }
}

#[test]
fn a_step_whose_base_is_gone_is_corrupt() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    save_state(&job, 1, &trained(1), in_store(0));
    let base = objects(&job, "pack").remove(0);
    let whole = fs::read(&base).unwrap();
    for damage in [None, Some(&whole[..whole.len() - 4096])] {
        match damage {
            None => fs::remove_file(&base).unwrap(),
            Some(cut) => fs::write(&base, cut).unwrap(),
        }
        for error in [restore_all(&job.store, 1, 1).unwrap_err(), verify(&job.store, 1).unwrap_err()] {
            assert_eq!(error.kind, Kind::Corrupt, "{error}");
        }
    }
}

#[test]
fn a_damaged_base_is_no_base_of_a_difference() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    let pack = objects(&job, "pack").remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    bytes.iter_mut().step_by(1 << 20).for_each(|byte| *byte ^= 1);
    fs::write(&pack, bytes).unwrap();
    save_state(&job, 1, &trained(1), in_store(0));
    comes_back(&job.store, 1, &trained(1));
}

#[test]
fn removing_a_step_keeps_what_differences_to_it_need() {
    let job = local();
    save_state(&job, 0, &trained(0), None);
    save_state(&job, 1, &trained(1), in_store(0));
    save_state(&job, 2, &trained(2), in_store(1));
    for (step, remaining) in [(0, &[1, 2][..]), (1, &[2][..])] {
        run(job.store.remove(&removal(step, 1, true, remaining))).unwrap();
        comes_back(&job.store, 2, &trained(2));
        verify(&job.store, 2).unwrap();
    }
    run(job.store.remove(&removal(2, 1, true, &[]))).unwrap();
    assert_eq!(objects(&job, "pack"), Vec::<PathBuf>::new(), "and the last one takes all with it");
}

/// What one node stored is differences and rounded masters to the other one, too.
#[test]
fn replicated_tensors_are_rebuilt_from_what_another_node_stored() {
    let job = local();
    let nodes = |step: u64, base: Option<u64>| -> Vec<Vec<RankSlot>> {
        let node = |rank| {
            let mut slot = rank_slot(rank, 2, step, &trained(step), true);
            slot.base = base.and_then(in_store);
            vec![slot]
        };
        vec![node(0), node(1)]
    };
    let full = save(&job.store, job.uuid, 0, 2, nodes(0, None));
    let next = save(&job.store, job.uuid, 1, 2, nodes(1, Some(0)));
    assert!(next.stored_bytes() < full.stored_bytes() * 9 / 10);
    for step in [0, 1] {
        for rank in [0, 1] {
            let found = read(&open_step(&job.store, step, rank, 2, "").unwrap()).unwrap();
            for (name, _, bytes) in trained(step) {
                assert!(found[name] == bytes, "{name} of rank {rank} in step {step}");
            }
            let weights = read(&open_step(&job.store, step, rank, 2, "model.weight").unwrap()).unwrap();
            assert!(weights["model.weight"] == trained(step)[0].2);
        }
        verify(&job.store, step).unwrap();
    }
}

/// P10: an upload keeps encoded chunks until a part is full; they count, and are given back.
#[test]
fn encoded_chunks_in_an_upload_count_against_the_limit_until_they_are_sent() {
    let buffers = crate::storage::BufferBudget::new(48 << 20);
    let options = crate::storage::StoreOptions { buffers: buffers.clone(), ..Default::default() };
    let objects = Arc::new(object_store::memory::InMemory::new());
    let objects = crate::storage::over_object_store(objects, JOB, &options);
    let url = crate::storage::StoreUrl::local("/over").unwrap();
    let store = JobStore::over(objects, &url, &options, &job());
    let uuid = JobUuid::new();
    // Two ranks, so that more than a part is written.
    let ranks = |step: u64, base: Option<u64>| -> Vec<Vec<RankSlot>> {
        let slot = |rank: u64| {
            let mut slot = rank_slot(rank as u32, 2, step, &trained(10 * rank + step), false);
            slot.base = base.and_then(in_store);
            slot
        };
        vec![vec![slot(0), slot(1)]]
    };
    save(&store, uuid, 0, 2, ranks(0, None));
    let record = save(&store, uuid, 1, 2, ranks(1, Some(0)));
    assert!(stored_part(&record) < 0.75, "{}", stored_part(&record));
    assert_eq!(buffers.in_use(), 0);
    assert!(buffers.promise(24 << 20).is_some(), "every promise has ended");
    for rank in [0, 1] {
        let found = read(&open_step(&store, 1, rank, 2, "").unwrap()).unwrap();
        for (name, _, bytes) in trained(10 * u64::from(rank) + 1) {
            assert!(found[name] == bytes, "{name} of rank {rank}");
        }
    }
}

/// A limit without room for encoding: as before it, chunks are stored as they are.
#[test]
fn a_small_limit_on_memory_stores_chunks_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(JOB)).unwrap();
    let options = crate::storage::StoreOptions {
        buffers: crate::storage::BufferBudget::new(16 << 20),
        ..Default::default()
    };
    let url = crate::storage::StoreUrl::local(folder.path()).unwrap();
    let store = JobStore::open(&url, &options, &job()).unwrap();
    let job = LocalJob { folder, store, uuid: JobUuid::new() };
    save_state(&job, 0, &trained(0), None);
    let record = save_state(&job, 1, &trained(1), in_store(0));
    let found = encodings(&manifest_of(&job, &record));
    assert!(found["master.weight"].iter().all(|encoding| *encoding == ChunkEncoding::Raw));
    comes_back(&job.store, 1, &trained(1));
}
