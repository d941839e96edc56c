//! How a trainer joins.

use std::path::PathBuf;
use std::time::Duration;

use crate::ids::{JobName, Rank, WorldSize};

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
}
