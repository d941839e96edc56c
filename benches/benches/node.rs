//! A coordinator and a sidecar of this process, over the same sockets as ever, and a trainer's session with them: what
//! several benches save through.

use std::path::{Path, PathBuf};
use std::time::Duration;

use strata_core::client::{ConnectOptions, Session, Uninterrupted};
use strata_core::clock::MachineClock;
use strata_core::coordinator::{Coordinator, CoordinatorSettings};
use strata_core::ids::{JobName, Rank, WorldSize};
use strata_core::sidecar::{CoordinatorLink, Sidecar, SidecarSettings};
use strata_core::telemetry::Metrics;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(120);

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
    /// `kept`: newest steps that retention leaves.
    pub fn start(store: &Path, kept: u32) -> Node {
        let runtime = Builder::new_multi_thread().enable_all().build().expect("threads can be started");
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let memory = tempfile::tempdir_in("/dev/shm").expect("/dev/shm takes a directory");
        let (stop, metrics, clock) = (CancellationToken::new(), Metrics::new(), MachineClock::shared());
        let (coordinator, sidecar) = runtime.block_on(async {
            let mut settings = CoordinatorSettings::new(home.path());
            settings.keep.last = kept;
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

    #[allow(dead_code, reason = "one bench alone reads the store itself")]
    pub fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.block_on(call)
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

/// A session of a job of one rank, its world open.
pub fn join(socket: &Path, job: &JobName) -> Session {
    let options = ConnectOptions {
        job: job.clone(),
        rank: Rank(0),
        world_size: WorldSize(1),
        store: None,
        sockets: vec![socket.to_owned()],
        coordinator: None,
        token: None,
        timeout: PATIENCE,
        version: None,
        stacks: None,
    };
    let session = Session::connect(options, &Uninterrupted).expect("the sidecar answers");
    session.wait_world(Some(PATIENCE), &Uninterrupted).expect("the world is of one");
    session
}
