//! `strata config`: what is configured, what is wrong with it, and the file that documents it.

use std::path::PathBuf;

use pyo3::prelude::*;
use strata_core::config::{self, Environment, Loaded};
use strata_core::roles;

use crate::errors::{Result, exception};

/// All settings with their origin, as text or as a JSON document.
#[pyfunction]
pub fn config_show(config: Option<PathBuf>, json: bool) -> Result<String> {
    let loaded = Loaded::load(&Environment::process(), config.as_deref(), &[])?;
    Ok(if json { loaded.show_json().to_string() } else { loaded.show() })
}

/// The file that was checked (None: there is none), and everything that is wrong as exceptions that are not raised.
#[pyfunction]
pub fn config_check(py: Python<'_>, config: Option<PathBuf>) -> Result<(Option<PathBuf>, Vec<Py<PyAny>>)> {
    let env = Environment::process();
    let found = roles::check(&env, config.as_deref())?;
    let problems = found.iter().map(|error| exception(py, error).into_value(py).into_any()).collect();
    Ok((config::find_file(&env, config.as_deref())?, problems))
}

/// The commented file that is the reference.
#[pyfunction]
pub fn config_example() -> String {
    config::example()
}

/// The default of `section.key` as text, empty for none; None when there is no such key.
#[pyfunction]
pub fn config_default(key: &str) -> Option<&'static str> {
    let (section, name) = key.split_once('.')?;
    config::find(section, name).map(|spec| spec.default)
}
