//! `strata._core`: the Python face of strata-core. Here: argument conversion, release of the interpreter lock, error
//! conversion. The executable registers the module as a built-in one, the wheel carries it as an extension.

mod blocking;
mod config;
mod errors;

use pyo3::prelude::*;

#[pymodule]
pub mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::config::{config_check, config_default, config_example, config_show};

    /// The version of this build.
    #[pyfunction]
    fn version() -> &'static str {
        strata_core::VERSION
    }
}
