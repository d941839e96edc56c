//! The one task that owns the state and everything volatile beside it: attached nodes, leases, save progress, barriers,
//! restore rounds, votes on steps. Services hand it closures; answers and pushes leave only after the batch's
//! commands are durable.

mod asks;
mod barriers;
mod commits;
mod configured;
mod convert;
mod damage;
mod door;
mod hooks;
mod interval;
mod leases;
mod ledger;
mod membership;
mod nodes;
mod pushes;
mod rendezvous;
mod reports;
mod restores;
mod retention;
mod roster;
mod runner;
mod saves;
mod shards;
#[cfg(test)]
mod simulation;
mod stacks;
mod stalls;
mod status;
mod targets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::hooks::HookCall;
use super::settings::CoordinatorSettings;
use super::state::{Command, State};
use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName};
use crate::proto::v1;
use crate::telemetry::Metrics;

pub(super) use door::Door;
pub(super) use hooks::Retained;
pub(super) use nodes::{AttachId, Down, QUEUE, refusal};
pub(super) use runner::{Durable, run};

/// How often leases, suspicion and time-outs are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Where the names of registrations and jobs come from: no two are alike.
pub(super) type Names = Box<dyn FnMut() -> uuid::Uuid + Send>;

type Work = Box<dyn FnOnce(&mut Engine) + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// The services' way to the engine.
#[derive(Clone)]
pub(super) struct Handle {
    work: mpsc::UnboundedSender<Work>,
    accepted: Arc<AtomicU64>,
}

/// Where an answer goes, once what it tells is durable.
pub(super) struct Reply<T>(oneshot::Sender<Result<T>>);

impl Handle {
    pub fn new() -> (Handle, mpsc::UnboundedReceiver<Work>) {
        let (work, inbox) = mpsc::unbounded_channel();
        (Handle { work, accepted: Arc::default() }, inbox)
    }

    /// How many commands have been accepted in this life: what was read of the state stands while it is the same.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// Runs `work` in the engine and returns its answer when everything before it is durable.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.wait(move |engine, reply| {
            let answer = work(engine);
            engine.answer(reply, answer);
        })
        .await
    }

    /// As `call`, for answers that come later: `work` keeps the reply.
    pub async fn wait<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine, Reply<T>) + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = oneshot::channel();
        self.post(move |engine| work(engine, Reply(send)));
        receive.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Runs `work` in the engine, in order with everything else from this caller.
    pub fn post(&self, work: impl FnOnce(&mut Engine) + Send + 'static) {
        // A closed channel means that the engine has stopped; callers that wait see their reply dropped.
        let _ = self.work.send(Box::new(work));
    }
}

fn stopping() -> Error {
    Error::unavailable("calling the coordinator: it is stopping").hint("try again when it has been restarted")
}

pub(super) struct Engine {
    pub state: State,
    pub settings: CoordinatorSettings,
    pub metrics: Arc<Metrics>,
    pub handle: Handle,
    clock: SharedClock,
    names: Names,
    started: Duration,
    /// Accepted and not yet durable.
    batch: Vec<Command>,
    /// What leaves when the batch is durable, in order.
    outbox: Vec<Answer>,
    nodes: nodes::Nodes,
    leases: leases::Leases,
    saves: saves::Saves,
    barriers: barriers::Barriers,
    restores: restores::Restores,
    stalls: stalls::Stalls,
    stacks: stacks::Stacks,
    asks: asks::Asks,
    observed: interval::Observed,
    retention: retention::Retention,
    targets: targets::Targets,
    assignments: shards::Assignments,
    damage: damage::Damage,
    awaited: rendezvous::Awaited,
    waiting: membership::Waiting,
    rosters: roster::Rosters,
    ledgers: ledger::Ledgers,
    warnings: BTreeMap<JobName, String>,
    hooks: Option<mpsc::UnboundedSender<HookCall>>,
}

impl Engine {
    pub fn new(
        state: State,
        settings: CoordinatorSettings,
        clock: SharedClock,
        names: Names,
        metrics: Arc<Metrics>,
        handle: Handle,
        hooks: Option<mpsc::UnboundedSender<HookCall>>,
    ) -> Engine {
        let started = clock.now();
        let mut engine = Engine {
            state,
            settings,
            metrics,
            handle,
            clock,
            names,
            started,
            batch: Vec::new(),
            outbox: Vec::new(),
            nodes: Default::default(),
            leases: leases::Leases::new(started),
            saves: Default::default(),
            barriers: Default::default(),
            restores: Default::default(),
            stalls: Default::default(),
            stacks: Default::default(),
            asks: Default::default(),
            observed: Default::default(),
            retention: Default::default(),
            targets: Default::default(),
            assignments: Default::default(),
            damage: Default::default(),
            awaited: Default::default(),
            waiting: Default::default(),
            rosters: Default::default(),
            ledgers: Default::default(),
            warnings: BTreeMap::new(),
            hooks,
        };
        engine.lease_everyone();
        engine.resume_ledgers();
        engine
    }

    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    pub fn unix_ms(&self) -> u64 {
        let wall = self.clock.wall().duration_since(std::time::UNIX_EPOCH);
        wall.map_or(0, |since| since.as_millis() as u64)
    }

    /// Applies a command and lets its effects happen; they become visible outside with the batch.
    pub fn submit(&mut self, command: Command) -> Result<()> {
        let effects = self.state.apply(&command)?;
        self.handle.accepted.fetch_add(1, Ordering::Release);
        self.batch.push(command);
        for effect in effects {
            self.perform(effect);
        }
        Ok(())
    }

    pub fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, answer: Result<T>) {
        self.outbox.push(Box::new(move || {
            // The caller may have given up; nothing is owed to it then.
            let _ = reply.0.send(answer);
        }));
    }

    /// Refuses zombies (P6) and callers without the job's token.
    pub fn member(&self, caller: Option<v1::Caller>) -> Result<(JobName, Generation, v1::Caller)> {
        let caller = caller.ok_or_else(|| {
            Error::invalid("calling the coordinator: the caller is not named")
                .hint("fill in `caller` (job, generation, rank)")
        })?;
        let job: JobName = caller.job.parse()?;
        let known = self.state.job(&job)?;
        known.check_token(&job, &caller.token)?;
        let generation = Generation(caller.generation);
        if let Err(error) = known.fence(&job, generation) {
            self.metrics.calls_fenced.inc();
            return Err(error);
        }
        Ok((job, generation, caller))
    }

    /// What `status` shows last of a job, and the log line.
    pub fn warn(&mut self, job: &JobName, message: String) {
        tracing::warn!(%job, "{message}");
        self.warnings.insert(job.clone(), message);
    }
}
