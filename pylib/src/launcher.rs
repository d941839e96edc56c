//! `strata run`: the ranks of one node.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use strata_core::client;
use strata_core::config::{Environment, Loaded, locate};
use strata_core::error::Kind;
use strata_core::launcher::{self, LaunchOptions};
use strata_core::telemetry::log;

use crate::blocking::blocking;
use crate::errors::Result;
use crate::roles::duration;

/// The start of an attempt wants the cores for itself.
const STANDBY_AFTER: Duration = Duration::from_secs(10);

/// Runs the ranks to their end; the exit code. `sidecar` is the command that starts one (None: one answers already),
/// `grace` and
/// `grow_after` durations as text, `min_ranks` all of them where it is None. Python's own signal handlers must be off.
#[pyfunction]
#[pyo3(signature = (*, command, ranks, min_ranks, max_restarts, grow_after, standby, log_dir, grace, job, config, socket, sidecar))]
#[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python call")]
pub fn launch(
    py: Python<'_>,
    command: Vec<OsString>,
    ranks: u32,
    min_ranks: Option<u32>,
    max_restarts: u32,
    grow_after: &str,
    standby: bool,
    log_dir: Option<PathBuf>,
    grace: &str,
    job: Option<&str>,
    config: Option<PathBuf>,
    socket: Option<PathBuf>,
    sidecar: Option<Vec<OsString>>,
) -> Result<u8> {
    let env = Environment::process();
    let loaded = Loaded::load(&env, config.as_deref(), &[])?;
    log::start(&loaded.log())?;
    let sockets = locate::socket_candidates(&env, socket.or(loaded.config.sidecar.socket).as_deref());
    let found = sockets.first().filter(|_| sidecar.is_none());
    let options = LaunchOptions {
        command,
        ranks,
        min_ranks: min_ranks.unwrap_or(ranks),
        max_restarts,
        grow_after: duration("--grow-after", grow_after)?,
        standby: standby.then_some(STANDBY_AFTER),
        log_dir,
        grace: duration("--grace", grace)?,
        job: locate::job(&env, job)?,
        environment: found.map(|socket| ("STRATA_SOCKET".into(), socket.into())).into_iter().collect(),
        sockets,
        sidecar,
    };
    Ok(py.detach(|| launcher::run(&options))?)
}

/// The socket of the node's sidecar; None when none answers. Denied when it is another user's.
#[pyfunction]
pub fn running_sidecar(
    py: Python<'_>,
    config: Option<PathBuf>,
    socket: Option<PathBuf>,
) -> Result<Option<PathBuf>> {
    let env = Environment::process();
    let configured = Loaded::load(&env, config.as_deref(), &[])?.config.sidecar.socket;
    let candidates = locate::socket_candidates(&env, socket.or(configured).as_deref());
    blocking(py, |interrupt| match client::find_sidecar(&candidates, interrupt) {
        Err(error) if error.kind == Kind::Unavailable => Ok(None),
        found => found.map(Some),
    })
}
