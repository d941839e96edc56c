//! Committed steps as Python reads them.

use pyo3::prelude::*;
use strata_core::proto::v1;

/// A step as the fields of `strata.StepInfo`: the same JSON that hooks and `strata checkpoints` get, as a dict.
pub fn step_info<'py>(py: Python<'py>, info: &v1::StepInfo) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.getattr("loads")?.call1((info.to_json().to_string(),))
}
