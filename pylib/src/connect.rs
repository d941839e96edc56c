//! Joining a job, and where things are found.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use strata_core::client::{self, ConnectOptions};
use strata_core::config::{Environment, locate};
use strata_core::error::Result as CoreResult;
use strata_core::ids::{JobName, Rank, WorldSize};
use strata_core::storage::StoreUrl;

use crate::blocking::{blocking, seconds};
use crate::errors::Result;
use crate::session::Session;
use crate::stacks::{self, Outside};

/// Joins a job through this node's sidecar.
#[pyfunction]
#[pyo3(signature = (*, job, rank, world_size, store, socket, coordinator, timeout, stacks))]
#[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python call")]
pub fn connect(
    py: Python<'_>,
    job: &str,
    rank: u32,
    world_size: u32,
    store: Option<String>,
    socket: Option<PathBuf>,
    coordinator: Option<String>,
    timeout: f64,
    stacks: Outside,
) -> Result<Session> {
    let timeout = seconds(Some(timeout))?.unwrap_or_default();
    let stacks = stacks::own_stacks(stacks)?;
    let session = blocking(py, |interrupt| {
        let env = Environment::process();
        let mut options = options(&env, job, (rank, world_size), store, (socket, coordinator), timeout)?;
        options.stacks = Some(stacks.clone());
        client::Session::connect(options, interrupt)
    })?;
    Ok(Session::new(session))
}

fn options(
    env: &Environment,
    job: &str,
    (rank, world_size): (u32, u32),
    store: Option<String>,
    (socket, coordinator): (Option<PathBuf>, Option<String>),
    timeout: Duration,
) -> CoreResult<ConnectOptions> {
    // A relative path means a folder of this process, not of the sidecar.
    let store = store.or_else(|| env.text("STRATA_STORE"));
    let store = store.map(|url| url.parse::<StoreUrl>()).transpose()?.map(|url| url.to_string());
    let coordinator = coordinator.or_else(|| env.text("STRATA_COORDINATOR"));
    let coordinator = coordinator.map(|url| locate::coordinator(env, Some(&url))).transpose()?;
    Ok(ConnectOptions {
        job: job.parse()?,
        rank: Rank(rank),
        world_size: WorldSize(world_size),
        store,
        sockets: locate::socket_candidates(env, socket.as_deref()),
        coordinator,
        token: env.text("STRATA_TOKEN"),
        timeout,
        version: env.text("STRATA_TEST_CLIENT_VERSION"),
        stacks: None,
    })
}

/// The socket of this node's sidecar: the named one, or the first of the usual places that answers. Does not wait.
#[pyfunction]
#[pyo3(signature = (socket=None))]
pub fn find_sidecar(py: Python<'_>, socket: Option<PathBuf>) -> Result<PathBuf> {
    blocking(py, |interrupt| {
        let candidates = locate::socket_candidates(&Environment::process(), socket.as_deref());
        client::find_sidecar(&candidates, interrupt)
    })
}

/// The job's name: the argument, STRATA_JOB, or "default".
#[pyfunction]
#[pyo3(signature = (job=None))]
pub fn job_name(job: Option<&str>) -> Result<String> {
    Ok(locate::job(&Environment::process(), job)?.to_string())
}

/// Where a job's private sidecar keeps its state, its socket and its arenas.
#[pyfunction]
pub fn private_places(job: &str) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let job: JobName = job.parse()?;
    let places = locate::private(&Environment::process(), &job)?;
    Ok((places.home, places.socket, places.arenas))
}
