//! `strata._embedded`: what Python code can only have inside the executable. Its absence tells the wheel from the executable.

use pyo3::prelude::*;

#[pymodule]
pub mod _embedded {
    use pyo3::prelude::*;
    use pyo3::types::PyBytes;

    use crate::resources;

    /// The wheels of the client package and of what it needs: pairs of file name and content.
    #[pyfunction]
    fn wheels(py: Python<'_>) -> Vec<(&'static str, Bound<'_, PyBytes>)> {
        resources::wheels().map(|(name, content)| (name, PyBytes::new(py, content))).collect()
    }

    /// Names of the modules that the executable carries.
    #[pyfunction]
    fn modules() -> Vec<&'static str> {
        resources::modules().iter().map(|module| module.name).collect()
    }

    #[pymodule_export]
    use crate::finder::{Finder, ResourceReader};
    #[pymodule_export]
    use crate::report::{command_failed, script_failed};
}
