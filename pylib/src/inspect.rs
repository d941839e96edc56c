//! What a step holds, without a sidecar.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_core::checkpoint::{EncodingInfo, Inspection, Piece, Run, TensorInfo};
use strata_core::client;
use strata_core::config::Environment;
use strata_core::ids::Step;

use crate::blocking::blocking;
use crate::errors::Result;
use crate::steps::step_info;

/// (object, offset, bytes).
type Place = (String, u64, u64);
/// (first byte, bytes, encoding, where it is stored, what a delta is to).
type Part = (u64, u64, &'static str, Option<Place>, Option<Place>);
/// (rank, name, dtype, shape, bytes, replicated, changed bytes, pieces).
type Tensor = (u32, String, String, Vec<u64>, u64, bool, Option<u64>, Vec<Part>);

/// What both ways of asking tell of a step, its own fields apart: `tensors`, `before` (the step that changes are counted
/// from) and `encodings`, each (name, state bytes, stored bytes, of them in older steps).
pub fn tell(told: &Bound<'_, PyDict>, found: Inspection) -> Result<()> {
    let place = |run: Run| (run.object, run.offset, run.bytes);
    let part = |p: Piece| (p.at, p.bytes, p.encoding, p.stored.map(place), p.base.map(place));
    let tensor = |t: TensorInfo| -> Tensor {
        let pieces = t.pieces.into_iter().map(part).collect();
        (t.rank.0, t.name, t.dtype, t.shape, t.bytes, t.replicated, t.changed, pieces)
    };
    let encoding = |e: EncodingInfo| (e.name, e.state_bytes, e.stored_bytes, e.older_bytes);
    told.set_item("tensors", found.tensors.into_iter().map(tensor).collect::<Vec<_>>())?;
    told.set_item("before", found.before.map(|step| step.0))?;
    told.set_item("encodings", found.encodings.into_iter().map(encoding).collect::<Vec<_>>())?;
    Ok(())
}

/// `info` (the step's fields) and what `tell` adds.
#[pyfunction]
#[pyo3(signature = (url, step=None))]
pub fn inspect<'py>(py: Python<'py>, url: &str, step: Option<u64>) -> Result<Bound<'py, PyDict>> {
    let found =
        blocking(py, |interrupt| client::inspect(&Environment::process(), url, step.map(Step), interrupt))?;
    let both = PyDict::new(py);
    both.set_item("info", step_info(py, &found.commit.to_proto())?)?;
    tell(&both, found)?;
    Ok(both)
}
