//! HTTP faces: /livez, /readyz, /metrics, `/api/v1/status`; later the dashboard and the REST API.
//! Called by the roles' start-up (`strata up`, `coordinator`, `sidecar`).
//! Read-only; never changes state except through the gRPC services' own functions.

mod guard;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::proto::v1;
use crate::telemetry::Metrics;

/// What a role shows over HTTP.
pub trait AdminSource: Send + Sync + 'static {
    /// Everything that must hold for the role to be usable. An unreachable store is a metric, not "not ready".
    fn checks(&self) -> BoxFuture<'_, Vec<Check>>;
    fn status(&self) -> BoxFuture<'_, Result<v1::Status>>;
}

/// One condition of readiness.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    /// Such as "coordinator reached".
    pub name: &'static str,
    /// What is wrong, if anything.
    pub problem: Option<String>,
    /// More to know where nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Where to listen, and whether plain HTTP beyond loopback was asked for (P11).
#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    pub insecure: bool,
}

impl AdminSettings {
    /// Fails with Denied for an address beyond loopback without `insecure`: HTTP has no TLS.
    pub fn check(&self) -> Result<()> {
        if self.listen.ip().is_loopback() || self.insecure {
            return Ok(());
        }
        let problem =
            format!("serving HTTP: {} is reachable from other machines, and HTTP has no TLS", self.listen);
        Err(Error::denied(problem).hint("listen on 127.0.0.1 and forward the port, or say --insecure"))
    }
}

/// A running HTTP server; it ends with the token given to [`serve`].
pub struct AdminServer {
    pub addr: SocketAddr,
}

/// Starts to serve. Fails with Conflict when the port is taken, naming it, and with Denied for an address beyond
/// loopback without `insecure`.
pub async fn serve(
    settings: &AdminSettings,
    source: Arc<dyn AdminSource>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<AdminServer> {
    settings.check()?;
    let wanted = settings.listen;
    let listener = TcpListener::bind(wanted).await.map_err(|error| taken(wanted, &error))?;
    let addr = listener.local_addr().map_err(|error| Error::io("serving HTTP", &error))?;
    let routes = routes::routes(source, metrics, addr);
    let listener = listener.into_std().map_err(|error| Error::io("serving HTTP", &error))?;
    let serving = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
        })
    };
    // A thread of its own: behind the tasks of 12,500 busy lines a page took 190 ms.
    let started = std::thread::Builder::new().name("strata-http".to_owned()).spawn(move || {
        if let Err(error) = serving() {
            tracing::error!("serving HTTP on {addr}: {error}");
        }
    });
    started.map_err(|error| Error::io("serving HTTP", &error))?;
    Ok(AdminServer { addr })
}

fn taken(wanted: SocketAddr, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::new(
            Kind::Conflict,
            format!("serving HTTP: port {} of {} is taken", wanted.port(), wanted.ip()),
        )
        .hint("name another one with --http-port, or 0 for any free one"),
        _ => Error::io(format!("serving HTTP on {wanted}"), error),
    }
}

#[cfg(test)]
mod tests;
