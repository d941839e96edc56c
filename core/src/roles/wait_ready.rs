//! `strata sidecar --wait-ready`: returns when the node's sidecar is usable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{RoleOptions, runtime};
use crate::config::{Loaded, locate};
use crate::error::{Error, Result};
use crate::sidecar::READY_SERVICE;

const AGAIN: Duration = Duration::from_millis(50);

/// The socket that answers, once its sidecar has reached the coordinator. Timeout, with what each socket said last.
pub fn wait_ready(options: &RoleOptions, limit: Duration) -> Result<PathBuf> {
    let loaded = Loaded::load(&options.env, options.config.as_deref(), &options.flags)?;
    let sockets = locate::socket_candidates(&options.env, loaded.config.sidecar.socket.as_deref());
    runtime()?.block_on(ready(&sockets, Instant::now() + limit, limit))
}

async fn ready(sockets: &[PathBuf], deadline: Instant, limit: Duration) -> Result<PathBuf> {
    loop {
        let mut said = Vec::new();
        for socket in sockets {
            let problem = match timeout_at(deadline, ask(socket)).await {
                Ok(Ok(())) => return Ok(socket.clone()),
                Ok(Err(problem)) => problem,
                Err(_) => "no answer".to_owned(),
            };
            said.push(format!("{}: {problem}", socket.display()));
        }
        if Instant::now() + AGAIN >= deadline {
            return Err(Error::timeout(format!(
                "waiting for this node's sidecar: not usable after {limit:?} ({})",
                said.join("; ")
            ))
            .hint("start it with `strata sidecar` or `strata up`; its log says what it waits for"));
        }
        sleep(AGAIN).await;
    }
}

/// What is wrong, if anything.
async fn ask(socket: &Path) -> Result<(), String> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // Dialled apart, for the error's own words.
    UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let channel = Endpoint::from_static("http://sidecar.invalid").connect_with_connector_lazy(connector);
    let request = HealthCheckRequest { service: READY_SERVICE.to_owned() };
    let answer = HealthClient::new(channel).check(request).await;
    match answer.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(_) => Err("it has not reached its coordinator".to_owned()),
        Err(status) if status.code() == tonic::Code::NotFound => Err("it is starting".to_owned()),
        Err(status) => Err(status.message().to_owned()),
    }
}
