//! What operators ask a coordinator, or a node's sidecar.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use strata_core::client::{self, ClientTls, Place};
use strata_core::config::{Environment, Loaded, locate};
use strata_core::error::Kind;
use strata_core::ids::{JobName, Rank, Step};
use strata_core::proto::v1;
use strata_core::telemetry::{LogFormat, LogSettings, log};

use crate::blocking::blocking;
use crate::errors::Result;

/// A connection for an operator's questions; documents come as JSON text.
#[pyclass(frozen)]
pub struct Operator(client::Operator);

#[pymethods]
impl Operator {
    /// Connects to the coordinator or the socket that is named; without either to the coordinator of this machine's
    /// configuration, else to a sidecar's socket. `timeout` (seconds) is for each later call.
    #[new]
    #[pyo3(signature = (*, config=None, coordinator=None, socket=None, timeout=60.0))]
    fn connect(
        py: Python<'_>,
        config: Option<PathBuf>,
        coordinator: Option<String>,
        socket: Option<PathBuf>,
        timeout: f64,
    ) -> Result<Operator> {
        show_warnings()?;
        let env = Environment::process();
        let settings = Loaded::load(&env, config.as_deref(), &[])?.config.sidecar;
        let coordinator_named = coordinator.is_some();
        let mut places = Vec::new();
        if coordinator_named || socket.is_none() {
            let url = locate::coordinator(&env, coordinator.or(settings.coordinator).as_deref())?;
            places.push(Place::Coordinator(url));
        }
        if !coordinator_named || socket.is_some() {
            let paths = locate::socket_candidates(&env, socket.or(settings.socket).as_deref());
            places.extend(paths.into_iter().map(Place::Socket));
        }
        let identity = settings.tls_cert.zip(settings.tls_key);
        let tls = ClientTls { authority: settings.tls_ca, identity };
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::MAX);
        blocking(py, |interrupt| client::Operator::connect(&places, &tls, timeout, interrupt)).map(Operator)
    }

    /// The address or the socket that answered.
    #[getter]
    fn place(&self) -> String {
        self.0.place().to_string()
    }

    fn status(&self, py: Python<'_>, job: Option<&str>) -> Result<String> {
        let job = job.map(str::parse::<JobName>).transpose()?;
        let status = blocking(py, |interrupt| self.0.status(job.as_ref(), interrupt))?;
        Ok(serde_json::json!(status).to_string())
    }

    fn goodput(&self, py: Python<'_>, job: Option<&str>) -> Result<String> {
        let job = job.map(str::parse::<JobName>).transpose()?;
        let told = blocking(py, |interrupt| self.0.goodput(job.as_ref(), interrupt))?;
        Ok(serde_json::json!(told).to_string())
    }

    /// `ranks`: none: the stalled ones, and where none is all of them.
    fn stacks(&self, py: Python<'_>, job: &str, ranks: Vec<u32>) -> Result<String> {
        let job: JobName = job.parse()?;
        let ranks: Vec<Rank> = ranks.into_iter().map(Rank).collect();
        let told = blocking(py, |interrupt| self.0.stacks(&job, &ranks, interrupt))?;
        Ok(serde_json::json!({ "stacks": told.stacks, "not_asked": told.not_asked }).to_string())
    }

    /// (generation, step) that the ranks have agreed to save at, and with `stop` to stop at.
    fn ask_save(&self, py: Python<'_>, job: &str, stop: bool) -> Result<(u64, u64)> {
        let job: JobName = job.parse()?;
        let agreed = blocking(py, |interrupt| self.0.ask_save(&job, stop, interrupt))?;
        Ok((agreed.generation, agreed.step))
    }

    fn datasets(&self, py: Python<'_>, job: &str) -> Result<String> {
        let job: JobName = job.parse()?;
        let told = blocking(py, |interrupt| self.0.datasets(&job, interrupt))?;
        let damaged = |id: &str| {
            let of_it = told.damaged.iter().filter(|file| file.dataset == id);
            serde_json::Value::from_iter(of_it.map(v1::DamagedFile::to_json))
        };
        let shown = told.datasets.iter().map(|dataset| {
            let mut shown = dataset.to_json();
            shown["damaged"] = damaged(&dataset.id);
            shown
        });
        Ok(serde_json::Value::from_iter(shown).to_string())
    }

    fn steps(&self, py: Python<'_>, job: &str) -> Result<String> {
        let job: JobName = job.parse()?;
        let steps = blocking(py, |interrupt| self.0.steps(&job, interrupt))?;
        Ok(serde_json::Value::from_iter(steps.iter().map(|step| step.to_json())).to_string())
    }

    /// `holder`: work that needs the step meanwhile, and takes back its own pin alone.
    #[pyo3(signature = (job, step, pinned, holder=""))]
    fn set_pinned(&self, py: Python<'_>, job: &str, step: u64, pinned: bool, holder: &str) -> Result<String> {
        let job: JobName = job.parse()?;
        let info = blocking(py, |interrupt| self.0.set_pinned(&job, Step(step), pinned, holder, interrupt))?;
        Ok(info.to_json().to_string())
    }

    /// Bytes freed; of a dry run: bytes that the step stored.
    fn delete(&self, py: Python<'_>, job: &str, step: u64, force: bool, dry_run: bool) -> Result<u64> {
        let job: JobName = job.parse()?;
        blocking(py, |interrupt| self.0.delete(&job, Step(step), force, dry_run, interrupt))
    }
}

/// A command's own words are enough; warnings and panics of the core are shown as one line each.
pub(crate) fn show_warnings() -> std::result::Result<(), strata_core::error::Error> {
    log::start(&LogSettings { format: LogFormat::Human, level: "warn".to_owned() })
}

/// Whether a sidecar that is started here has a coordinator to go to: one that is named (argument, environment,
/// configuration), or one that answers where this machine's would.
#[pyfunction]
pub fn has_coordinator(py: Python<'_>, config: Option<PathBuf>, coordinator: Option<String>) -> Result<bool> {
    let env = Environment::process();
    let settings = Loaded::load(&env, config.as_deref(), &[])?.config.sidecar;
    if coordinator.or(settings.coordinator).is_some() {
        return Ok(true);
    }
    let place = Place::Coordinator(locate::coordinator(&env, None)?);
    blocking(py, |interrupt| {
        let asked = client::Operator::connect(&[place], &ClientTls::default(), Duration::ZERO, interrupt);
        match asked {
            Err(error) if error.kind == Kind::Unavailable => Ok(false),
            other => other.map(|_| true),
        }
    })
}
