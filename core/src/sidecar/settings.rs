//! What a sidecar is started with; the configuration maps its keys to this.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::peer::DeathProof;
use super::state::Job;
use crate::checkpoint::Takeover;
use crate::config::locate;
use crate::handoff::{ArenaDirectory, MachineMemory, MemoryBudget};
use crate::proto::v1;
use crate::storage::{StoreOptions, StoreUrl};

#[derive(Clone)]
pub struct SidecarSettings {
    /// The Unix socket trainers connect to.
    pub socket: PathBuf,
    /// Arenas of this process's own user; those of other users, as root, lie beside it.
    pub arenas: PathBuf,
    pub coordinator: CoordinatorLink,
    /// URL of the store for trainers that name none.
    pub store: Option<String>,
    pub store_options: StoreOptions,
    /// Further places of every job's steps.
    pub targets: Vec<TargetSettings>,
    pub takeover: Takeover,
    /// Copies of a rank's state that its arena holds; two at least.
    pub slots: u32,
    pub save_wait: Duration,
    /// After so long a step that the store does not take makes room for newer ones.
    pub commit_timeout: Duration,
    pub arena_ttl: Duration,
    /// Bytes for persisting and restoring, beyond the arenas.
    pub memory_limit: u64,
    pub death_proof: DeathProof,
    pub budget: Arc<dyn MemoryBudget>,
    /// As member lists name this machine.
    pub host: String,
}

/// A further place that every committed step is copied to.
#[derive(Clone, Debug)]
pub struct TargetSettings {
    pub name: String,
    pub url: StoreUrl,
    pub options: StoreOptions,
    /// What it keeps; the coordinator applies it.
    pub keep: v1::KeepRules,
    /// How many steps the first store keeps for it beyond its own rules.
    pub hold: u32,
}

impl TargetSettings {
    /// Everything is kept there, two steps are held for it.
    pub fn new(name: impl Into<String>, url: StoreUrl) -> TargetSettings {
        let (options, keep) = (StoreOptions::default(), v1::KeepRules::default());
        TargetSettings { name: name.into(), url, options, keep, hold: 2 }
    }

    pub(super) fn to_proto(&self) -> v1::Target {
        let (name, url) = (self.name.clone(), self.url.to_string());
        v1::Target { name, url, keep: Some(self.keep.clone()), hold: self.hold }
    }
}

/// Where the coordinator is, and what is shown to it.
#[derive(Clone, Debug)]
pub struct CoordinatorLink {
    /// `http://…` or `https://…`.
    pub url: String,
    /// Authority (PEM) of its certificate; none: the system's.
    pub ca: Option<PathBuf>,
    /// Certificate chain and key (PEM) for a coordinator that asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl CoordinatorLink {
    pub fn new(url: impl Into<String>) -> CoordinatorLink {
        CoordinatorLink { url: url.into(), ca: None, identity: None }
    }
}

impl SidecarSettings {
    /// How long a save of this job waits for a slot.
    pub(super) fn save_wait(&self, job: Option<&Job>) -> Duration {
        job.and_then(|job| job.save_wait).unwrap_or(self.save_wait)
    }

    /// After how long a step of this job that is not committed is late.
    pub(super) fn commit_timeout(&self, job: Option<&Job>) -> Duration {
        job.and_then(|job| job.commit_timeout).unwrap_or(self.commit_timeout)
    }

    /// For this user, with the defaults.
    pub fn new(socket: impl Into<PathBuf>, coordinator: CoordinatorLink) -> SidecarSettings {
        let uid = rustix::process::geteuid().as_raw();
        SidecarSettings {
            socket: socket.into(),
            arenas: ArenaDirectory::default_path(uid),
            coordinator,
            store: None,
            store_options: StoreOptions::default(),
            targets: Vec::new(),
            takeover: Takeover::No,
            slots: 2,
            save_wait: Duration::from_secs(2),
            commit_timeout: Duration::from_secs(300),
            arena_ttl: Duration::from_secs(24 * 3600),
            memory_limit: 256 << 20,
            death_proof: DeathProof::Auto,
            budget: Arc::new(MachineMemory::default()),
            host: locate::host_name(),
        }
    }
}
