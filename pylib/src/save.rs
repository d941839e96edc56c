//! Saving: the codec's plan into a slot, and the handle of what becomes of it.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_core::client::{self, SaveRequest, SourceTensor};
use strata_core::error::{Error, Result as CoreResult};
use strata_core::proto::v1;

use crate::blocking::{blocking, seconds};
use crate::errors::Result;
use crate::steps::step_info;

/// (name, dtype, shape, address, bytes, replicated)
pub type Tensor = (String, String, Vec<u64>, usize, u64, bool);
/// (dataset, epoch, step, batch size, start, version)
pub type Position = (String, u64, u64, u64, u64, u64);

pub fn sources(tensors: Vec<Tensor>) -> Vec<SourceTensor> {
    let source = |(name, dtype, shape, address, bytes, replicated): Tensor| SourceTensor {
        name,
        dtype,
        shape,
        pointer: address as *const u8,
        bytes,
        replicated,
    };
    tensors.into_iter().map(source).collect()
}

pub fn kind(name: &str) -> CoreResult<v1::SaveKind> {
    v1::SaveKind::from_str_name(&format!("SAVE_KIND_{name}")).ok_or_else(|| {
        Error::invalid(format!("saving: kind={name:?} is no kind of save"))
            .hint("use strata.FULL, INCREMENTAL, MODEL_ONLY or OPTIMIZER_ONLY")
    })
}

pub fn position((dataset, epoch, step, batch_size, start, version): Position) -> v1::DataPosition {
    v1::DataPosition { dataset, epoch, step, batch_size, start, version }
}

/// A request on its way out of the interpreter lock.
pub struct Request(pub SaveRequest);

// SAFETY: beginning a save reads no pointer.
unsafe impl Send for Request {}

impl Request {
    pub fn run(
        self,
        session: &client::Session,
        interrupt: &dyn client::Interrupt,
    ) -> CoreResult<client::Staging> {
        session.begin_save(self.0, interrupt)
    }
}

/// A step on its way to the store.
#[pyclass(frozen, module = "strata._core")]
pub struct SaveHandle {
    handle: client::SaveHandle,
}

impl SaveHandle {
    pub fn new(handle: client::SaveHandle) -> SaveHandle {
        SaveHandle { handle }
    }
}

#[pymethods]
impl SaveHandle {
    #[getter]
    fn step(&self) -> u64 {
        self.handle.step().0
    }

    /// "filling", "staged", "persisting", "committed", "failed" or "skipped".
    fn state(&self) -> Result<String> {
        Ok(self.handle.state()?.to_string())
    }

    /// Seconds, bytes, and whether the memory was touched for the first time: waited, copy, seal, bytes, cold.
    fn stats<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let stats = self.handle.stats();
        let found = PyDict::new(py);
        found.set_item("waited", stats.waited.as_secs_f64())?;
        found.set_item("copy", stats.copy.as_secs_f64())?;
        found.set_item("seal", stats.seal.as_secs_f64())?;
        found.set_item("bytes", stats.bytes)?;
        found.set_item("cold", stats.cold)?;
        Ok(found)
    }

    #[pyo3(signature = (timeout=None))]
    fn wait_staged(&self, py: Python<'_>, timeout: Option<f64>) -> Result<()> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.handle.wait_staged(timeout, interrupt))
    }

    #[pyo3(signature = (timeout=None))]
    fn wait_committed<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> Result<Bound<'py, PyAny>> {
        let timeout = seconds(timeout)?;
        let info = blocking(py, |interrupt| self.handle.wait_committed(timeout, interrupt))?;
        Ok(step_info(py, &info)?)
    }
}
