//! The heartbeat of a direct worker: a task of the client's runtime, so that it goes on while the interpreter is busy.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::line::{Line, retries};
use super::standing::Standing;
use crate::error::Error;
use crate::ids::{Generation, JobName, Rank};
use crate::proto::v1;
use crate::proto::v1::coordinator_client::CoordinatorClient;
use crate::transport::is_broken;

/// Beats that may wait to be sent; more than one waits only while the connection is broken.
const UNSENT: usize = 4;

/// Which registration a call belongs to.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub job: JobName,
    pub rank: Rank,
    pub token: String,
    pub incarnation: String,
}

impl Registration {
    pub fn caller(&self, generation: Generation) -> Option<v1::Caller> {
        Some(v1::Caller {
            job: self.job.to_string(),
            generation: generation.0,
            rank: self.rank.0,
            token: self.token.clone(),
        })
    }
}

pub(super) struct Beats {
    pub line: Arc<Line>,
    pub registration: Arc<Registration>,
    pub every: Duration,
    pub standing: watch::Sender<Standing>,
    pub stop: CancellationToken,
}

impl Beats {
    /// Beats until stopped, or until the coordinator says that the membership has ended. A broken stream is opened
    /// again: the lease decides how long that may take.
    pub async fn run(self) {
        let mut waits = retries();
        loop {
            let outcome = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                outcome = self.stream() => outcome,
            };
            match outcome {
                Ok(()) => waits = retries(),
                Err(status) if is_passing(&status) => {
                    tracing::debug!(job = %self.registration.job, %status, "the heartbeat's stream broke");
                }
                Err(status) => {
                    self.standing.send_modify(|standing| standing.end(Error::from(status)));
                    return;
                }
            }
            let wait = waits.next().unwrap_or(self.every);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One stream until it ends; Ok when it had been answered, so that the next one is opened without delay.
    async fn stream(&self) -> Result<(), Status> {
        let (send, beats) = mpsc::channel(UNSENT);
        send.try_send(self.beat()).expect("a new channel has room for the first beat");
        let (from, channel) = self.line.now().map_err(Status::from)?;
        let turned = |status: Status| {
            self.line.turn(from, &status);
            status
        };
        let mut client = CoordinatorClient::new(channel);
        let opened = client.stream_heartbeat(ReceiverStream::new(beats)).await;
        let mut replies = opened.map_err(turned)?.into_inner();
        let mut tick = interval_at(Instant::now() + self.every, self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = false;
        loop {
            tokio::select! {
                reply = replies.message() => match reply {
                    Ok(Some(reply)) => {
                        answered = true;
                        self.standing.send_modify(|standing| standing.apply(&self.registration.job, &reply));
                    }
                    Ok(None) => return Ok(()),
                    Err(status) if answered && is_passing(&status) => {
                        turned(status);
                        return Ok(());
                    }
                    Err(status) => return Err(turned(status)),
                },
                _ = tick.tick() => {
                    // Full or closed: the connection is broken, and `replies` will say so.
                    let _ = send.try_send(self.beat());
                }
            }
        }
    }

    fn beat(&self) -> v1::HeartbeatRequest {
        v1::HeartbeatRequest {
            caller: self.registration.caller(self.standing.borrow().generation()),
            incarnation: self.registration.incarnation.clone(),
            ..Default::default()
        }
    }
}

/// Whether another try may succeed.
fn is_passing(status: &Status) -> bool {
    is_broken(status) || Error::from(status.clone()).kind.is_retryable()
}
