//! Restoring: a leased slot as the codec reads it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use strata_core::client::{self, RestoreOptions, RestoredSlot};
use strata_core::error::{Error, Result as CoreResult};
use strata_core::ids::Step;
use strata_core::proto::v1::RestoreSource;

use crate::blocking::blocking;
use crate::errors::Result;
use crate::steps::step_info;

pub fn restore(
    py: Python<'_>,
    session: &client::Session,
    step: Option<u64>,
    only: Option<String>,
    (source, on_damage): (&str, &str),
    timeout: Option<Duration>,
) -> Result<Option<Restore>> {
    let source = match source {
        "committed" => Ok(RestoreSource::Committed),
        "staged" => Ok(RestoreSource::Staged),
        other => Err(Error::invalid(format!("restoring: source={other:?} is unknown"))
            .hint("use \"committed\", or \"staged\" to admit a step that is only in memory")),
    };
    let fall_back = match on_damage {
        "raise" => Ok(false),
        "previous" => Ok(true),
        other => Err(Error::invalid(format!("restoring: on_damage={other:?} is unknown"))
            .hint("use \"raise\", or \"previous\" to fall back to the step before")),
    };
    let options = RestoreOptions {
        step: step.map(Step),
        source: source?,
        fall_back: fall_back?,
        only: only.unwrap_or_default(),
        timeout,
    };
    let slot = blocking(py, |interrupt| session.restore(&options, interrupt))?;
    Ok(slot.map(|slot| Restore { slot: Mutex::new(Some(Arc::new(slot))) }))
}

/// A rank's part of a step, verified, in a leased slot; `release` (or its end) gives the lease back.
#[pyclass(frozen, module = "strata._core")]
pub struct Restore {
    slot: Mutex<Option<Arc<RestoredSlot>>>,
}

impl Restore {
    fn with<T>(&self, read: impl FnOnce(&RestoredSlot) -> CoreResult<T>) -> Result<T> {
        // Not under the lock: copying goes on without the interpreter lock, which other readers hold.
        let slot = self.slot.lock().clone();
        let slot = slot.ok_or_else(|| Error::invalid("reading a restored step: it was released"));
        Ok(slot.and_then(|slot| read(&slot))?)
    }
}

#[pymethods]
impl Restore {
    #[getter]
    fn step(&self) -> Result<u64> {
        self.with(|slot| Ok(slot.step().0))
    }

    #[getter]
    fn committed(&self) -> Result<bool> {
        self.with(|slot| Ok(slot.committed()))
    }

    /// "arena" or "store".
    #[getter]
    fn source(&self) -> Result<String> {
        self.with(|slot| Ok(slot.source().to_owned()))
    }

    /// That this very step was read from a further target, and why.
    #[getter]
    fn notes(&self) -> Result<Vec<String>> {
        self.with(|slot| Ok(slot.notes().to_vec()))
    }

    /// What was found damaged before falling back.
    #[getter]
    fn damaged(&self) -> Result<Vec<String>> {
        self.with(|slot| Ok(slot.damaged().to_vec()))
    }

    /// The step's fields; None for one that is only staged.
    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> Result<Option<Bound<'py, PyAny>>> {
        let info = self.with(|slot| Ok(slot.info().cloned()))?;
        Ok(info.map(|info| step_info(py, &info)).transpose()?)
    }

    /// Where the step's data loading stood: (dataset, epoch, step, batch size, start, version) each.
    #[getter]
    fn data(&self) -> Result<Vec<crate::save::Position>> {
        let info = self.with(|slot| Ok(slot.info().cloned()))?;
        let position = |p: strata_core::proto::v1::DataPosition| {
            (p.dataset, p.epoch, p.step, p.batch_size, p.start, p.version)
        };
        Ok(info.map(|info| info.data.into_iter().map(position).collect()).unwrap_or_default())
    }

    /// The nested state as JSON, tensors replaced by their numbers.
    #[getter]
    fn tree<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyBytes>> {
        self.with(|slot| Ok(PyBytes::new(py, slot.tree())))
    }

    /// Bytes of each tensor.
    fn buffer_bytes(&self) -> Result<Vec<u64>> {
        self.with(|slot| Ok(slot.tensors().iter().map(|tensor| tensor.bytes).collect()))
    }

    /// Copies tensors, each (number, address, bytes), with several threads. The addresses must be writable for so many
    /// bytes, which must be the tensors' own, and overlap nothing.
    fn copy_out(&self, py: Python<'_>, copies: Vec<(usize, usize, u64)>) -> Result<()> {
        self.with(|slot| {
            for (number, _, bytes) in &copies {
                let stored = slot.bytes(*number)?.len() as u64;
                if stored != *bytes {
                    return Err(Error::invalid(format!(
                        "copying restored tensor {number}: it has {stored} bytes, its target {bytes}"
                    )));
                }
            }
            py.detach(|| {
                let targets: Vec<(usize, *mut u8)> =
                    copies.iter().map(|(number, address, _)| (*number, *address as *mut u8)).collect();
                // SAFETY: strata._state allocated every target, of exactly these bytes, and holds it.
                unsafe { slot.copy_out(&targets, None) }
            })
        })
    }

    /// Gives the lease back: the slot may be filled again. Reading it afterwards is InvalidError.
    fn release(&self) {
        self.slot.lock().take();
    }
}
