//! Errors of the core as the exceptions of `strata.errors`: the one place where they are converted.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use strata_core::error::Error;

/// What a function of this module ends with: an error of the core, or one that Python raised.
pub enum Raised {
    Core(Error),
    Python(PyErr),
}

pub type Result<T> = std::result::Result<T, Raised>;

impl From<Error> for Raised {
    fn from(error: Error) -> Raised {
        Raised::Core(error)
    }
}

impl From<PyErr> for Raised {
    fn from(error: PyErr) -> Raised {
        Raised::Python(error)
    }
}

impl From<Raised> for PyErr {
    fn from(raised: Raised) -> PyErr {
        match raised {
            Raised::Core(error) => Python::attach(|py| exception(py, &error)),
            Raised::Python(error) => error,
        }
    }
}

/// `strata.errors.from_kind(kind, message, hint, retry_after)`.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    static FROM_KIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let retry_after = error.retry_after.map(|after| after.as_secs_f64());
    let made = FROM_KIND
        .import(py, "strata.errors", "from_kind")
        .and_then(|from_kind| from_kind.call1((error.kind.name(), &error.message, &error.hint, retry_after)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(broken) => broken,
    }
}
