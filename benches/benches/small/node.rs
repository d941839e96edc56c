//! A coordinator and a sidecar of this process, and a trainer that saves through them as ever: session, arena, store.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use strata_core::checkpoint::JobStore;
use strata_core::client::{ConnectOptions, SaveRequest, Session, SourceTensor, Uninterrupted, slot_bytes};
use strata_core::clock::MachineClock;
use strata_core::coordinator::{Coordinator, CoordinatorSettings};
use strata_core::ids::{JobName, Rank, Step, WorldSize};
use strata_core::proto::v1::SaveKind;
use strata_core::sidecar::{CoordinatorLink, Sidecar, SidecarSettings};
use strata_core::storage::{StoreOptions, StoreUrl};
use strata_core::telemetry::Metrics;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::states::Tensor;

const PATIENCE: Duration = Duration::from_secs(120);
/// No chain is longer.
const KEPT: u32 = 100;

pub struct Node {
    runtime: Runtime,
    coordinator: Coordinator,
    sidecar: Sidecar,
    stop: CancellationToken,
    home: tempfile::TempDir,
    store: StoreUrl,
    _memory: tempfile::TempDir,
}

/// One save, as the coordinator tells it.
pub struct Saved {
    pub stored: u64,
    pub bytes: u64,
    pub committed_after: Duration,
    pub cpu: Duration,
}

impl Saved {
    pub fn part(&self) -> f64 {
        self.stored as f64 / self.bytes as f64
    }
}

impl Node {
    pub fn start(store: &Path) -> Node {
        let runtime = Builder::new_multi_thread().enable_all().build().expect("threads can be started");
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let memory = tempfile::tempdir_in("/dev/shm").expect("/dev/shm takes a directory");
        let (stop, metrics, clock) = (CancellationToken::new(), Metrics::new(), MachineClock::shared());
        let (coordinator, sidecar) = runtime.block_on(async {
            let mut settings = CoordinatorSettings::new(home.path());
            settings.keep.last = KEPT;
            let started = Coordinator::start(settings, clock.clone(), metrics.clone(), stop.clone()).await;
            let coordinator = started.expect("the home is new and the port free");
            let link = CoordinatorLink::new(format!("http://{}", coordinator.grpc_addr()));
            let mut settings = SidecarSettings::new(home.path().join("s.sock"), link);
            settings.arenas = memory.path().join("arenas");
            settings.store = Some(store.display().to_string());
            let sidecar = Sidecar::start(settings, clock, metrics, stop.clone()).await;
            (coordinator, sidecar.expect("socket and arenas are new"))
        });
        let store = StoreUrl::local(store).expect("a temporary directory has an absolute path");
        Node { runtime, coordinator, sidecar, stop, home, store, _memory: memory }
    }

    pub fn join(&self, job: &str) -> Trainer<'_> {
        let job: JobName = job.parse().expect("a valid name");
        let options = ConnectOptions {
            job: job.clone(),
            rank: Rank(0),
            world_size: WorldSize(1),
            store: None,
            sockets: vec![self.home.path().join("s.sock")],
            coordinator: None,
            token: None,
            timeout: PATIENCE,
            version: None,
        };
        let session = Session::connect(options, &Uninterrupted).expect("the sidecar answers");
        session.wait_world(Some(PATIENCE), &Uninterrupted).expect("the world is of one");
        Trainer { node: self, session, job }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self
            .runtime
            .block_on(async { self.sidecar.stopped().await.and(self.coordinator.stopped().await) });
        ended.expect("both end in good order");
    }
}

pub struct Trainer<'a> {
    node: &'a Node,
    session: Session,
    job: JobName,
}

impl Trainer<'_> {
    /// Saves and waits for the commit; `cpu` is the whole process's meanwhile.
    pub fn save(&self, step: u64, kind: SaveKind, state: &[Tensor]) -> Saved {
        let tensors: Vec<SourceTensor> = state
            .iter()
            .map(|tensor| SourceTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
                pointer: tensor.bytes.as_ptr(),
                bytes: tensor.bytes.len() as u64,
                replicated: false,
            })
            .collect();
        let tree = b"{}".to_vec();
        let needed = slot_bytes(&tree, &tensors);
        self.session.prepare(needed, None, &Uninterrupted).expect("/dev/shm has room for two slots");
        let request = SaveRequest {
            step: Step(step),
            kind,
            tree,
            tensors,
            ranks: vec![],
            data: vec![],
            metrics_json: String::new(),
            meta_json: String::new(),
        };
        let (started, busy) = (Instant::now(), cpu());
        // SAFETY: the state outlives the call and nobody writes to it.
        let handle = unsafe { self.session.save(request, &Uninterrupted) }.expect("a slot is free");
        let info = handle.wait_committed(Some(PATIENCE), &Uninterrupted).expect("the store takes it");
        let (committed_after, cpu) = (started.elapsed(), cpu().saturating_sub(busy));
        Saved { stored: info.stored_bytes, bytes: info.bytes, committed_after, cpu }
    }

    /// How long the store takes to give a step back, verified, into memory that is there already. Its files are read past
    /// the page cache wherever the file system allows that, so every time is a cold one.
    pub fn restore(&self, step: u64, state: &[Tensor], memory: &mut Vec<u8>) -> Duration {
        let store =
            JobStore::open(&self.node.store, &StoreOptions::default(), &self.job).expect("it is a directory");
        let started = Instant::now();
        let open = store.open_step(Step(step), Rank(0), WorldSize(1), "");
        let open = self.node.runtime.block_on(open).expect("the step is committed");
        memory.resize(open.slot_bytes() as usize + 4096, 0);
        let aligned = memory.as_ptr().align_offset(4096);
        let slot = &mut memory[aligned..][..open.slot_bytes() as usize];
        open.read_into(slot).expect("every byte is what was saved");
        let took = started.elapsed();
        for (tensor, found) in state.iter().zip(&open.index().tensors) {
            assert!(slot[found.offset as usize..][..tensor.bytes.len()] == tensor.bytes, "{}", tensor.name);
        }
        took
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
