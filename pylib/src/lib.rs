//! `strata._core`: the Python face of strata-core. Here: argument conversion, release of the interpreter lock, error
//! conversion. The executable registers the module as a built-in one, the wheel carries it as an extension.

use pyo3::prelude::*;

#[pymodule]
pub mod _core {
    use pyo3::prelude::*;

    /// The version of this build.
    #[pyfunction]
    fn version() -> &'static str {
        strata_core::VERSION
    }
}
