//! Records that a launcher's agents agree over: what torchrun's rendezvous stands on.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use strata_core::client::ClientTls;
use strata_core::client::direct::{self, Line};
use strata_core::config::{Environment, Loaded, locate};

use crate::blocking::{blocking, seconds};
use crate::errors::Result;

/// The records of one rendezvous, in the coordinator that is named or found in the documented order, with TLS as
/// [sidecar] configures it. Nothing is dialled before the first call.
#[pyclass(frozen, module = "strata._core")]
pub struct Records(direct::Records);

#[pymethods]
impl Records {
    #[new]
    #[pyo3(signature = (rendezvous, coordinator))]
    fn new(rendezvous: String, coordinator: Option<String>) -> Result<Records> {
        let env = Environment::process();
        let settings = Loaded::load(&env, None, &[])?.config.sidecar;
        let url = locate::coordinator(&env, coordinator.or(settings.coordinator).as_deref())?;
        let tls = ClientTls { authority: settings.tls_ca, identity: settings.tls_cert.zip(settings.tls_key) };
        let line = Line::open(&url, tls)?;
        Ok(Records(direct::Records::new(line, rendezvous, env.text("STRATA_TOKEN"))))
    }

    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

    /// (value, version) by key, of those that are there; with `wait` as soon as all are, or after `timeout` seconds.
    #[pyo3(signature = (keys, *, wait, timeout))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        keys: Vec<String>,
        wait: bool,
        timeout: f64,
    ) -> Result<HashMap<String, (Bound<'py, PyBytes>, u64)>> {
        let timeout = seconds(Some(timeout))?.unwrap_or_default();
        let found = blocking(py, |interrupt| self.0.get(&keys, wait, timeout, interrupt))?;
        let pair = |found: direct::Record| (found.key, (PyBytes::new(py, &found.value), found.version));
        Ok(found.into_iter().map(pair).collect())
    }

    /// (value, version, whether it is ours), or None where there is no record and a version was asked for.
    #[pyo3(signature = (key, value, *, version, timeout))]
    fn set<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        value: &[u8],
        version: Option<u64>,
        timeout: f64,
    ) -> Result<Option<(Bound<'py, PyBytes>, u64, bool)>> {
        let timeout = seconds(Some(timeout))?.unwrap_or_default();
        let (written, record) =
            blocking(py, |interrupt| self.0.set(key, value, version, timeout, interrupt))?;
        Ok(record.map(|record| (PyBytes::new(py, &record.value), record.version, written)))
    }

    /// The sum.
    fn add(&self, py: Python<'_>, key: &str, amount: i64, timeout: f64) -> Result<i64> {
        let timeout = seconds(Some(timeout))?.unwrap_or_default();
        blocking(py, |interrupt| self.0.add(key, amount, timeout, interrupt))
    }
}
