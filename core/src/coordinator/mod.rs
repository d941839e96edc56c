//! The cluster's coordinator: one deterministic state machine, its log, leases, barriers, and the gRPC services.
//! Called by start-up alone; sidecars and workers reach it over gRPC.
//! The state machine never reads a clock, does IO or draws randomness; effects leave only after their record is durable.
//!
//! `state` is what must not be forgotten, `engine` the one task that owns it and everything volatile, `log` its
//! durability, `set` what takes its place where several coordinators are one cluster's, `service` the gRPC faces, `keep` the retention rules, `stalled` who hangs, `hooks` the operator's Python in a child process.

mod compat;
mod engine;
mod home;
mod hooks;
mod keep;
mod log;
mod service;
mod set;
mod settings;
mod stalled;
pub mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use compat::{PROTOCOL, check as check_version, ours as our_version};
pub use keep::{KeepBest, KeepRules};
pub use set::{SetSettings, Standing};
pub use settings::{CoordinatorSettings, LiveSettings, SaveEvery, Timings, TlsFiles};

use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::ids::ClusterId;
use crate::proto::v1;
use crate::telemetry::Metrics;

/// A running coordinator. Dropping it does not stop it: cancel the token.
pub struct Coordinator {
    address: SocketAddr,
    services: service::Services,
    settings: CoordinatorSettings,
    /// What an engine of a set's next reign begins with.
    live: watch::Sender<LiveSettings>,
    cluster: Option<ClusterId>,
    ended: watch::Receiver<Option<Result<()>>>,
    /// Of calls that give no time-out.
    timeout: watch::Sender<Duration>,
}

/// What every engine is made of.
struct Maker {
    settings: CoordinatorSettings,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl Maker {
    /// With its hooks, which end with `stop`.
    fn engine(
        &self,
        state: state::State,
        handle: engine::Handle,
        stop: &CancellationToken,
    ) -> engine::Engine {
        let hooks = self.settings.hooks.clone().map(|command| {
            let (send, calls) = mpsc::unbounded_channel();
            let hooks =
                hooks::Hooks { command, limit: self.settings.timings.hook_limit, handle: handle.clone() };
            tokio::spawn(hooks.run(calls, stop.clone()));
            send
        });
        let names = Box::new(uuid::Uuid::new_v4);
        let (settings, clock, metrics) = (self.settings.clone(), self.clock.clone(), self.metrics.clone());
        engine::Engine::new(state, settings, clock, names, metrics, handle, hooks)
    }
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
        let (timeout, default) = watch::channel(settings.timings.timeout);
        let quotas = Arc::new(service::Quotas::new(settings.calls_per_second));
        let (live, next) = watch::channel(settings.live());
        let (told, ended) = watch::channel(None);
        let serving = stop.child_token();
        let maker = Maker { settings: settings.clone(), clock, metrics: metrics.clone() };
        let (door, seat, cluster, owner) = match &settings.set {
            None => {
                home.alone()?;
                let (log, state) = log::Log::open(&home, settings.cluster.unwrap_or_else(ClusterId::new))?;
                let cluster = state.cluster;
                let (handle, inbox) = engine::Handle::new();
                let owner = maker.engine(state, handle.clone(), &stop);
                let run = engine::run(owner, engine::Durable::Own(log), inbox, serving.clone()).boxed();
                (engine::Door::to(handle), None, Some(cluster), run)
            }
            Some(own) => {
                let peers = set::Peers::open(own, settings.listen, settings.tls.as_ref())?;
                home.of_a_set()?;
                let seat = set::Seat::open(&home.folder, peers, metrics.clone())?;
                let door = engine::Door::of_a_set(seat.peers.url().to_owned(), seat.standing());
                let run = replicated(seat.clone(), door.clone(), maker, next, serving.clone()).boxed();
                (door, Some(seat), None, run)
            }
        };
        let (listener, address) = service::listen(&settings).await?;
        let services = service::Services {
            engine: door,
            seat: seat.clone(),
            timeout: default,
            quotas,
            metrics,
            assignments: Arc::default(),
        };
        let doors = seat.map(set::Doors);
        let (own, started) = (services.clone(), settings.clone());
        tokio::spawn(async move {
            // A task of its own: while it works connections are accepted. Nobody is served without it.
            let failed = serving.clone().drop_guard();
            let engine = tokio::spawn(async move {
                let done = owner.await;
                drop(failed);
                done
            });
            let server = async {
                let done = service::serve(services, doors, &settings, listener, serving.clone()).await;
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
        match cluster {
            Some(cluster) => tracing::info!(%address, %cluster, "coordinator serves"),
            None => tracing::info!(%address, "coordinator of a set serves"),
        }
        Ok(Coordinator { address, services: own, settings: started, live, cluster, ended, timeout })
    }

    /// The address that was bound.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that stores are owned by. None: one of a set, which knows it when the set has a leader.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Takes other settings for those that may change while it runs, and tells sidecars and workers. Invalid, and nothing
    /// is changed, for settings that can't work.
    pub async fn reconfigure(&self, live: LiveSettings) -> Result<()> {
        let (timeout, calls) = (live.timings.timeout, live.calls_per_second);
        self.settings.clone().with(live.clone()).check()?;
        // An engine that begins from now on begins with them.
        self.live.send_replace(live.clone());
        if self.standing().is_none_or(|standing| standing == Standing::Leads) {
            self.services.engine.call(move |engine| engine.reconfigure(live)).await?;
        }
        self.timeout.send_replace(timeout);
        self.services.quotas.set(calls);
        Ok(())
    }

    /// Whether calls are answered.
    pub async fn serves(&self) -> Result<()> {
        self.services.engine.call(|_| Ok(())).await
    }

    /// Where it stands in its set; None: it is alone.
    pub fn standing(&self) -> Option<Standing> {
        self.services.engine.standing()
    }

    /// What `strata status` and `/api/v1/status` show.
    pub async fn status(&self) -> Result<v1::Status> {
        self.services.status(String::new()).await
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

/// Takes part in the set, with an engine whenever this coordinator leads it, until `stop`.
async fn replicated(
    seat: Arc<set::Seat>,
    door: engine::Door,
    mut maker: Maker,
    live: watch::Receiver<LiveSettings>,
    stop: CancellationToken,
) -> Result<()> {
    let Some(()) = seat.form(&stop).await? else { return Ok(()) };
    let reigns = async {
        while let Some((reign, state)) = set::Reign::begin(&seat, &stop).await? {
            maker.settings = maker.settings.with(live.borrow().clone());
            let over = stop.child_token();
            let (handle, inbox) = engine::Handle::new();
            let engine = maker.engine(state, handle.clone(), &over);
            door.lead(handle);
            reign.open();
            let done = engine::run(engine, engine::Durable::Set(reign), inbox, over.clone()).await;
            over.cancel();
            seat.look();
            if let Err(error) = done {
                tracing::warn!("{}", error.message);
            }
        }
        Ok(())
    };
    let done = tokio::select! {
        done = reigns => done,
        done = seat.watch(stop.clone()) => done,
    };
    seat.end().await;
    done
}

/// On this very thread, whose other tasks another one takes over: two hops between threads would take as long as the disk.
fn here<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
