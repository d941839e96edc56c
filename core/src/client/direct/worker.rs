//! One rank that is a member of a job without a sidecar.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::super::interrupt::{Interrupt, block_on};
use super::super::runtime;
use super::super::session::milliseconds;
use super::beats::{Beats, Registration};
use super::line::Line;
use super::standing::{Standing, ended};
use crate::config::locate;
use crate::error::{Error, Kind, Result};
use crate::ids::{Generation, JobName, Rank, WorldSize};
use crate::proto::v1;
use crate::proto::v1::coordinator_client::CoordinatorClient;
use crate::version;

/// How a direct worker joins.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    pub job: JobName,
    pub rank: Rank,
    pub world_size: WorldSize,
    /// The user's name for this worker; may be empty.
    pub worker_id: String,
    /// Where the worker can be reached, as it says; may be empty and 0.
    pub ip: String,
    pub port: u16,
    pub token: Option<String>,
}

/// A rank's membership from `join` to `leave`. All calls block the calling thread, take a time-out (None: the job's
/// budget) and ask the interrupt every 50 ms. Its lease is kept by a background task. Once the generation has ended
/// every call is Fenced, naming who was lost. Dropped without `leave`, the rank is lost when its lease expires.
pub struct DirectWorker {
    inner: ManuallyDrop<Box<Inner>>,
    pid: u32,
}

struct Inner {
    line: Arc<Line>,
    registration: Arc<Registration>,
    world_size: WorldSize,
    timeout: Duration,
    standing: watch::Sender<Standing>,
    rounds: Mutex<HashMap<String, u64>>,
    stop: CancellationToken,
}

impl DirectWorker {
    /// Registers, durably, and returns without waiting for the other ranks. Repeated over breaks of the connection as
    /// the same registration.
    ///
    /// Unavailable when no coordinator answers within `timeout`; Conflict when the rank lives already or another world
    /// size is declared; Denied for a wrong token; Invalid for another version or a rank outside the world.
    pub fn join(
        line: Arc<Line>,
        options: WorkerOptions,
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<DirectWorker> {
        let doing = format!("registering rank {} of job {}", options.rank, options.job);
        let request = v1::RegisterWorkerRequest {
            job: options.job.to_string(),
            rank: options.rank.0,
            world_size: options.world_size.0,
            host: locate::host_name(),
            ip: options.ip,
            port: options.port.into(),
            token: options.token.clone().unwrap_or_default(),
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            worker_id: options.worker_id,
            version: Some(version::ours()),
            ..Default::default()
        };
        let reply = line.block(&doing, timeout, interrupt, |channel, _| {
            let request = request.clone();
            async move { CoordinatorClient::new(channel).register_worker(request).await }
        })?;
        let config = reply.config.unwrap_or_default();
        let registration = Arc::new(Registration {
            job: options.job,
            rank: options.rank,
            token: options.token.unwrap_or_default(),
            incarnation: reply.incarnation,
        });
        let inner = Inner {
            line,
            registration,
            world_size: options.world_size,
            timeout: Duration::from_millis(config.timeout_ms),
            standing: watch::Sender::new(Standing::Joining),
            rounds: Mutex::default(),
            stop: CancellationToken::new(),
        };
        inner.keep_alive(Duration::from_millis(config.heartbeat_interval_ms.max(1)))?;
        Ok(DirectWorker { inner: ManuallyDrop::new(Box::new(inner)), pid: std::process::id() })
    }

    pub fn job(&self) -> &JobName {
        &self.inner.registration.job
    }

    pub fn rank(&self) -> Rank {
        self.inner.registration.rank
    }

    pub fn world_size(&self) -> WorldSize {
        self.inner.world_size
    }

    /// The open generation, as far as it is known; 0 before it opened and after it ended.
    pub fn generation(&self) -> Result<Generation> {
        Ok(self.own()?.standing.borrow().generation())
    }

    /// Returns when the declared world is complete: the generation. Timeout naming the missing ranks.
    pub fn wait_world(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<Generation> {
        let inner = self.own()?;
        let timeout = timeout.unwrap_or(inner.timeout);
        block_on("waiting for the world", timeout, interrupt, inner.opened(timeout))
    }

    /// Returns when every rank of the generation has called with this name; waits for the world first. A rank that
    /// timed out calls again and arrives at the same round. Timeout naming the missing ranks and hosts.
    pub fn barrier(&self, name: &str, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<()> {
        let inner = self.own()?;
        let timeout = timeout.unwrap_or(inner.timeout);
        block_on(&format!("waiting at barrier {name:?}"), timeout, interrupt, inner.barrier(name, timeout))
    }

    /// Leaves in good order, which ends nothing for the others. Idempotent; does nothing in a forked child.
    pub fn leave(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<()> {
        let Ok(inner) = self.own() else { return Ok(()) };
        let timeout = timeout.unwrap_or(inner.timeout);
        let registration = &inner.registration;
        let doing = format!("leaving job {} as rank {}", registration.job, registration.rank);
        let generation = inner.standing.borrow().generation();
        inner.stop.cancel();
        let request = v1::RemoveWorkerRequest {
            caller: registration.caller(generation),
            incarnation: registration.incarnation.clone(),
        };
        let left = inner.line.block(&doing, timeout, interrupt, |channel, _| {
            let request = request.clone();
            async move { CoordinatorClient::new(channel).remove_worker(request).await }
        });
        inner.standing.send_modify(|standing| {
            standing.end(Error::fenced("calling as a worker that has left its job").hint("register again"));
        });
        match left {
            // A coordinator that does not know the job has no member to lose.
            Err(error) if !matches!(error.kind, Kind::NotFound | Kind::Fenced) => Err(error),
            _ => Ok(()),
        }
    }

    fn own(&self) -> Result<&Inner> {
        if self.pid == std::process::id() {
            return Ok(&self.inner);
        }
        Err(Error::invalid(format!(
            "calling as rank {} of job {}: process {} registered, this is its forked child",
            self.rank(),
            self.job(),
            self.pid
        ))
        .hint("a membership belongs to the process that registered"))
    }
}

impl Inner {
    fn keep_alive(&self, every: Duration) -> Result<()> {
        let beats = Beats {
            line: self.line.clone(),
            registration: self.registration.clone(),
            every,
            standing: self.standing.clone(),
            stop: self.stop.clone(),
        };
        runtime::handle()?.spawn(beats.run());
        Ok(())
    }

    async fn opened(&self, timeout: Duration) -> Result<Generation> {
        if let Standing::Member(generation) = &*self.standing.borrow() {
            return Ok(*generation);
        }
        let registration = &self.registration;
        let opened = self
            .call("waiting for the world", timeout, |channel, left| {
                let request = v1::WaitGenerationRequest {
                    job: registration.job.to_string(),
                    rank: registration.rank.0,
                    incarnation: registration.incarnation.clone(),
                    timeout_ms: milliseconds(left),
                    place: true,
                };
                async move { CoordinatorClient::new(channel).wait_generation(request).await }
            })
            .await?;
        let generation = Generation(opened.generation);
        self.standing.send_modify(|standing| standing.opened(generation));
        Ok(generation)
    }

    async fn barrier(&self, name: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let generation = self.opened(timeout).await?;
        let round = *self.rounds.lock().entry(name.to_owned()).or_insert(1);
        let left = deadline.saturating_duration_since(Instant::now());
        self.call(&format!("waiting at barrier {name:?}"), left, |channel, left| {
            let request = v1::BarrierRequest {
                caller: self.registration.caller(generation),
                name: name.to_owned(),
                round,
                timeout_ms: milliseconds(left),
            };
            async move { CoordinatorClient::new(channel).barrier(request).await }
        })
        .await?;
        self.rounds.lock().insert(name.to_owned(), round + 1);
        Ok(())
    }

    /// A member's call: ends as soon as the membership is known to have ended. Whoever is told so by a call's answer, before
    /// any beat, knows it from then on.
    async fn call<T, F, Made>(&self, doing: &str, timeout: Duration, make: F) -> Result<T>
    where
        F: Fn(Channel, Duration) -> Made,
        Made: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        tokio::select! {
            biased;
            error = ended(&self.standing) => Err(error),
            outcome = self.line.call(doing, timeout, make) => outcome.inspect_err(|error| {
                if error.kind == Kind::Fenced {
                    self.standing.send_modify(|standing| standing.end(error.clone()));
                }
            }),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Drop for DirectWorker {
    fn drop(&mut self) {
        // In a forked child everything here belongs to the parent's runtime and may be locked for good.
        if self.pid == std::process::id() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}
