//! A store with every kind of object in it, and which bytes each of its steps is made of.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::fixture::*;
use crate::checkpoint::{JobStore, Takeover};
use crate::format::{CommitRecord, StepKind, manifest, paths};
use crate::ids::{ClusterId, JobUuid, Step};
use crate::storage::{StoreOptions, StoreUrl};

pub struct Saved {
    pub folder: tempfile::TempDir,
    pub store: JobStore,
    pub cluster: ClusterId,
    pub uuid: JobUuid,
    pub steps: Vec<StepSaved>,
    /// What is there, by class, with its content: also of a second job, which only lends its objects to swaps.
    pub objects: BTreeMap<&'static str, Vec<(PathBuf, Vec<u8>)>>,
    pub owner: PathBuf,
}

pub struct StepSaved {
    pub number: u64,
    pub world: u32,
    pub specs: Vec<Spec>,
    pub record: CommitRecord,
    pub commit: PathBuf,
    /// Of each object that a restore of all ranks reads, the bytes that matter.
    pub made_of: BTreeMap<PathBuf, Vec<Range<u64>>>,
}

impl Saved {
    pub fn new(seed: u64) -> Saved {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = tempfile::Builder::new().prefix("strata-test-").tempdir_in("/dev/shm").unwrap();
        let cluster = ClusterId::new();
        let other = job_in(folder.path(), "run-2");
        let other_uuid = run(other.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid;
        let durable =
            persist(&other, attempt(other_uuid, 1, 1), 2, one_node(2, 1, &state(&mut random))).unwrap();
        let foreign = record(attempt(other_uuid, 1, 1), 2, StepKind::Full, &durable);
        publish(&other, &CommitRecord { job: other.job().clone(), ..foreign }).unwrap();
        let store = job_in(folder.path(), JOB);
        let uuid = run(store.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid;
        let steps = save_steps(&store, folder.path(), uuid, &mut random);
        let mut objects: BTreeMap<&str, Vec<(PathBuf, Vec<u8>)>> = BTreeMap::new();
        for path in files(folder.path()) {
            let content = std::fs::read(&path).unwrap();
            objects.entry(class(&path)).or_default().push((path, content));
        }
        assert_eq!(objects.keys().copied().collect::<Vec<_>>(), CLASSES);
        let owner = folder.path().join(JOB).join(paths::OWNER);
        Saved { folder, store, cluster, uuid, steps, objects, owner }
    }

    pub fn content(&self, path: &Path) -> &[u8] {
        let mut all = self.objects.values().flatten();
        &all.find(|(at, _)| at == path).expect("an object of this store").1
    }
}

pub const CLASSES: [&str; 4] = ["COMMIT", "OWNER", "manifest", "pack"];

pub fn class(path: &Path) -> &'static str {
    let name = path.file_name().unwrap().to_str().unwrap();
    let kind = name.rsplit('.').next().unwrap();
    CLASSES.into_iter().find(|class| *class == kind).unwrap_or_else(|| panic!("{name} is none of ours"))
}

/// One writer: what a seed says about places in a pack must be true when it is played again.
fn job_in(root: &Path, job: &str) -> JobStore {
    std::fs::create_dir_all(root.join(job)).unwrap();
    let options = StoreOptions { concurrency: 1, ..StoreOptions::default() };
    JobStore::open(&StoreUrl::local(root).unwrap(), &options, &job.parse().unwrap()).unwrap()
}

fn state(random: &mut StdRng) -> Vec<Spec> {
    vec![
        spec("trained", random.random_range(1..30_000)).version(1),
        spec("frozen", 70_000 + random.random_range(0..5000)),
        replicated("shared", random.random_range(5000..20_000)).version(1),
        spec("small", 33).version(1),
        spec("empty", 0),
    ]
}

/// FULL and INCREMENTAL, of two ranks on one node and on two, and of one rank alone.
fn save_steps(store: &JobStore, root: &Path, uuid: JobUuid, random: &mut StdRng) -> Vec<StepSaved> {
    let mut steps = Vec::new();
    let first = state(random);
    let changed = |version: u64| -> Vec<Spec> {
        let moved = |spec: &Spec| match spec.name.as_str() {
            "frozen" => spec.clone(),
            _ => spec.clone().version(version),
        };
        first.iter().map(moved).collect()
    };
    let ranks = |step, specs: &[Spec], base: Option<u64>, numbers: Range<u32>, world| -> Vec<_> {
        let slots = numbers.map(|rank| {
            let mut slot = slot(rank, world, step, specs, true);
            slot.base = base.map(|step| crate::checkpoint::BaseSlot { step: Step(step), slot: None });
            slot
        });
        slots.collect()
    };
    let mut add = |step, world, specs: &[Spec], kind, nodes| {
        let attempt = attempt(uuid, step, 1);
        let durable = persist(store, attempt, world, nodes).unwrap();
        let record = record(attempt, world, kind, &durable);
        publish(store, &record).unwrap();
        steps.push(StepSaved::new(root, world, specs, record));
    };
    let (second, third, fourth, alone) = (changed(2), changed(3), changed(4), state(random));
    add(1, 2, &first, StepKind::Full, vec![ranks(1, &first, None, 0..2, 2)]);
    add(2, 2, &second, StepKind::Incremental, vec![ranks(2, &second, Some(1), 0..2, 2)]);
    let nodes = |step, specs: &[Spec], base| {
        vec![ranks(step, specs, base, 0..1, 2), ranks(step, specs, base, 1..2, 2)]
    };
    add(3, 2, &third, StepKind::Full, nodes(3, &third, None));
    add(4, 2, &fourth, StepKind::Incremental, nodes(4, &fourth, Some(3)));
    let moved: Vec<Spec> = alone.iter().map(|spec| spec.clone().version(spec.version * 9)).collect();
    add(5, 1, &alone, StepKind::Full, vec![ranks(5, &alone, None, 0..1, 1)]);
    add(6, 1, &moved, StepKind::Incremental, vec![ranks(6, &moved, Some(5), 0..1, 1)]);
    let refers = |step: &StepSaved| step.made_of.keys().any(|path| attempt_step(path) < step.number);
    assert_eq!(steps.iter().map(refers).collect::<Vec<_>>(), [false, true, false, true, false, true]);
    steps
}

/// Of the attempt in whose folder it lies; COMMIT lies in none.
fn attempt_step(path: &Path) -> u64 {
    let folder = path.parent().and_then(Path::file_name).unwrap().to_str().unwrap();
    folder.split_once('.').map_or(u64::MAX, |(step, _)| step.parse().unwrap())
}

impl StepSaved {
    fn new(root: &Path, world: u32, specs: &[Spec], record: CommitRecord) -> StepSaved {
        let at = |path: &str| root.join(JOB).join(path);
        let whole = |path: &Path| std::iter::once(0..path.metadata().unwrap().len()).collect::<Vec<_>>();
        let commit = at(&paths::commit(record.step));
        let mut made_of = BTreeMap::from([(commit.clone(), whole(&commit))]);
        for rank in &record.ranks {
            let path = at(&rank.path);
            made_of.insert(path.clone(), whole(&path));
            let manifest = manifest::decode(&std::fs::read(&path).unwrap(), "a manifest").unwrap();
            for chunk in &manifest.chunks {
                let pack = at(&manifest.packs[chunk.pack as usize].path);
                let bytes = chunk.pack_offset..chunk.pack_offset + chunk.bytes;
                made_of.entry(pack).or_default().push(bytes);
            }
        }
        StepSaved { number: record.step.0, world, specs: specs.to_vec(), record, commit, made_of }
    }
}
