//! A rank that speaks to the coordinator itself, and the coordinator's datasets: what `dtruntime` stands on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use strata_core::client::ClientTls;
use strata_core::client::direct::{self, Line, ShardRequest, WorkerOptions};
use strata_core::config::{Environment, Loaded, locate};
use strata_core::data::resolve;
use strata_core::ids::{Generation, Rank, WorldSize};

use crate::blocking::{blocking, seconds};
use crate::data::{self, Counts, Shape};
use crate::errors::Result;

/// The way to one coordinator, with TLS as [sidecar] configures it. Nothing is dialled before the first call.
#[pyclass(frozen, module = "strata._core")]
pub struct CoordinatorLine {
    line: Arc<Line>,
}

#[pymethods]
impl CoordinatorLine {
    #[new]
    fn new(url: &str) -> Result<CoordinatorLine> {
        let env = Environment::process();
        let settings = Loaded::load(&env, None, &[])?.config.sidecar;
        let tls = ClientTls { authority: settings.tls_ca, identity: settings.tls_cert.zip(settings.tls_key) };
        let url = locate::coordinator(&env, Some(url))?;
        Ok(CoordinatorLine { line: Arc::new(Line::open(&url, tls)?) })
    }

    #[getter]
    fn url(&self) -> &str {
        self.line.url()
    }

    /// The cluster's uuid; UnavailableError when the coordinator does not answer within `timeout` seconds.
    fn cluster(&self, py: Python<'_>, timeout: f64) -> Result<String> {
        let timeout = seconds(Some(timeout))?.unwrap_or_default();
        blocking(py, |interrupt| self.line.cluster(timeout, interrupt))
    }

    /// Registers a rank, without waiting for the others.
    #[pyo3(signature = (*, job, rank, world_size, worker_id, ip, port, timeout))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python call")]
    fn join(
        &self,
        py: Python<'_>,
        job: &str,
        rank: u32,
        world_size: u32,
        worker_id: String,
        ip: String,
        port: u16,
        timeout: f64,
    ) -> Result<DirectWorker> {
        let timeout = seconds(Some(timeout))?.unwrap_or_default();
        let (rank, world_size) = (Rank(rank), WorldSize(world_size));
        let (job, token) = (job.parse()?, token());
        let options = WorkerOptions { job, rank, world_size, worker_id, ip, port, token };
        let joined = blocking(py, |interrupt| {
            direct::DirectWorker::join(self.line.clone(), options, timeout, interrupt)
        });
        Ok(DirectWorker { worker: joined? })
    }

    fn datasets(&self, job: &str, timeout: f64) -> Result<Datasets> {
        let timeout = seconds(Some(timeout))?.unwrap_or_default();
        let registry = direct::DatasetRegistry::new(self.line.clone(), job.parse()?, token());
        Ok(Datasets { registry, timeout })
    }
}

/// As `strata.connect` finds it.
fn token() -> Option<String> {
    Environment::process().text("STRATA_TOKEN")
}

/// One rank's membership; its lease is kept by a thread of the core.
#[pyclass(frozen, module = "strata._core")]
pub struct DirectWorker {
    worker: direct::DirectWorker,
}

#[pymethods]
impl DirectWorker {
    /// Of the open generation; 0 while it is not known to be open, and after its end.
    #[getter]
    fn generation(&self) -> Result<u64> {
        Ok(self.worker.generation()?.0)
    }

    /// Returns when the declared world is complete: the generation's number.
    #[pyo3(signature = (timeout=None))]
    fn wait_world(&self, py: Python<'_>, timeout: Option<f64>) -> Result<u64> {
        let timeout = seconds(timeout)?;
        Ok(blocking(py, |interrupt| self.worker.wait_world(timeout, interrupt))?.0)
    }

    #[pyo3(signature = (name, timeout=None))]
    fn barrier(&self, py: Python<'_>, name: &str, timeout: Option<f64>) -> Result<()> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.worker.barrier(name, timeout, interrupt))
    }

    /// Leaves in good order; leaving again does nothing.
    #[pyo3(signature = (timeout=None))]
    fn leave(&self, py: Python<'_>, timeout: Option<f64>) -> Result<()> {
        let timeout = seconds(timeout)?;
        blocking(py, |interrupt| self.worker.leave(timeout, interrupt))
    }
}

/// A job's datasets at its coordinator.
#[pyclass(frozen, module = "strata._core")]
pub struct Datasets {
    registry: direct::DatasetRegistry,
    timeout: Duration,
}

/// (id, start, stop, [(path, first row, row after the last)])
type Shard = (u64, u64, u64, Vec<(PathBuf, u64, u64)>);

#[pymethods]
impl Datasets {
    /// Scans the path where it can be read, and makes the dataset known: the path as it is registered.
    #[pyo3(signature = (id, *, path, format, total_samples, shard_size, shuffle, seed, dtype, sample_len))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python call")]
    fn register(
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
    ) -> Result<String> {
        let shape = Shape { path, format, dtype, sample_len, columns: Vec::new(), on_damage: "raise" };
        let counts = Counts { total_samples, shard_size, shuffle, seed };
        let spec = blocking(py, |interrupt| {
            let (asked, on_damage) = data::asked(id, shape, counts)?;
            self.registry.register(resolve(asked, on_damage)?.0, self.timeout, interrupt)
        })?;
        Ok(spec.path)
    }

    /// The path that a dataset was registered with.
    fn path(&self, py: Python<'_>, id: &str) -> Result<String> {
        Ok(blocking(py, |interrupt| self.registry.spec(id, self.timeout, interrupt))?.path)
    }

    /// One rank's shards of an epoch. Without a world size the open generation's is taken, and waited for.
    #[pyo3(signature = (id, *, rank, epoch, world_size, generation))]
    fn shards(
        &self,
        py: Python<'_>,
        id: &str,
        rank: u32,
        epoch: u64,
        world_size: Option<u32>,
        generation: Option<u64>,
    ) -> Result<Vec<Shard>> {
        let wanted = ShardRequest {
            rank: Rank(rank),
            epoch,
            world_size: world_size.map(WorldSize),
            generation: generation.map(Generation),
        };
        let reply = blocking(py, |interrupt| self.registry.shards(id, wanted, self.timeout, interrupt))?;
        let file =
            |file: strata_core::proto::v1::ShardFile| (file.path.into(), file.row_start, file.row_stop);
        let shards = reply.shards.into_iter();
        Ok(shards.map(|s| (s.id, s.start, s.stop, s.files.into_iter().map(file).collect())).collect())
    }
}
