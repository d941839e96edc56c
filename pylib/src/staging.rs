//! A save between its begin and its seal. Which tensors are copied when, and on which thread, `strata._staging` decides.

use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use strata_core::client;
use strata_core::error::Error;
use strata_core::handoff::{ForkedCopy, MachineMemory, Samples, default_threads};

use crate::blocking::blocking;
use crate::errors::Result;
use crate::save::SaveHandle;

/// The right to copy one step's state into shared memory. Dropped before it was sealed, the step is abandoned.
#[pyclass(frozen, module = "strata._core")]
pub struct Staging {
    staging: client::Staging,
    samples: Mutex<Samples>,
    child: Mutex<Option<(ForkedCopy, Vec<usize>)>>,
}

impl Staging {
    pub fn new(staging: client::Staging) -> Staging {
        Staging { staging, samples: Mutex::default(), child: Mutex::default() }
    }

    /// What a failed call means: the save is given up; that the slot was taken back is no error of the call.
    fn attempt<T: Default>(
        &self,
        interrupt: &dyn client::Interrupt,
        call: impl FnOnce() -> std::result::Result<T, Error>,
    ) -> std::result::Result<T, Error> {
        call().or_else(|error| self.staging.give_up(error, interrupt).map(|()| T::default()))
    }
}

#[pymethods]
impl Staging {
    #[getter]
    fn handle(&self) -> SaveHandle {
        SaveHandle::new(self.staging.handle())
    }

    /// For so many seconds a fence has held training.
    fn held(&self, seconds: f64) {
        self.staging.held(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    }

    /// Nothing is left to do: sealed, given up, or none of this rank's bytes are wanted.
    #[getter]
    fn over(&self) -> bool {
        self.staging.is_over()
    }

    /// Copies tensors, by number. What their addresses point to must stay, unchanged, until this returns.
    fn copy(&self, py: Python<'_>, which: Vec<usize>) -> Result<()> {
        blocking(py, |interrupt| {
            // SAFETY: strata._state gave address and length of memory that `hold` keeps alive, and strata._staging
            // keeps those holds until the save is over; that nothing writes there meanwhile is what `save` asks of its
            // caller, and for tensors that are copied later, what their fence sees to.
            self.attempt(interrupt, || unsafe { self.staging.copy(&which, default_threads()) })
        })
    }

    /// Forks a child that copies these tensors as they are now. `join` is called by the same thread.
    fn fork(&self, py: Python<'_>, which: Vec<usize>) -> Result<()> {
        blocking(py, |interrupt| {
            self.attempt(interrupt, || {
                // SAFETY: as for `copy`; shared memory is refused by strata._staging.
                let child = unsafe { self.staging.fork(&which)? };
                *self.child.lock() = child.map(|child| (child, which));
                Ok(())
            })
        })
    }

    /// Waits until the child has copied everything.
    fn join(&self, py: Python<'_>) -> Result<()> {
        let Some((child, which)) = self.child.lock().take() else { return Ok(()) };
        blocking(py, |interrupt| self.attempt(interrupt, || self.staging.join(child, &which)))
    }

    /// The arena's memory, once it has all of it; None where there is nothing to copy.
    fn memory(&self, py: Python<'_>) -> Result<Option<ArenaMemory>> {
        blocking(py, |interrupt| self.attempt(interrupt, || self.staging.memory()))
            .map(|memory| memory.map(|memory| ArenaMemory { memory }))
    }

    /// The addresses where tensors go, by number; none where there is nothing to copy.
    fn targets(&self, which: Vec<usize>) -> Vec<usize> {
        self.staging.targets(&which).into_iter().map(|target| target as usize).collect()
    }

    /// A device has copied these tensors there, in so many seconds.
    fn arrived(&self, py: Python<'_>, which: Vec<usize>, taken: f64) -> Result<()> {
        let taken = std::time::Duration::try_from_secs_f64(taken).unwrap_or_default();
        blocking(py, |interrupt| self.attempt(interrupt, || self.staging.arrived(&which, taken)))
    }

    /// Keeps what these tensors look like in a few places.
    fn sample(&self, py: Python<'_>, which: Vec<usize>) {
        // SAFETY: as for `copy`.
        *self.samples.lock() = py.detach(|| unsafe { self.staging.sample(&which) });
    }

    /// The number of a sampled and copied tensor that has changed meanwhile, in memory or in its copy.
    fn first_changed(&self, py: Python<'_>) -> Option<usize> {
        let samples = self.samples.lock();
        // SAFETY: as for `copy`.
        py.detach(|| unsafe { self.staging.first_changed(&samples) })
    }

    /// From here on the step survives this process.
    fn seal(&self, py: Python<'_>) -> Result<()> {
        blocking(py, |interrupt| self.attempt(interrupt, || self.staging.seal()))
    }

    /// Abandons the step on all ranks; the error is told on the next call, and raised by the handle's waits.
    fn fail(&self, message: String, hint: String) {
        self.staging.fail(Error::invalid(message).hint(hint));
    }
}

/// An arena in this process's memory, for a device's driver to register. Stays mapped as long as this lives.
#[pyclass(frozen, module = "strata._core")]
pub struct ArenaMemory {
    memory: client::ArenaMemory,
}

#[pymethods]
impl ArenaMemory {
    #[getter]
    fn address(&self) -> usize {
        self.memory.address as usize
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.memory.bytes
    }

    /// Nothing else in this process has it any more.
    #[getter]
    fn abandoned(&self) -> bool {
        self.memory.is_abandoned()
    }
}

/// Why there is no memory for a forked child's copies of what changes meanwhile, `bytes` at most; None: there is.
#[pyfunction]
pub fn fork_shortage(py: Python<'_>, bytes: u64) -> Option<String> {
    py.detach(|| MachineMemory::default().room_for_copies(bytes)).err().map(|error| error.message)
}
