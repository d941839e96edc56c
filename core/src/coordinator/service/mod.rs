//! The gRPC faces: arguments in, the engine asked, answers out. No decision is taken here.

mod admin;
mod assignments;
mod attach;
mod checkpoint;
mod coordinator;
mod dataset;
mod quota;
mod rendezvous;
mod server;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub(super) use assignments::Assignments;
use quota::Need;
pub(super) use quota::Quotas;
pub(super) use server::{listen, serve};

use super::engine::Door;
use super::set::Seat;
use crate::error::Result;
use crate::proto::v1;
use crate::telemetry::Metrics;

/// All services share the way to the engine and the default time-out.
#[derive(Clone)]
pub(super) struct Services {
    pub engine: Door,
    /// Its place among several coordinators; None: it is alone.
    pub seat: Option<Arc<Seat>>,
    /// For calls that give no time-out.
    pub timeout: watch::Receiver<Duration>,
    pub quotas: Arc<Quotas>,
    pub metrics: Arc<Metrics>,
    pub assignments: Arc<Assignments>,
}

impl Services {
    /// Every call that names a job asks here first, operators' apart.
    fn admit(&self, job: &str, need: Need) -> Result<()> {
        self.quotas.admit(job, need)
    }

    fn admit_caller(&self, caller: Option<&v1::Caller>, need: Need) -> Result<()> {
        caller.map_or(Ok(()), |caller| self.admit(&caller.job, need))
    }

    /// Of one job, or of all where it is empty.
    pub async fn status(&self, job: String) -> Result<v1::Status> {
        let status = self.engine.call(move |engine| engine.status(&job)).await?;
        let coordinators = self.seat.as_ref().map(|seat| seat.coordinators()).unwrap_or_default();
        Ok(v1::Status { coordinators, ..status })
    }

    fn time(&self, millis: u64) -> Duration {
        match millis {
            0 => *self.timeout.borrow(),
            given => Duration::from_millis(given),
        }
    }
}
