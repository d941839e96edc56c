//! One rank with its arena and its job in a store, driven as client and sidecar drive them.

use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use strata_core::checkpoint::{
    Attempt, Claimant, Durable, JobStore, NodeShare, PersistRequest, RankSlot, Takeover,
};
use strata_core::format::{CommitRecord, RankManifest, StepKind, paths};
use strata_core::handoff::plan::{TensorSpec, layout};
use strata_core::handoff::{
    Arena, ArenaDirectory, ArenaIdentity, ArenaView, Begin, CopyIn, MachineMemory, default_threads,
};
use strata_core::ids::{ClusterId, Generation, JobName, JobUuid, SessionId, Step, WorldSize};
use strata_core::proto::format::{SlotIndex, Tensor};
use strata_core::proto::v1;
use strata_core::storage::{StoreOptions, StoreUrl};

/// Tensors as large as a layer of a mid-sized model.
pub const TENSOR: usize = 16 << 20;
const PAGE: usize = 4096;
const RANK: strata_core::ids::Rank = strata_core::ids::Rank(0);
const GENERATION: Generation = Generation(1);
const WORLD: WorldSize = WorldSize(1);

pub struct Rank {
    source: Vec<u8>,
    tensors: Vec<Tensor>,
    data_bytes: u64,
    arena: Arena,
    view: ArenaView,
    store: JobStore,
    job: JobName,
    job_uuid: JobUuid,
    step: Step,
    saved: Option<Step>,
    restored: Vec<u8>,
    _directory: ArenaDirectory,
    _folder: tempfile::TempDir,
}

impl Rank {
    /// A job of its own, and random bytes as its state: no two chunks are equal.
    pub async fn start(url: &StoreUrl, options: &StoreOptions, bytes: usize) -> Rank {
        let job: JobName = format!("bench-{bytes}").parse().expect("a valid name");
        let store = JobStore::open(url, options, &job).expect("the options fit the store");
        let attached = store
            .attach(ClusterId::new(), Takeover::No, Claimant::Own { uid: 0 })
            .await
            .expect("the prefix is new");

        let mut source = vec![0; bytes];
        StdRng::seed_from_u64(bytes as u64).fill(&mut source[..]);
        let specs: Vec<TensorSpec> = (0..bytes)
            .step_by(TENSOR)
            .map(|start| TensorSpec {
                name: format!("model.{start}"),
                bytes: TENSOR.min(bytes - start) as u64,
                replicated: false,
            })
            .collect();
        let places = layout(&specs);
        let tensors: Vec<Tensor> = specs
            .iter()
            .zip(&places.offsets)
            .map(|(spec, &offset)| Tensor {
                name: spec.name.clone(),
                dtype: "uint8".into(),
                shape: vec![spec.bytes],
                offset,
                bytes: spec.bytes,
                replicated: false,
                staged: true,
            })
            .collect();

        let folder = tempfile::tempdir_in("/dev/shm").expect("/dev/shm takes a directory");
        let uid = rustix::process::getuid().as_raw();
        let directory = ArenaDirectory::open(folder.path(), uid).expect("the directory is ours");
        let identity = ArenaIdentity { job: job.clone(), job_uuid: attached.job_uuid, rank: RANK, file: 0 };
        let slot_bytes = places.slot_bytes(4096);
        let memory = MachineMemory::default();
        let arena =
            directory.create(&identity, 2, slot_bytes, &memory).expect("/dev/shm has room for two slots");
        let view = ArenaView::open(arena.path()).expect("it was just made");
        view.populate();
        Rank {
            source,
            tensors,
            data_bytes: places.data_bytes,
            arena,
            view,
            store,
            job,
            job_uuid: attached.job_uuid,
            step: Step(0),
            saved: None,
            restored: vec![0; places.data_bytes as usize + PAGE],
            _directory: directory,
            _folder: folder,
        }
    }

    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// What blocks training in mode copy: every byte into the slot, index, seal. Gives slot number and fill.
    fn fill(&self) -> (u32, u64) {
        let number = (self.step.0 % 2) as u32;
        let begin = Begin { session: SessionId(1), generation: GENERATION, step: self.step };
        let fill = self.arena.slot(number).begin_fill(&begin).expect("the slot is free");
        let writer = self.view.writer(number, fill).expect("the slot is being filled");
        let mut start = 0;
        let mut copies = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            copies.push(CopyIn {
                source: self.source[start..].as_ptr(),
                bytes: tensor.bytes,
                offset: tensor.offset,
            });
            start += tensor.bytes as usize;
        }
        // SAFETY: the source outlives the call and nobody writes to it.
        unsafe { writer.fill(&copies, self.data_bytes, default_threads()) }.expect("the fill is ours");
        writer.seal(&self.index(), self.data_bytes).expect("the index fits");
        (number, fill)
    }

    fn index(&self) -> SlotIndex {
        SlotIndex {
            step: self.step.0,
            rank: RANK.0,
            world_size: WORLD.0,
            tree: b"{}".to_vec(),
            tensors: self.tensors.clone(),
            ..Default::default()
        }
    }

    /// The time [`Rank::fill`] takes; the slot is free afterwards.
    pub fn fill_only(&mut self) -> Duration {
        self.step.0 += 1;
        let started = Instant::now();
        let (number, fill) = self.fill();
        let took = started.elapsed();
        self.arena.slot(number).free(fill).expect("the slot is sealed");
        took
    }

    /// The same bytes into the same slot with memcpy, half by each of two threads.
    pub fn plain_copy(&mut self) -> Duration {
        self.step.0 += 1;
        let slot = self.arena.slot((self.step.0 % 2) as u32);
        let mut load = slot.begin_load(GENERATION, self.step).expect("the slot is free");
        let target = &mut load.data(self.source.len() as u64).expect("the slot holds the state")[..];
        let half = self.source.len() / 2;
        let (left, right) = target.split_at_mut(half);
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| left.copy_from_slice(&self.source[..half]));
            right.copy_from_slice(&self.source[half..]);
        });
        started.elapsed()
    }

    /// From the first byte copied until the COMMIT is durable. The step before is removed outside of the time.
    pub async fn save(&mut self) -> Duration {
        self.step.0 += 1;
        let started = Instant::now();
        let (number, fill) = self.fill();
        let slot = self.arena.slot(number);
        slot.take_for_persist(fill).expect("the slot is sealed");
        let data = Bytes::from_owner(slot.data().expect("the slot is sealed"));
        let index = slot.index().expect("the slot is sealed");
        let attempt = Attempt { job_uuid: self.job_uuid, step: self.step, generation: GENERATION };
        let ranks = vec![RankSlot::new(RANK, data, index).expect("a layout of our own")];
        let request = PersistRequest { attempt, world_size: WORLD, ranks, replicated: NodeShare::ALONE };
        let durable = self.store.persist(request).await.expect("the store takes it");
        let content = Bytes::from(self.commit(durable).encode());
        self.store.publish(&paths::commit(self.step), content).await.expect("the step is new");
        let took = started.elapsed();
        slot.mark_clean(fill).expect("the slot is persisting");
        if let Some(before) = self.saved.replace(self.step) {
            self.remove(before).await;
        }
        took
    }

    /// The bytes of a filled slot, where the arena has them. Nothing may be saved after this: the slot stays taken.
    #[allow(dead_code, reason = "not every bench that includes this file asks for it")]
    pub fn staged(&mut self) -> Bytes {
        self.step.0 += 1;
        let (number, _) = self.fill();
        let data = self.arena.slot(number).data().expect("the slot is sealed");
        Bytes::from_owner(data).slice(..self.data_bytes as usize)
    }

    fn commit(&self, durable: Vec<Durable>) -> CommitRecord {
        let manifest = |one: Durable| RankManifest {
            rank: one.rank,
            path: one.manifest_path,
            blake3: one.blake3,
            bytes: one.bytes,
            state_bytes: one.state_bytes,
            stored_bytes: one.stored_bytes,
        };
        CommitRecord {
            job: self.job.clone(),
            job_uuid: self.job_uuid,
            step: self.step,
            generation: GENERATION,
            authority: GENERATION,
            kind: StepKind::Full,
            world_size: WORLD,
            committed_unix_ms: UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64),
            base_steps: vec![],
            data: vec![],
            metrics_json: String::new(),
            meta_json: String::new(),
            ranks: durable.into_iter().map(manifest).collect(),
        }
    }

    async fn remove(&self, step: Step) {
        let order = v1::RemoveStep {
            job: self.job.to_string(),
            step: step.0,
            generation: GENERATION.0,
            committed: true,
            remaining: vec![self.step.0],
            ..v1::RemoveStep::default()
        };
        self.store.remove(&order).await.expect("the step was there or is gone already");
    }

    /// Manifest and data of the newest step, every byte verified, into populated memory that starts on a page, as a slot
    /// does.
    pub async fn restore(&mut self) -> Duration {
        if self.saved.is_none() {
            self.save().await;
        }
        let step = self.saved.expect("a step was just saved");
        let started = Instant::now();
        let plan = self.store.open_step(step, RANK, WORLD, "").await.expect("the step is committed");
        let mut target = std::mem::take(&mut self.restored);
        self.restored = tokio::task::spawn_blocking(move || {
            let start = target.as_ptr().align_offset(PAGE);
            plan.read_into(&mut target[start..]).expect("the step is whole");
            target
        })
        .await
        .expect("reading does not panic");
        let took = started.elapsed();
        let start = self.restored.as_ptr().align_offset(PAGE);
        assert!(self.restored[start..].starts_with(&self.source[..PAGE]), "what was saved comes back");
        took
    }
}
