//! A real coordinator and a real sidecar in this process, and trainers that reach them through the client.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod process;
pub mod raw;
pub mod trainer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use strata_core::clock::MachineClock;
use strata_core::coordinator::{Coordinator, CoordinatorSettings};
use strata_core::error::Result;
use strata_core::proto::v1;
use strata_core::sidecar::{CoordinatorLink, Sidecar, SidecarSettings};
use strata_core::telemetry::Metrics;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub use trainer::{State, Trainer};

/// Long enough for a loaded machine; a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    runtime: Runtime,
    home: TempDir,
    /// In memory, as arenas are.
    memory: TempDir,
    store: TempDir,
    coordinator: Option<(Coordinator, CancellationToken)>,
    address: Option<SocketAddr>,
    pub sidecar: Option<Sidecar>,
    stop: CancellationToken,
    pub metrics: Arc<Metrics>,
    tune: Tune,
}

/// What a test wants otherwise.
pub struct Tune {
    pub coordinator: fn(&mut CoordinatorSettings),
    pub sidecar: fn(&mut SidecarSettings),
}

impl Default for Tune {
    fn default() -> Tune {
        Tune { coordinator: |_| (), sidecar: |_| () }
    }
}

impl Cluster {
    pub fn start() -> Cluster {
        Cluster::tuned(Tune::default())
    }

    pub fn tuned(tune: Tune) -> Cluster {
        let mut cluster = Cluster {
            runtime: Runtime::new().unwrap(),
            home: tempfile::tempdir().unwrap(),
            memory: tempfile::tempdir_in("/dev/shm").unwrap(),
            store: tempfile::tempdir().unwrap(),
            coordinator: None,
            address: None,
            sidecar: None,
            stop: CancellationToken::new(),
            metrics: Metrics::new(),
            tune,
        };
        cluster.start_coordinator();
        cluster.start_sidecar();
        cluster
    }

    pub fn start_coordinator(&mut self) {
        let mut settings = CoordinatorSettings::new(self.home.path());
        settings.listen = self.address.unwrap_or(settings.listen);
        (self.tune.coordinator)(&mut settings);
        let stop = CancellationToken::new();
        let started = Coordinator::start(settings, MachineClock::shared(), Metrics::new(), stop.clone());
        let running = self.runtime.block_on(started).unwrap();
        self.address = Some(running.grpc_addr());
        self.coordinator = Some((running, stop));
    }

    pub fn stop_coordinator(&mut self) {
        let Some((running, stop)) = self.coordinator.take() else { return };
        stop.cancel();
        self.runtime.block_on(running.stopped()).unwrap();
    }

    pub fn coordinator_status(&self) -> v1::Status {
        self.block(self.coordinator.as_ref().unwrap().0.status()).unwrap()
    }

    pub fn settings(&self) -> SidecarSettings {
        let url = format!("http://{}", self.address.expect("the coordinator was started"));
        let mut settings = SidecarSettings::new(self.socket(), CoordinatorLink::new(url));
        settings.arenas = self.arenas();
        settings.store = Some(self.store().display().to_string());
        settings.host = "here".into();
        (self.tune.sidecar)(&mut settings);
        settings
    }

    pub fn try_sidecar(&self, settings: SidecarSettings, stop: &CancellationToken) -> Result<Sidecar> {
        let started = Sidecar::start(settings, MachineClock::shared(), self.metrics.clone(), stop.clone());
        self.runtime.block_on(started)
    }

    pub fn start_sidecar(&mut self) {
        self.stop = CancellationToken::new();
        self.sidecar = Some(self.try_sidecar(self.settings(), &self.stop).unwrap());
    }

    /// The sidecar of another node: its own socket and arenas, the same coordinator and store.
    pub fn other_node(&self, store: &Path) -> OtherNode {
        let (stop, mut settings) = (CancellationToken::new(), self.settings());
        settings.socket = self.home.path().join("other/sidecar.sock");
        settings.arenas = self.memory.path().join("other-arenas");
        settings.store = Some(store.display().to_string());
        settings.host = "there".into();
        let socket = settings.socket.clone();
        let sidecar = self.try_sidecar(settings, &stop).unwrap();
        OtherNode { socket, _stop: stop.drop_guard(), _sidecar: sidecar }
    }

    /// As a kill does: nothing is said, nothing finished.
    pub fn stop_sidecar(&mut self) {
        self.stop.cancel();
        if let Some(sidecar) = self.sidecar.take() {
            self.runtime.block_on(sidecar.stopped()).unwrap();
        }
    }

    pub fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn socket(&self) -> PathBuf {
        self.home.path().join("s/sidecar.sock")
    }

    pub fn arenas(&self) -> PathBuf {
        self.memory.path().join("arenas")
    }

    pub fn store(&self) -> PathBuf {
        self.store.path().join("checkpoints")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address.unwrap())
    }

    pub fn arena_files(&self) -> Vec<PathBuf> {
        files(&self.arenas(), "arena")
    }
}

pub struct OtherNode {
    pub socket: PathBuf,
    _stop: tokio_util::sync::DropGuard,
    _sidecar: Sidecar,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop_sidecar();
        self.stop_coordinator();
    }
}

pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Waits for what is asked of the whole system.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < until, "never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
