//! The roles of the executable; each call lasts as long as its process.

use std::path::PathBuf;

use pyo3::prelude::*;
use strata_core::config::{Environment, Flag};
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

fn options(
    config: Option<PathBuf>,
    flags: Vec<(String, String, String)>,
    hooks_runner: Vec<String>,
) -> RoleOptions {
    let flags = flags.into_iter().map(|(flag, key, text)| Flag::new(flag, key, text)).collect();
    RoleOptions { env: Environment::process(), config, flags, hooks_runner }
}
