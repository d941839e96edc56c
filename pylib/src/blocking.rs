//! Calls that block: without the interpreter lock, and ended by Ctrl-C.

use parking_lot::Mutex;
use pyo3::prelude::*;
use strata_core::client::Interrupt;
use strata_core::error::Error;

use crate::errors::Result;

/// Runs Python's signal handlers; what one raises (KeyboardInterrupt) is kept for the caller.
#[derive(Default)]
struct Signals(Mutex<Option<PyErr>>);

impl Interrupt for Signals {
    fn check(&self) -> std::result::Result<(), Error> {
        Python::attach(|py| py.check_signals()).map_err(|raised| {
            *self.0.lock() = Some(raised);
            Error::cancelled("a signal handler raised an exception")
        })
    }
}

/// Runs `call` without the interpreter lock. When a signal handler raises meanwhile, the call ends within 50 ms and
/// that exception is raised.
pub fn blocking<T: Send>(
    py: Python<'_>,
    call: impl FnOnce(&dyn Interrupt) -> std::result::Result<T, Error> + Send,
) -> Result<T> {
    let signals = Signals::default();
    let outcome = py.detach(|| call(&signals));
    match signals.0.into_inner() {
        Some(raised) => Err(raised.into()),
        None => Ok(outcome?),
    }
}
