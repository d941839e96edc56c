//! A rank's membership: every call of `strata.Job` that goes to the sidecar.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use strata_core::client::{self, Interrupt, SaveRequest, slot_bytes};
use strata_core::data::{DatasetSpec, OnDamage, resolve};
use strata_core::error::{Kind, Result as CoreResult};
use strata_core::ids::Step;
use strata_core::proto::v1;

use crate::blocking::{blocking, seconds};
use crate::data::{self, Manner, Share};
use crate::errors::Result;
use crate::restore::{self, Restore};
use crate::save::{self, Position, Request, Tensor};
use crate::staging::Staging;
use crate::steps::step_info;

/// One rank's session with its sidecar, from `connect` to `close`.
#[pyclass(frozen, module = "strata._core")]
pub struct Session {
    session: client::Session,
}

impl Session {
    pub fn new(session: client::Session) -> Session {
        Session { session }
    }
}

impl Session {
    /// The dataset that is asked for, where it was registered with the same arguments: another rank has scanned it.
    fn registered(
        &self,
        asked: &DatasetSpec,
        on_damage: OnDamage,
        interrupt: &dyn Interrupt,
    ) -> CoreResult<Option<v1::DatasetSpec>> {
        let known = match self.session.dataset(&asked.id, interrupt) {
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            known => known?,
        };
        Ok(DatasetSpec::try_from(known.clone())?.answers(asked, on_damage).then_some(known))
    }
}

#[pymethods]
impl Session {
    #[getter]
    fn job(&self) -> String {
        self.session.job().to_string()
    }

    #[getter]
    fn rank(&self) -> u32 {
        self.session.rank().0
    }

    #[getter]
    fn world_size(&self) -> u32 {
        self.session.world_size().0
    }

    #[getter]
    fn generation(&self) -> u64 {
        self.session.generation().0
    }

    /// Path of the socket that answered.
    #[getter]
    fn has_ended(&self) -> bool {
        self.session.has_ended()
    }

    #[getter]
    fn socket(&self) -> PathBuf {
        self.session.socket().to_owned()
    }

    /// URL of the job's store.
    #[getter]
    fn store(&self) -> Result<String> {
        Ok(self.session.store()?)
    }

    /// What went wrong in the background since it was last asked.
    fn take_warnings(&self) -> Vec<String> {
        self.session.take_warnings()
    }

    /// Returns when the declared world is complete: the generation's number.
    #[pyo3(signature = (timeout=None))]
    fn wait_world(&self, py: Python<'_>, timeout: Option<f64>) -> Result<u64> {
        let timeout = seconds(timeout)?;
        Ok(blocking(py, |interrupt| self.session.wait_world(timeout, interrupt))?.generation)
    }

    /// Sizes the arena for a state of this layout (addresses are not read) and pre-faults it in the background.
    #[pyo3(signature = (tree, tensors, timeout=None))]
    fn prepare(&self, py: Python<'_>, tree: &[u8], tensors: Vec<Tensor>, timeout: Option<f64>) -> Result<()> {
        let timeout = seconds(timeout)?;
        let bytes = slot_bytes(tree, &save::sources(tensors));
        blocking(py, |interrupt| self.session.prepare(bytes, timeout, interrupt))
    }

    /// Takes a slot for the state; the staging copies into it.
    #[pyo3(signature = (step, kind, tree, tensors, *, ranks, data, metrics, meta))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python call")]
    fn begin_save(
        &self,
        py: Python<'_>,
        step: u64,
        kind: &str,
        tree: Vec<u8>,
        tensors: Vec<Tensor>,
        ranks: Vec<u32>,
        data: Vec<Position>,
        metrics: String,
        meta: String,
    ) -> Result<Staging> {
        let request = Request(SaveRequest {
            step: Step(step),
            kind: save::kind(kind)?,
            tree,
            tensors: save::sources(tensors),
            ranks,
            data: data.into_iter().map(save::position).collect(),
            metrics_json: metrics,
            meta_json: meta,
        });
        Ok(Staging::new(blocking(py, |interrupt| request.run(&self.session, interrupt))?))
    }

    /// Brings the rank's part of a step into a leased slot; None when the job has no step.
    #[pyo3(signature = (step, *, only, source, on_damage, timeout))]
    fn restore(
        &self,
        py: Python<'_>,
        step: Option<u64>,
        only: Option<String>,
        source: &str,
        on_damage: &str,
        timeout: Option<f64>,
    ) -> Result<Option<Restore>> {
        let timeout = seconds(timeout)?;
        restore::restore(py, &self.session, step, only, (source, on_damage), timeout)
    }

    #[pyo3(signature = (name, timeout=None))]
    fn barrier(&self, py: Python<'_>, name: &str, timeout: Option<f64>) -> Result<()> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.session.barrier(name, timeout, interrupt))
    }

    #[pyo3(signature = (step, timeout=None))]
    fn reached_preemption(&self, py: Python<'_>, step: u64, timeout: Option<f64>) -> Result<bool> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.session.reached_preemption(Step(step), timeout, interrupt))
    }

    /// For so many seconds `save` has held training.
    fn saving_held(&self, seconds: f64) {
        self.session.saving_held(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    }

    /// The same of `restore`.
    fn restoring_held(&self, seconds: f64) {
        self.session.restoring_held(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    }

    /// Where the job's time has gone, as fields.
    #[pyo3(signature = (timeout=None))]
    fn goodput<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> Result<Bound<'py, PyAny>> {
        let timeout = seconds(timeout)?;
        let told = blocking(py, |interrupt| self.session.goodput(timeout, interrupt))?;
        Ok(py.import("json")?.getattr("loads")?.call1((serde_json::json!(told).to_string(),))?)
    }

    #[pyo3(signature = (step, timeout=None))]
    fn should_save(&self, py: Python<'_>, step: u64, timeout: Option<f64>) -> Result<bool> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.session.should_save(Step(step), timeout, interrupt))
    }

    /// Tells all ranks that this one is to stop; returns at once.
    fn notify_preemption(&self) -> Result<()> {
        Ok(self.session.notify_preemption()?)
    }

    #[pyo3(signature = (timeout=None))]
    fn latest_step(&self, py: Python<'_>, timeout: Option<f64>) -> Result<Option<u64>> {
        let timeout = seconds(timeout)?;
        let step = blocking(py, |interrupt| self.session.latest_step(timeout, interrupt))?;
        Ok(step.map(|step| step.0))
    }

    /// Every committed step's fields, ascending.
    #[pyo3(signature = (timeout=None))]
    fn all_steps<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> Result<Vec<Bound<'py, PyAny>>> {
        let timeout = seconds(timeout)?;
        let steps = blocking(py, |interrupt| self.session.all_steps(timeout, interrupt))?;
        steps.iter().map(|info| Ok(step_info(py, info)?)).collect()
    }

    #[pyo3(signature = (step, pinned, timeout=None))]
    fn set_pinned(&self, py: Python<'_>, step: u64, pinned: bool, timeout: Option<f64>) -> Result<()> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| match pinned {
            true => self.session.pin(Step(step), timeout, interrupt),
            false => self.session.unpin(Step(step), timeout, interrupt),
        })?;
        Ok(())
    }

    /// Removes a step: bytes freed.
    #[pyo3(signature = (step, force=false, timeout=None))]
    fn delete(&self, py: Python<'_>, step: u64, force: bool, timeout: Option<f64>) -> Result<u64> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.session.delete(Step(step), force, timeout, interrupt))
    }

    /// Scans the path where it can be read, and makes the dataset known to the job: its number of samples, and the files that were
    /// left out, with the reasons.
    #[pyo3(signature = (id, *, path, format, total_samples, shard_size, shuffle, seed, dtype, sample_len, columns, on_damage))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python call")]
    fn register_dataset(
        &self,
        py: Python<'_>,
        id: String,
        path: PathBuf,
        format: &str,
        total_samples: u64,
        shard_size: u64,
        shuffle: bool,
        seed: u64,
        dtype: &str,
        sample_len: u32,
        columns: Vec<String>,
        on_damage: &str,
    ) -> Result<(u64, Vec<(PathBuf, String)>)> {
        let shape = data::Shape { path, format, dtype, sample_len, columns, on_damage };
        let counts = data::Counts { total_samples, shard_size, shuffle, seed };
        let spec = blocking(py, |interrupt| {
            let (asked, on_damage) = data::asked(id, shape, counts)?;
            match self.registered(&asked, on_damage, interrupt)? {
                Some(known) => Ok(known),
                None => self.session.register_dataset(resolve(asked, on_damage)?.0.into(), interrupt),
            }
        })?;
        let left_out = spec.quarantined.into_iter().map(|file| (file.path.into(), file.reason));
        Ok((spec.total_samples, left_out.collect()))
    }

    /// Tells the coordinator of files, each with what is wrong with it, whose samples are left out. Does not wait.
    fn report_damage(&self, dataset: &str, files: Vec<(String, String)>) -> Result<()> {
        Ok(self.session.report_damage(dataset, files)?)
    }

    /// This rank's share of a registered dataset.
    fn share(
        &self,
        py: Python<'_>,
        id: &str,
        batch_size: u64,
        tail: String,
        on_damage: String,
    ) -> Result<Share> {
        let spec = blocking(py, |interrupt| self.session.dataset(id, interrupt))?;
        let (rank, world) = (self.session.rank(), self.session.world_size());
        Ok(Share::of(spec, rank, world, batch_size, Manner { tail, on_damage }))
    }

    /// Leaves the generation in good order.
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> Result<()> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.session.close(timeout, interrupt))
    }
}
