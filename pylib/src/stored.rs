//! A job's committed steps read from its store alone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use strata_core::checkpoint::{Fault, Holders, Mending, RepairMode, Report};
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
        let report = reporting(progress);
        let read = blocking(py, |interrupt| self.0.verify(Step(step), report, interrupt))?;
        Ok((read.objects, read.chunks, read.bytes))
    }
}

/// Tells `progress` now and then how far reading has come.
fn reporting(progress: Py<PyAny>) -> impl Fn(&Report, &Report) + Send + Sync + 'static {
    let told = AtomicU64::new(0);
    move |read: &Report, all: &Report| {
        let before = told.load(Ordering::Relaxed);
        let due = read.bytes >= before + REPORT_EVERY;
        if due && told.compare_exchange(before, read.bytes, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // A display that fails is its own matter: what is read stays read.
            let _ = Python::try_attach(|py| progress.call1(py, (read.bytes, all.bytes)).map(drop));
        }
    }
}

/// (store's URL, object, what is wrong, what came of it: "repaired", "repairable" or "lost", why it is lost)
type Told = (String, String, String, &'static str, Option<String>);

fn told(fault: Fault) -> Told {
    let (outcome, why) = match fault.mending {
        Mending::Done => ("repaired", None),
        Mending::Possible => ("repairable", None),
        Mending::Lost(why) => ("lost", Some(why)),
    };
    (fault.place, fault.object, fault.problem, outcome, why)
}

fn mode(dry_run: bool) -> RepairMode {
    if dry_run { RepairMode::DryRun } else { RepairMode::Write }
}

/// All places of a job, to rebuild in each what the others still have.
#[pyclass(frozen)]
pub struct RepairJob(client::RepairJob);

#[pymethods]
impl RepairJob {
    /// `store`: the first one's URL. `targets`: names of configured ones, or URLs; empty: all that are configured.
    #[new]
    #[pyo3(signature = (store, job, targets, *, config=None))]
    fn open(store: &str, job: &str, targets: Vec<String>, config: Option<PathBuf>) -> Result<RepairJob> {
        show_warnings()?;
        let config = Loaded::load(&Environment::process(), config.as_deref(), &[])?.config;
        let own = StoreOptions::from(&config.store);
        let mut places = vec![(store.parse::<StoreUrl>()?, own.clone())];
        let configured = |name: &str| config.targets.iter().find(|target| target.name() == name);
        let all = || config.targets.iter().map(|target| target.name().to_owned()).collect();
        let named: Vec<String> = if targets.is_empty() { all() } else { targets };
        for name in named {
            let (url, options) = match configured(&name) {
                Some(target) => (target.url.as_str(), StoreOptions::from(&target.reached_as(&config.store))),
                None => (name.as_str(), own.clone()),
            };
            // One limit of memory for all of them.
            places.push((url.parse()?, StoreOptions { buffers: own.buffers.clone(), ..options }));
        }
        Ok(RepairJob(client::RepairJob::open(&places, &job.parse::<JobName>()?)?))
    }

    /// Every step that has a COMMIT in any place, ascending.
    fn steps(&self, py: Python<'_>) -> Result<Vec<u64>> {
        let steps = blocking(py, |interrupt| self.0.steps(interrupt))?;
        Ok(steps.into_iter().map(|step| step.0).collect())
    }

    /// What is wrong with OWNER in any place, and what came of it.
    fn owners(&self, py: Python<'_>, dry_run: bool) -> Result<Vec<Told>> {
        let faults = blocking(py, |interrupt| self.0.repair_owners(mode(dry_run), interrupt))?;
        Ok(faults.into_iter().map(told).collect())
    }

    /// What is wrong with a step in any place, and what came of it. `named`: the first store is to have it.
    fn step(
        &self,
        py: Python<'_>,
        step: u64,
        named: bool,
        dry_run: bool,
        progress: Py<PyAny>,
    ) -> Result<Vec<Told>> {
        let holders = if named { Holders::AndFirst } else { Holders::WithCommit };
        let report = reporting(progress);
        let repair = |interrupt: &dyn client::Interrupt| {
            self.0.repair(Step(step), holders, mode(dry_run), report, interrupt)
        };
        Ok(blocking(py, repair)?.faults.into_iter().map(told).collect())
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
