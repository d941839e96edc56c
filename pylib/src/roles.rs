//! The roles of the executable; each call lasts as long as its process.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use strata_core::config::{Environment, Flag, Setting};
use strata_core::error::Error;
use strata_core::ids::JobName;
use strata_core::roles::{self, RoleOptions};

use crate::errors::Result;

/// Runs the coordinator until SIGTERM or SIGINT; the exit code. `flags` are (flag, key, text); `hooks_runner` is the
/// command that runs a hooks file given as its last argument. Python's own signal handlers must be off.
#[pyfunction]
pub fn coordinator(
    py: Python<'_>,
    config: Option<PathBuf>,
    flags: Vec<(String, String, String)>,
    hooks_runner: Vec<String>,
) -> Result<u8> {
    let options = options(config, flags, hooks_runner);
    Ok(py.detach(|| roles::coordinator(&options))?)
}

/// The same for the sidecar of a node; 75 when steps are left that only memory holds.
///
/// `private` names the one job that it serves, until its last trainer is gone.
#[pyfunction]
pub fn sidecar(
    py: Python<'_>,
    config: Option<PathBuf>,
    flags: Vec<(String, String, String)>,
    private: Option<&str>,
) -> Result<u8> {
    let options = options(config, flags, Vec::new());
    let private = private.map(str::parse::<JobName>).transpose()?;
    Ok(py.detach(|| roles::sidecar(&options, private.as_ref()))?)
}

/// The same for coordinator and sidecar in one process.
#[pyfunction]
pub fn up(
    py: Python<'_>,
    config: Option<PathBuf>,
    flags: Vec<(String, String, String)>,
    hooks_runner: Vec<String>,
    private: Option<&str>,
) -> Result<u8> {
    let options = options(config, flags, hooks_runner);
    let private = private.map(str::parse::<JobName>).transpose()?;
    Ok(py.detach(|| roles::up(&options, private.as_ref()))?)
}

/// Waits until this node's sidecar is usable; its socket. `limit` is a duration as text.
#[pyfunction]
pub fn wait_ready(
    py: Python<'_>,
    config: Option<PathBuf>,
    flags: Vec<(String, String, String)>,
    limit: &str,
) -> Result<PathBuf> {
    let limit = duration("--timeout", limit)?;
    let options = options(config, flags, Vec::new());
    Ok(py.detach(|| roles::wait_ready(&options, limit))?)
}

/// A flag's duration, as the configuration reads one.
pub(crate) fn duration(flag: &str, text: &str) -> std::result::Result<Duration, Error> {
    Duration::parse(text).map_err(|problem| {
        Error::invalid(format!("reading {flag} {text:?}: {problem}"))
            .hint(format!("write {}", <Duration as Setting>::WHAT))
    })
}

fn options(
    config: Option<PathBuf>,
    flags: Vec<(String, String, String)>,
    hooks_runner: Vec<String>,
) -> RoleOptions {
    let flags = flags.into_iter().map(|(flag, key, text)| Flag::new(flag, key, text)).collect();
    RoleOptions { env: Environment::process(), config, flags, hooks_runner }
}
