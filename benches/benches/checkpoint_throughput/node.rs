//! The whole way: a trainer's session over the Unix socket, a sidecar, a coordinator with its log, and the store. All of
//! it in this process, over the same sockets as ever.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use strata_core::client::{
    ConnectOptions, RestoreOptions, SaveRequest, Session, SourceTensor, Uninterrupted, slot_bytes,
};
use strata_core::clock::MachineClock;
use strata_core::coordinator::{Coordinator, CoordinatorSettings};
use strata_core::ids::{Rank, Step, WorldSize};
use strata_core::proto::v1::SaveKind;
use strata_core::sidecar::{CoordinatorLink, Sidecar, SidecarSettings};
use strata_core::telemetry::Metrics;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::rank::TENSOR;

/// Newest steps that retention keeps: what a run leaves behind stays small.
const KEPT: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

/// Coordinator and sidecar of one machine.
pub struct Node {
    runtime: Runtime,
    coordinator: Coordinator,
    sidecar: Sidecar,
    stop: CancellationToken,
    home: tempfile::TempDir,
    _memory: tempfile::TempDir,
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
        Node { runtime, coordinator, sidecar, stop, home, _memory: memory }
    }

    pub fn socket(&self) -> PathBuf {
        self.home.path().join("s.sock")
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

pub struct Trainer {
    session: Session,
    state: Vec<u8>,
    step: u64,
}

impl Trainer {
    /// A job of one rank, its world open and its arena made for a state of `bytes`.
    pub fn join(socket: &Path, bytes: usize) -> Trainer {
        let options = ConnectOptions {
            job: format!("node-{bytes}").parse().expect("a valid name"),
            rank: Rank(0),
            world_size: WorldSize(1),
            store: None,
            sockets: vec![socket.to_owned()],
            coordinator: None,
            token: None,
            timeout: PATIENCE,
            version: None,
        };
        let session = Session::connect(options, &Uninterrupted).expect("the sidecar answers");
        session.wait_world(Some(PATIENCE), &Uninterrupted).expect("the world is of one");
        let mut state = vec![0; bytes];
        StdRng::seed_from_u64(bytes as u64).fill(&mut state[..]);
        let mut trainer = Trainer { session, state, step: 0 };
        let needed = slot_bytes(&trainer.request().tree, &trainer.request().tensors);
        trainer.session.prepare(needed, None, &Uninterrupted).expect("/dev/shm has room for two slots");
        // The first save through a mapping pays for its pages.
        trainer.save();
        trainer
    }

    fn request(&self) -> SaveRequest {
        let tensor = |(number, part): (usize, &[u8])| SourceTensor {
            name: format!("model.{number}"),
            dtype: "uint8".into(),
            shape: vec![part.len() as u64],
            pointer: part.as_ptr(),
            bytes: part.len() as u64,
            replicated: false,
        };
        SaveRequest {
            step: Step(self.step),
            kind: SaveKind::Full,
            tree: b"{}".to_vec(),
            tensors: self.state.chunks(TENSOR).enumerate().map(tensor).collect(),
            ranks: vec![],
            data: vec![],
            metrics_json: String::new(),
            meta_json: String::new(),
        }
    }

    /// How long the caller was blocked, and how long until the step was committed.
    pub fn save(&mut self) -> (Duration, Duration) {
        self.step += 1;
        let request = self.request();
        let started = Instant::now();
        // SAFETY: the state outlives the call and nobody writes to it.
        let handle = unsafe { self.session.save(request, &Uninterrupted) }.expect("a slot is free");
        let blocked = started.elapsed();
        handle.wait_committed(Some(PATIENCE), &Uninterrupted).expect("the store takes it");
        (blocked, started.elapsed())
    }

    /// The newest step, verified, as views over the arena.
    pub fn restore(&mut self) -> Duration {
        let options = RestoreOptions { timeout: Some(PATIENCE), ..Default::default() };
        let started = Instant::now();
        let slot = self.session.restore(&options, &Uninterrupted).expect("the step is whole");
        let slot = slot.expect("a step is committed");
        let took = started.elapsed();
        let first = slot.bytes(0).expect("it has a tensor");
        assert!(self.state.starts_with(&first[..first.len().min(4096)]), "what was saved comes back");
        took
    }
}
