//! States, nodes that persist them, and the proof that a rank got its own back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{
    Attempt, BaseSlot, Claimant, Durable, JobStore, NodeShare, PersistRequest, RankRestore, RankSlot,
};
use crate::error::Result;
use crate::format::{CommitRecord, RankManifest, StepKind, paths};
use crate::handoff::plan::{TensorSpec, layout};
use crate::ids::{Generation, JobName, JobUuid, Rank, Step, WorldSize};
use crate::proto::format::{SlotIndex, Tensor};
use crate::proto::v1;
use crate::storage::{Store, StoreOptions, StoreUrl};

pub const JOB: &str = "run-1";
pub const OWN: Claimant = Claimant::Own { uid: 1000 };

pub fn job() -> JobName {
    JOB.parse().unwrap()
}

/// Runs one async call; the engine needs no runtime of its own.
pub fn run<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(call)
}

/// A directory that lives as long as the store in it.
pub struct LocalJob {
    pub folder: tempfile::TempDir,
    pub store: JobStore,
    pub uuid: JobUuid,
}

pub fn local() -> LocalJob {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    LocalJob { folder, store, uuid: JobUuid::new() }
}

/// With the job's folder in it, which attach would make.
pub fn open(root: &Path) -> JobStore {
    // There already, or on a disk that is read-only by now.
    let _ = std::fs::create_dir(root.join(JOB));
    JobStore::open(&StoreUrl::local(root).unwrap(), &StoreOptions::default(), &job()).unwrap()
}

/// Over any store that is narrowed to the job.
pub fn over(objects: Arc<dyn Store>) -> JobStore {
    JobStore::over(objects, &StoreUrl::local("/over").unwrap(), &StoreOptions::default(), &job())
}

/// One tensor of a state: its content is a pure function of name, version and, unless replicated, rank.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub bytes: u64,
    pub replicated: bool,
    pub version: u64,
}

pub fn spec(name: &str, bytes: u64) -> Spec {
    Spec { name: name.to_owned(), bytes, replicated: false, version: 0 }
}

pub fn replicated(name: &str, bytes: u64) -> Spec {
    Spec { replicated: true, ..spec(name, bytes) }
}

impl Spec {
    pub fn version(self, version: u64) -> Spec {
        Spec { version, ..self }
    }

    pub fn content(&self, rank: u32) -> Vec<u8> {
        let rank = if self.replicated { u32::MAX } else { rank };
        let seed = xxhash_rust::xxh3::xxh3_64(format!("{} {} {rank}", self.name, self.version).as_bytes());
        crate::storage::conformance::noise(seed, self.bytes as usize)
    }
}

/// A mixed state: large tensors over several chunks and off their grid, small ones, empty ones.
pub fn mixed(version: u64) -> Vec<Spec> {
    let specs = [
        spec("model.embedding", (9 << 20) + 123),
        replicated("model.head", (5 << 20) + 64),
        spec("model.empty", 0),
        spec("model.bias", 77),
        replicated("model.norm", 4096),
        spec("optimizer.step", 8),
        replicated("model.scale", 4),
        spec("optimizer.exp_avg", 1 << 20),
        spec("rng.torch", 5056),
    ];
    specs.into_iter().map(|spec| spec.version(version)).collect()
}

pub fn tree(rank: u32, step: u64) -> Vec<u8> {
    format!("{{\"rank\": {rank}, \"step\": {step}}}").into_bytes()
}

/// Memory as an arena's: from a page's start.
fn aligned(bytes: usize) -> Vec<u8> {
    vec![0; bytes + 4096]
}

/// A rank's sealed slot of `specs`; `stage_replicated`: whether this rank of its node holds the replicated bytes.
pub fn slot(rank: u32, world: u32, step: u64, specs: &[Spec], stage_replicated: bool) -> RankSlot {
    let staged = |spec: &Spec| stage_replicated || !spec.replicated;
    let plan: Vec<TensorSpec> = specs
        .iter()
        .map(|spec| TensorSpec {
            name: spec.name.clone(),
            bytes: if staged(spec) { spec.bytes } else { 0 },
            replicated: spec.replicated,
        })
        .collect();
    let plan = layout(&plan);
    let mut memory = aligned(plan.data_bytes as usize);
    let start = memory.as_ptr().align_offset(4096);
    let mut tensors = Vec::new();
    for (spec, &offset) in specs.iter().zip(&plan.offsets) {
        if staged(spec) {
            memory[start + offset as usize..][..spec.bytes as usize].copy_from_slice(&spec.content(rank));
        }
        tensors.push(Tensor {
            name: spec.name.clone(),
            dtype: "uint8".into(),
            shape: vec![spec.bytes],
            offset,
            bytes: spec.bytes,
            replicated: spec.replicated,
            staged: staged(spec),
        });
    }
    let data = Bytes::from(memory).slice(start..start + plan.data_bytes as usize);
    let index = SlotIndex {
        step,
        rank,
        world_size: world,
        kind: v1::SaveKind::Full as u32,
        tree: tree(rank, step),
        tensors,
        begun: Vec::new(),
    };
    RankSlot::new(Rank(rank), data, index).unwrap()
}

/// The slot of a base step, as it is still in memory.
pub fn base_of(slot: &RankSlot) -> BaseSlot {
    BaseSlot { step: Step(slot.index.step), slot: Some((slot.data.clone(), slot.index.clone())) }
}

pub fn attempt(uuid: JobUuid, step: u64, generation: u64) -> Attempt {
    Attempt { job_uuid: uuid, step: Step(step), generation: Generation(generation) }
}

/// What each node does with its slots; all that was written.
pub fn persist(
    store: &JobStore,
    attempt: Attempt,
    world: u32,
    nodes: Vec<Vec<RankSlot>>,
) -> Result<Vec<Durable>> {
    let count = nodes.len();
    let mut durable = Vec::new();
    for (node, ranks) in nodes.into_iter().enumerate() {
        durable.extend(run(store.persist(PersistRequest {
            attempt,
            world_size: WorldSize(world),
            ranks,
            replicated: NodeShare { node, nodes: count },
        }))?);
    }
    durable.sort_by_key(|durable| durable.rank);
    Ok(durable)
}

pub fn record(attempt: Attempt, world: u32, kind: StepKind, durable: &[Durable]) -> CommitRecord {
    let manifest = |durable: &Durable| RankManifest {
        rank: durable.rank,
        path: durable.manifest_path.clone(),
        blake3: durable.blake3.clone(),
        bytes: durable.bytes,
        state_bytes: durable.state_bytes,
        stored_bytes: durable.stored_bytes,
    };
    CommitRecord {
        job: job(),
        job_uuid: attempt.job_uuid,
        step: attempt.step,
        generation: attempt.generation,
        authority: attempt.generation,
        kind,
        world_size: WorldSize(world),
        committed_unix_ms: 1_700_000_000_000,
        base_steps: Vec::new(),
        data: Vec::new(),
        metrics_json: "{}".into(),
        meta_json: "{}".into(),
        ranks: durable.iter().map(manifest).collect(),
    }
}

pub fn publish(store: &JobStore, record: &CommitRecord) -> Result<()> {
    run(store.publish(&paths::commit(record.step), record.encode().into()))
}

/// Persists and commits a step of generation 1.
pub fn save(
    store: &JobStore,
    uuid: JobUuid,
    step: u64,
    world: u32,
    nodes: Vec<Vec<RankSlot>>,
) -> CommitRecord {
    let attempt = attempt(uuid, step, 1);
    let durable = persist(store, attempt, world, nodes).unwrap();
    let record = record(attempt, world, StepKind::Full, &durable);
    publish(store, &record).unwrap();
    record
}

/// One node of `world` ranks, each with all of `specs` in its slot.
pub fn one_node(world: u32, step: u64, specs: &[Spec]) -> Vec<Vec<RankSlot>> {
    vec![(0..world).map(|rank| slot(rank, world, step, specs, true)).collect()]
}

pub fn open_step(store: &JobStore, step: u64, rank: u32, world: u32, only: &str) -> Result<RankRestore> {
    run(store.open_step(Step(step), Rank(rank), WorldSize(world), only))
}

/// Tensors of a restore by name, from a slot whose old bytes are nonsense.
pub fn read(restore: &RankRestore) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut memory = vec![0xa5; restore.slot_bytes() as usize + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let slot = &mut memory[start..][..restore.slot_bytes() as usize];
    restore.read_into(slot)?;
    let staged = restore.index().tensors.iter().filter(|tensor| tensor.staged);
    Ok(staged
        .map(|tensor| (tensor.name.clone(), slot[tensor.offset as usize..][..tensor.bytes as usize].to_vec()))
        .collect())
}

/// What `rank` of `world` gets, which must be `from`'s state of `specs`.
#[track_caller]
pub fn check(store: &JobStore, step: u64, rank: u32, world: u32, from: u32, specs: &[Spec]) {
    let restore = open_step(store, step, rank, world, "").unwrap();
    assert_eq!(restore.index().tree, tree(from, step));
    assert_eq!((restore.index().rank, restore.index().world_size), (rank, world));
    let found = read(&restore).unwrap();
    assert_eq!(found.len(), specs.len());
    for spec in specs {
        assert!(found[&spec.name] == spec.content(from), "tensor {} of rank {rank}", spec.name);
    }
}

/// The coordinator's order, as far as the engine reads it.
pub fn removal(step: u64, generation: u64, committed: bool, remaining: &[u64]) -> v1::RemoveStep {
    let remaining = remaining.to_vec();
    v1::RemoveStep { step, generation, committed, remaining, ..v1::RemoveStep::default() }
}

/// Restores all ranks of a step and verifies it; the first error.
pub fn restore_all(store: &JobStore, step: u64, world: u32) -> Result<()> {
    for rank in 0..world {
        read(&open_step(store, step, rank, world, "")?)?;
    }
    Ok(())
}

pub fn verify(store: &JobStore, step: u64) -> Result<crate::checkpoint::Report> {
    run(store.verify(Step(step), |done, total| assert!(done.bytes <= total.bytes)))
}

/// Every file below a folder, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// In the folders of attempts lies only what a COMMIT leads to.
#[track_caller]
pub fn nothing_is_left_over(root: &Path, store: &JobStore) {
    nothing_is_left_over_but(root, store, &[]);
}

/// `open`: steps of which something may lie there all the same.
#[track_caller]
pub fn nothing_is_left_over_but(root: &Path, store: &JobStore, open: &[u64]) {
    let mut named = std::collections::BTreeSet::new();
    for listed in run(store.steps()).unwrap() {
        for rank in listed.commit.unwrap().record.ranks {
            let bytes = std::fs::read(root.join(JOB).join(&rank.path)).unwrap();
            let manifest = crate::format::manifest::decode(&bytes, "a manifest").unwrap();
            named.extend(manifest.packs.into_iter().map(|pack| pack.path));
            named.insert(rank.path);
        }
    }
    let mut there = files(&root.join(JOB).join(paths::DATA));
    let is_open = |path: &Path| {
        open.iter().any(|step| {
            path.parent().unwrap().file_name().unwrap().to_str().unwrap().starts_with(&format!("{step:020}."))
        })
    };
    there.retain(|path| !is_open(path));
    let there: Vec<&str> =
        there.iter().map(|path| path.strip_prefix(root.join(JOB)).unwrap().to_str().unwrap()).collect();
    assert_eq!(there, named.iter().map(String::as_str).collect::<Vec<_>>());
}
