//! Restoring: a leased slot as the codec reads it.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use strata_core::client::{self, MappedSlot, RestoreOptions, RestoredSlot};
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
    Ok(slot.map(|slot| Restore { slot: Mutex::new(Some(Arc::new(slot))), mapped: Mutex::default() }))
}

/// A rank's part of a step, verified, in a leased slot; `release` (or its end) gives the lease back.
#[pyclass(frozen, module = "strata._core")]
pub struct Restore {
    slot: Mutex<Option<Arc<RestoredSlot>>>,
    mapped: Mutex<Option<MappedSlot>>,
}

impl Restore {
    fn with<T>(&self, read: impl FnOnce(&RestoredSlot) -> CoreResult<T>) -> Result<T> {
        // Not under the lock: copying goes on without the interpreter lock, which other readers hold.
        Ok(self.held().and_then(|slot| read(&slot))?)
    }

    fn held(&self) -> CoreResult<Arc<RestoredSlot>> {
        self.slot.lock().clone().ok_or_else(|| Error::invalid("reading a restored step: it was released"))
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

    /// Whether views of the slot are left.
    #[getter]
    fn mapped(&self) -> bool {
        self.mapped.lock().as_ref().is_some_and(MappedSlot::is_viewed)
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

    /// These tensors where they lie in the slot, as this process's own memory; None where they are better copied: small
    /// ones, or too little memory for them to become this process's own.
    fn map(&self, py: Python<'_>, tensors: Vec<usize>) -> Result<Option<Vec<Mapped>>> {
        let slot = self.held()?;
        let Some(mapped) = py.detach(|| MappedSlot::new(&slot, &tensors))? else { return Ok(None) };
        let view = |number: &usize| -> CoreResult<Mapped> {
            let (offset, bytes) = (slot.tensors()[*number].offset as usize, slot.bytes(*number)?.len());
            Ok(Mapped { slot: mapped.clone(), offset, bytes })
        };
        let views = tensors.iter().map(view).collect::<CoreResult<Vec<Mapped>>>()?;
        *self.mapped.lock() = Some(mapped);
        Ok(Some(views))
    }

    /// Gives the lease back, at once, or where views are left when all of them are this process's own memory, which a thread
    /// in the background sees to. Reading it afterwards is InvalidError.
    fn release(&self, py: Python<'_>) -> Result<()> {
        let (slot, mapped) = (self.slot.lock().take(), self.mapped.lock().take());
        let begun = mapped.map_or(Ok(()), MappedSlot::own_in_background);
        py.detach(|| drop(slot));
        Ok(begun?)
    }
}

/// A restored tensor's bytes in the arena, as this process's own memory; NumPy and torch use them where they lie. Their views
/// keep all of the slot mapped. One object a tensor: what is saved again is told apart by it.
#[pyclass(frozen, module = "strata._core")]
pub struct Mapped {
    slot: MappedSlot,
    offset: usize,
    bytes: usize,
}

#[pymethods]
impl Mapped {
    fn __len__(&self) -> usize {
        self.bytes
    }

    /// # Safety
    /// Called by the interpreter, with a view to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let Mapped { slot, offset, bytes } = slf.get();
        let (start, length) = (slot.address().wrapping_add(*offset), *bytes as ffi::Py_ssize_t);
        // SAFETY: the view is the interpreter's. It gets a reference to this object, which keeps the memory mapped; Rust
        // code only adds zero to it, atomically.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast::<c_void>(), length, 0, flags) };
        if filled == -1 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }
}
