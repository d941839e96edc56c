//! Composition: the roles of the executable as processes: configuration, parts, signals, the lines that are printed.
//! Called by the command line alone; every other room gets what it needs from here.
//! Holds no logic of its own: what a role does lies in its room.

mod check;
mod cluster;
mod coordinator;
mod reload;
mod settings;
mod sidecar;
mod stop;
mod up;
mod wait_ready;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use check::check;
pub use coordinator::coordinator;
pub use sidecar::sidecar;
pub use up::up;
pub use wait_ready::wait_ready;

use crate::config::{Environment, Flag};
use crate::error::{Doing, Result};

/// How a role was asked for.
#[derive(Clone, Debug)]
pub struct RoleOptions {
    pub env: Environment,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Flags that override keys, such as `--port 0` as ":0" over "coordinator.listen".
    pub flags: Vec<Flag>,
    /// The command that runs a hooks file given as its last argument, such as `[exe, "python", "-m", "strata._hooks"]`.
    pub hooks_runner: Vec<String>,
}

/// Says once, at the start, what stands open because that was asked for (P11).
fn warn_of_open_doors(open: &[(&str, SocketAddr)]) {
    if !open.is_empty() {
        let all: Vec<String> = open.iter().map(|(what, listen)| format!("{what} on {listen}")).collect();
        let all = all.join(" and ");
        tracing::warn!("insecure: other machines reach {all} without TLS and without a password");
    }
}

/// Prints the start-up lines: what a user or a script copies from.
fn announce(lines: &[(&str, String)]) {
    let mut text = format!("strata {}\n", crate::VERSION);
    for (name, value) in lines {
        text.push_str(&format!("{name:<6} {value}\n"));
    }
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever started us has closed the pipe; what serves needs no reader.
        tracing::warn!("printing the addresses: {error}");
    }
}

/// One runtime per process, for the life of the role.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().doing(|| "starting the runtime")
}
