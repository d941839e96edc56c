//! `$STRATA_HOME/endpoint.json`: the addresses in use, written by `up` and `coordinator`, read by every other command.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error, Result};

const FILE: &str = "endpoint.json";

/// The addresses of the coordinator (and its sidecar's socket under `up`) of one state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub schema: u32,
    /// "up" or "coordinator".
    pub role: String,
    pub pid: u32,
    pub version: String,
    /// URL of the gRPC services.
    pub grpc: String,
    /// URL of the HTTP services.
    pub http: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

impl Endpoint {
    /// Of this process, schema 1.
    pub fn of(role: &str, grpc: String, http: String, socket: Option<PathBuf>) -> Endpoint {
        let (pid, version) = (std::process::id(), crate::VERSION.to_owned());
        Endpoint { schema: 1, role: role.to_owned(), pid, version, grpc, http, socket }
    }

    pub fn path(home: &Path) -> PathBuf {
        home.join(FILE)
    }

    /// None when no coordinator has run on this state directory. The process it names may be gone.
    pub fn read(home: &Path) -> Result<Option<Endpoint>> {
        let path = Endpoint::path(home);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("reading {}", path.display()), &error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::corrupt(format!("reading {}: {error}", path.display()))
                .hint("remove it, or start the coordinator again: it writes a new one")
        })
    }

    /// Atomic: a reader sees the old file or the new one. Not synced: it is of use only while the process lives.
    pub fn write(&self, home: &Path) -> Result<()> {
        let path = Endpoint::path(home);
        let fresh = home.join(format!("{FILE}.{}", self.pid));
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers always serialise");
        text.push(b'\n');
        let write = || {
            std::fs::File::create(&fresh)?.write_all(&text)?;
            std::fs::rename(&fresh, &path)
        };
        write().doing(|| format!("writing {}", path.display()))
    }

    /// At a clean end: removes the file unless another process has written its own since.
    pub fn remove(&self, home: &Path) -> Result<()> {
        if Endpoint::read(home)?.is_some_and(|found| found.pid == self.pid) {
            let path = Endpoint::path(home);
            std::fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}
