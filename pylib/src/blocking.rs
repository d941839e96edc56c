//! Calls that block: without the interpreter lock, and ended by Ctrl-C or a cancelled token.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use strata_core::client::Interrupt;
use strata_core::error::Error;

use crate::errors::Result;

/// Runs Python's signal handlers; what one raises (KeyboardInterrupt) is kept for the caller.
struct Signals {
    cancelled: Option<Arc<AtomicBool>>,
    raised: Mutex<Option<PyErr>>,
}

impl Interrupt for Signals {
    fn check(&self) -> std::result::Result<(), Error> {
        if self.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::cancelled("the call was cancelled; its outcome is unknown"));
        }
        // None: the interpreter is shutting down, and nobody waits for this call any more.
        let handled = Python::try_attach(|py| py.check_signals());
        handled.unwrap_or(Ok(())).map_err(|raised| {
            *self.raised.lock() = Some(raised);
            Error::cancelled("a signal handler raised an exception")
        })
    }
}

/// Runs `call` without the interpreter lock. When a signal handler raises meanwhile, the call ends within 50 ms and
/// that exception is raised; when the thread's token is cancelled, `asyncio.CancelledError` is.
pub fn blocking<T: Send>(
    py: Python<'_>,
    call: impl FnOnce(&dyn Interrupt) -> std::result::Result<T, Error> + Send,
) -> Result<T> {
    let signals = Signals { cancelled: BOUND.with_borrow(Clone::clone), raised: Mutex::default() };
    let outcome = py.detach(|| call(&signals));
    match signals.raised.into_inner() {
        Some(raised) => Err(raised.into()),
        None => Ok(outcome?),
    }
}

thread_local! {
    static BOUND: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Ends the blocking calls of one thread: how an awaited call is cancelled.
#[pyclass(frozen, module = "strata._core")]
pub struct CancelToken {
    flag: Arc<AtomicBool>,
}

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> CancelToken {
        CancelToken { flag: Arc::default() }
    }

    /// From now on the calling thread's blocking calls end when `cancel` is called.
    fn bind(&self) {
        BOUND.set(Some(self.flag.clone()));
    }

    fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }
}

/// A time-out in seconds as Python gives it; None is the job's budget. Invalid for a negative one.
pub fn seconds(timeout: Option<f64>) -> std::result::Result<Option<Duration>, Error> {
    // Infinity is a way to say "no limit"; Duration has none, a year is as good.
    let year = 366.0 * 86_400.0;
    let read = timeout.map(|given| (given, Duration::try_from_secs_f64(given.min(year))));
    match read {
        None => Ok(None),
        Some((_, Ok(timeout))) => Ok(Some(timeout)),
        Some((given, Err(_))) => {
            Err(Error::invalid(format!("reading timeout={given}: not a number of seconds from 0 up"))
                .hint("give seconds, or None for the job's own time-out"))
        }
    }
}
