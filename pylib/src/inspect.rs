//! What a step holds, without a sidecar.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_core::client;
use strata_core::config::Environment;
use strata_core::ids::Step;

use crate::blocking::blocking;
use crate::errors::Result;
use crate::steps::step_info;

/// `info` (the step's fields) and `tensors`, each (rank, name, dtype, shape, bytes, replicated).
#[pyfunction]
#[pyo3(signature = (url, step=None))]
pub fn inspect<'py>(py: Python<'py>, url: &str, step: Option<u64>) -> Result<Bound<'py, PyDict>> {
    let found =
        blocking(py, |interrupt| client::inspect(&Environment::process(), url, step.map(Step), interrupt))?;
    let tensors = found.tensors.into_iter();
    let tensors: Vec<_> =
        tensors.map(|t| (t.rank.0, t.name, t.dtype, t.shape, t.bytes, t.replicated)).collect();
    let both = PyDict::new(py);
    both.set_item("info", step_info(py, &found.commit.to_proto())?)?;
    both.set_item("tensors", tensors)?;
    Ok(both)
}
