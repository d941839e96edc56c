//! `strata._core`: the Python face of strata-core. Here: argument conversion, release of the interpreter lock, error
//! conversion; one file a concept. The executable registers the module as a built-in one, the wheel carries it as an
//! extension. Never any logic: what a call does lies in core.

mod blocking;
mod buffer;
mod config;
mod connect;
mod data;
mod direct;
mod errors;
mod inspect;
mod launcher;
mod operator;
mod records;
mod restore;
mod roles;
mod save;
mod session;
mod stacks;
mod staging;
mod steps;
mod stored;
mod table;

use pyo3::prelude::*;

#[pymodule]
pub mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::blocking::CancelToken;
    #[pymodule_export]
    use crate::buffer::Buffer;
    #[pymodule_export]
    use crate::config::{config_check, config_default, config_example, config_show};
    #[pymodule_export]
    use crate::connect::{connect, find_sidecar, job_name, private_places};
    #[pymodule_export]
    use crate::data::{Batches, Share};
    #[pymodule_export]
    use crate::direct::{CoordinatorLine, Datasets, DirectWorker};
    #[pymodule_export]
    use crate::inspect::inspect;
    #[pymodule_export]
    use crate::launcher::{launch, running_sidecar};
    #[pymodule_export]
    use crate::operator::{Operator, has_coordinator};
    #[pymodule_export]
    use crate::records::Records;
    #[pymodule_export]
    use crate::restore::{Mapped, Restore};
    #[pymodule_export]
    use crate::roles::{coordinator, sidecar, up, wait_ready};
    #[pymodule_export]
    use crate::save::SaveHandle;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::stacks::free_signal;
    #[pymodule_export]
    use crate::staging::{ArenaMemory, Staging, fork_shortage};
    #[pymodule_export]
    use crate::stored::{RepairJob, StoredJob, configured_stores};
    #[pymodule_export]
    use crate::table::Table;

    /// The version of this build.
    #[pyfunction]
    fn version() -> &'static str {
        strata_core::VERSION
    }

    /// (wire protocol, versions that this build works with).
    #[pyfunction]
    fn compatibility() -> (u32, String) {
        (strata_core::version::PROTOCOL, strata_core::version::partners())
    }
}
