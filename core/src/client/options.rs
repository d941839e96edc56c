//! How a trainer joins.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{JobName, Rank, WorldSize};

/// Tells what this process's threads are doing, or why it can't, within 3 s; called on a thread of its own.
#[derive(Clone)]
pub struct OwnStacks(pub Arc<dyn Fn() -> Result<String, String> + Send + Sync>);

impl fmt::Debug for OwnStacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnStacks")
    }
}

#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub job: JobName,
    pub rank: Rank,
    pub world_size: WorldSize,
    /// URL; None: the sidecar's own.
    pub store: Option<String>,
    /// Paths of sockets, the first that answers is taken.
    pub sockets: Vec<PathBuf>,
    /// URL that the sidecar's coordinator must have; None: any.
    pub coordinator: Option<String>,
    pub token: Option<String>,
    /// For `connect`, and for the client's own reconnecting.
    pub timeout: Duration,
    /// What to call this client's version; None: this build's. Tests claim another.
    pub version: Option<String>,
    /// None: this process does not tell.
    pub stacks: Option<OwnStacks>,
}
