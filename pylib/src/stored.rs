//! A job's committed steps read from its store alone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_core::checkpoint::Report;
use strata_core::client;
use strata_core::config::{Environment, Loaded, locate};
use strata_core::ids::{JobName, Step};
use strata_core::storage::{StoreOptions, StoreUrl};

use crate::blocking::blocking;
use crate::errors::{Result, exception};
use crate::inspect::tell;
use crate::operator::show_warnings;

/// How far apart two reports of progress lie, in bytes read: a hundred a second on a fast disk.
const REPORT_EVERY: u64 = 32 << 20;

type Listed = (u64, Option<String>, Option<Py<PyAny>>);

#[pyclass(frozen)]
pub struct StoredJob(client::StoredJob);

#[pymethods]
impl StoredJob {
    /// `store` is a URL; credentials are those of the configuration.
    #[new]
    #[pyo3(signature = (store, job, *, config=None))]
    fn open(store: &str, job: &str, config: Option<PathBuf>) -> Result<StoredJob> {
        show_warnings()?;
        let loaded = Loaded::load(&Environment::process(), config.as_deref(), &[])?;
        let options = StoreOptions::from(&loaded.config.store);
        let (url, job) = (store.parse::<StoreUrl>()?, job.parse::<JobName>()?);
        Ok(StoredJob(client::StoredJob::open(&url, &options, &job)?))
    }

    /// (step, its fields as JSON, or what is wrong with its COMMIT as an exception that is not raised), ascending.
    fn steps(&self, py: Python<'_>) -> Result<Vec<Listed>> {
        let listed = blocking(py, |interrupt| self.0.steps(interrupt))?;
        let told = listed.into_iter().map(|found| match found.commit {
            Ok(commit) => (found.step.0, Some(commit.to_proto().to_json().to_string()), None),
            Err(error) => (found.step.0, None, Some(exception(py, &error).into_value(py).into_any())),
        });
        Ok(told.collect())
    }

    /// `step` (its fields as JSON) and what `inspect::tell` adds.
    fn inspect<'py>(&self, py: Python<'py>, step: u64) -> Result<Bound<'py, PyDict>> {
        let found = blocking(py, |interrupt| self.0.inspect(Step(step), interrupt))?;
        let told = PyDict::new(py);
        told.set_item("step", found.commit.to_proto().to_json().to_string())?;
        tell(&told, found)?;
        Ok(told)
    }

    /// Reads every byte; (objects, chunks, bytes). `progress` is called with the bytes read so far and all there are.
    fn verify(&self, py: Python<'_>, step: u64, progress: Py<PyAny>) -> Result<(u64, u64, u64)> {
        let told = AtomicU64::new(0);
        let report = move |read: &Report, all: &Report| {
            let before = told.load(Ordering::Relaxed);
            let due = read.bytes >= before + REPORT_EVERY;
            if due && told.compare_exchange(before, read.bytes, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                // A display that fails is its own matter: what is verified stays verified.
                let _ = Python::try_attach(|py| progress.call1(py, (read.bytes, all.bytes)).map(drop));
            }
        };
        let read = blocking(py, |interrupt| self.0.verify(Step(step), report, interrupt))?;
        Ok((read.objects, read.chunks, read.bytes))
    }
}

/// The configured store (environment or file), and the one of `strata up` on this machine.
#[pyfunction]
pub fn configured_stores(config: Option<PathBuf>) -> Result<(Option<String>, String)> {
    let env = Environment::process();
    let loaded = Loaded::load(&env, config.as_deref(), &[])?;
    let own = locate::default_store(&locate::home(&env)?);
    Ok((loaded.config.store.url, own.display().to_string()))
}
