//! The cluster's coordinator: one deterministic state machine, its log, leases, barriers, and the gRPC services.
//! Called by start-up alone; sidecars and workers reach it over gRPC.
//! The state machine never reads a clock, does IO or draws randomness; effects leave only after their record is durable.
//!
//! `state` is what must not be forgotten, `engine` the one task that owns it and everything volatile, `log` its
//! durability, `service` the gRPC faces, `keep` the retention rules, `stalled` who hangs, `hooks` the operator's Python in a child process.

mod compat;
mod engine;
mod home;
mod hooks;
mod keep;
mod log;
mod service;
mod settings;
mod stalled;
pub mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use compat::{PROTOCOL, check as check_version, ours as our_version};
pub use keep::{KeepBest, KeepRules};
pub use settings::{CoordinatorSettings, LiveSettings, SaveEvery, Timings, TlsFiles};

use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::ids::ClusterId;
use crate::proto::v1;
use crate::telemetry::Metrics;

/// A running coordinator. Dropping it does not stop it: cancel the token.
pub struct Coordinator {
    address: SocketAddr,
    engine: engine::Handle,
    cluster: ClusterId,
    ended: watch::Receiver<Option<Result<()>>>,
    /// Of calls that give no time-out.
    timeout: watch::Sender<Duration>,
    quotas: Arc<service::Quotas>,
}

impl Coordinator {
    /// Replays the log, binds the address and serves. A new state takes `STRATA_HOME`'s cluster id of its own.
    ///
    /// Fails with Conflict while another coordinator runs on the same home or the port is taken, with Denied for an
    /// address beyond loopback without TLS (P11), with Invalid for a log of a newer version.
    pub async fn start(
        settings: CoordinatorSettings,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Coordinator> {
        settings.check()?;
        let home = home::Home::claim(&settings.home)?;
        let (log, state) = log::Log::open(&home, settings.cluster.unwrap_or_else(ClusterId::new))?;
        let (listener, address) = service::listen(&settings).await?;
        let cluster = state.cluster;
        let (handle, inbox) = engine::Handle::new();
        let hooks = settings.hooks.clone().map(|command| {
            let (send, calls) = mpsc::unbounded_channel();
            let hooks = hooks::Hooks { command, limit: settings.timings.hook_limit, handle: handle.clone() };
            tokio::spawn(hooks.run(calls, stop.clone()));
            send
        });
        let owner = {
            let names = Box::new(uuid::Uuid::new_v4);
            engine::Engine::new(state, settings.clone(), clock, names, metrics.clone(), handle.clone(), hooks)
        };
        let (timeout, default) = watch::channel(settings.timings.timeout);
        let quotas = Arc::new(service::Quotas::new(settings.calls_per_second));
        let services = service::Services {
            engine: handle.clone(),
            timeout: default,
            quotas: quotas.clone(),
            metrics,
            assignments: Arc::default(),
        };
        let (told, ended) = watch::channel(None);
        let serving = stop.child_token();
        tokio::spawn(async move {
            // A task of its own: while it works connections are accepted. Nobody is served without it.
            let failed = serving.clone().drop_guard();
            let stopped = serving.clone();
            let engine = tokio::spawn(async move {
                let done = engine::run(owner, log, inbox, stopped).await;
                drop(failed);
                done
            });
            let server = async {
                let done = service::serve(services, &settings, listener, serving.clone()).await;
                serving.cancel();
                done
            };
            let (engine, server) = tokio::join!(engine, server);
            let engine = engine.unwrap_or_else(|error| {
                Err(Error::internal(format!("running the coordinator: its engine ended: {error}")))
            });
            // The lock on the state directory is held until the log is closed.
            drop(home);
            // Nobody may be waiting for the end.
            let _ = told.send(Some(engine.and(server)));
        });
        tracing::info!(%address, %cluster, "coordinator serves");
        Ok(Coordinator { address, engine: handle, cluster, ended, timeout, quotas })
    }

    /// The address that was bound.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that stores are owned by.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Takes other settings for those that may change while it runs, and tells sidecars and workers. Invalid, and nothing
    /// is changed, for settings that can't work.
    pub async fn reconfigure(&self, live: LiveSettings) -> Result<()> {
        let (timeout, calls) = (live.timings.timeout, live.calls_per_second);
        self.engine.call(move |engine| engine.reconfigure(live)).await?;
        self.timeout.send_replace(timeout);
        self.quotas.set(calls);
        Ok(())
    }

    /// Whether calls are answered.
    pub async fn serves(&self) -> Result<()> {
        self.engine.call(|_| Ok(())).await
    }

    /// What `strata status` and `/api/v1/status` show.
    pub async fn status(&self) -> Result<v1::Status> {
        self.engine.call(|engine| engine.status("")).await
    }

    /// Returns when the coordinator has stopped; an error says why it stopped by itself.
    pub async fn stopped(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await;
        match end {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::internal("running the coordinator: its task ended without an answer")),
        }
    }
}
