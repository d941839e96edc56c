//! Committed steps as Python reads them.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_core::proto::v1;

/// A step as the fields of `strata.StepInfo`; the hooks get the same from the coordinator.
pub fn step_info<'py>(py: Python<'py>, info: &v1::StepInfo) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("step", info.step)?;
    fields.set_item("generation", info.generation)?;
    fields.set_item("kind", info.kind().as_str_name().trim_start_matches("SAVE_KIND_"))?;
    fields.set_item("world_size", info.world_size)?;
    fields.set_item("bytes", info.bytes)?;
    fields.set_item("stored_bytes", info.stored_bytes)?;
    fields.set_item("committed_unix_ms", info.committed_unix_ms)?;
    fields.set_item("pinned", info.pinned)?;
    fields.set_item("base_steps", &info.base_steps)?;
    fields.set_item("metrics", parsed(py, &info.metrics_json)?)?;
    fields.set_item("meta", parsed(py, &info.meta_json)?)?;
    Ok(fields)
}

/// The user's own JSON; text that is none is passed as text.
fn parsed<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    if text.is_empty() {
        return Ok(py.None().into_bound(py));
    }
    py.import("json")?.getattr("loads")?.call1((text,)).or_else(|_| Ok(text.into_pyobject(py)?.into_any()))
}
