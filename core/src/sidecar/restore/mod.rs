//! Restoring: the coordinator names the step for all ranks, the rank's part comes from its arena or from the store into
//! a slot, every byte is verified, and the trainer gets a lease.
//! Called by the service. Never chooses a step itself.

mod compose;
mod held;
mod load;
mod targets;
mod together;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use self::held::Lease;
use super::joined::joined;
use super::node::Node;
use super::records::SessionRecord;
use super::state::{SlotKey, State};
use crate::error::{Error, Kind, Result};
use crate::ids::{Generation, SessionId, Step};
use crate::proto::v1;
use crate::telemetry::RestoreFrom;

/// How often a staged step that this node does not hold is looked for in the store.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// One rank's collective restore.
pub(super) struct Restore {
    node: Arc<Node>,
    session: SessionId,
    record: SessionRecord,
    request: v1::RestoreRequest,
    deadline: Instant,
    /// That a further target helped out, for the caller.
    notes: Mutex<Vec<String>>,
}

/// What the coordinator named.
struct Resolved {
    step: Step,
    /// Of the attempt that holds it.
    generation: Generation,
    committed: bool,
    info: Option<v1::StepInfo>,
}

/// A verified slot that is leased to the caller.
struct Fetched {
    key: SlotKey,
    lease: Lease,
    from: RestoreFrom,
}

/// Absent step: the job has none. NotFound, Corrupt and the others as sidecar.proto has them.
pub(super) async fn run(
    node: &Arc<Node>,
    session: SessionId,
    request: v1::RestoreRequest,
) -> Result<v1::RestoreReply> {
    let deadline = Instant::now()
        + match request.timeout_ms {
            0 => node.read(|state| default_timeout(state, session)),
            given => Duration::from_millis(given),
        };
    joined(node, session, deadline).await?;
    let record = node
        .read(|state| state.sessions.get(&session).map(|known| known.record.clone()))
        .ok_or_else(|| Error::fenced("restoring: the session has ended"))?;
    let notes = Mutex::default();
    Restore { node: node.clone(), session, record, request, deadline, notes }.run().await
}

fn default_timeout(state: &State, session: SessionId) -> Duration {
    let job = state.sessions.get(&session).and_then(|session| state.jobs.get(&session.record.job));
    job.map_or(Duration::from_secs(300), |job| job.timeout())
}

impl Restore {
    async fn run(self) -> Result<v1::RestoreReply> {
        let mut damaged = Vec::new();
        for attempt in 0.. {
            let steps: Vec<u64> = damaged.iter().map(|(step, _): &(Step, String)| step.0).collect();
            let Some(resolved) = self.resolve(&steps).await? else { return nothing_left(damaged) };
            let started = Instant::now();
            let outcome = self.fetch(&resolved).await;
            if let Err(error) = &outcome
                && error.kind == Kind::Corrupt
            {
                self.node.metrics.restores_damaged.inc();
                tracing::error!(job = %self.record.job, rank = self.record.rank.0, "restoring: {error}");
                if self.request.fall_back {
                    damaged.push((resolved.step, format!("step {}: {}", resolved.step, error.message)));
                }
            }
            let fetched = match outcome {
                Err(error) if error.kind == Kind::Corrupt && self.request.fall_back => None,
                outcome => Some(outcome?),
            };
            match self.agreed(attempt, &resolved, fetched, &mut damaged).await? {
                Some(fetched) => return self.reply(resolved, fetched, texts(damaged), started.elapsed()),
                None => continue,
            }
        }
        unreachable!("attempts are counted without end")
    }

    /// The step that all ranks of this round read.
    async fn resolve(&self, damaged: &[u64]) -> Result<Option<Resolved>> {
        let caller = self
            .node
            .read(|state| state.sessions.get(&self.session).map(|session| session.caller()))
            .ok_or_else(|| Error::fenced("restoring: the session has ended"))?;
        let reply = self.node.uplink.call("asking which step to restore", self.deadline, || {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let request = v1::ResolveRestoreRequest {
                caller: Some(caller.clone()),
                round: self.request.round,
                step: self.request.step,
                source: self.request.source,
                damaged: damaged.to_vec(),
                timeout_ms: (left.as_millis() as u64).max(1),
            };
            let mut checkpoint = self.node.uplink.checkpoint();
            async move { checkpoint.resolve_restore(request).await }
        });
        let reply = reply.await?;
        for note in reply.notes {
            tracing::warn!(job = %self.record.job, rank = self.record.rank.0, "restoring: {note}");
            let mut notes = self.notes.lock();
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        Ok(reply.step.map(|step| Resolved {
            step: Step(step),
            generation: Generation(reply.generation),
            committed: reply.committed,
            info: reply.info,
        }))
    }

    async fn fetch(&self, resolved: &Resolved) -> Result<Fetched> {
        loop {
            if let Some(fetched) = self.in_memory(resolved).await? {
                return Ok(fetched);
            }
            let outcome = self.out_of_store(resolved).await;
            // A staged step that other nodes hold alone: it is on its way to the store.
            let coming = !resolved.committed && outcome.as_ref().is_err_and(|e| e.kind == Kind::NotFound);
            if !coming || Instant::now() + ASK_AGAIN >= self.deadline {
                return outcome;
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// From this node's arenas: the rank's own slot, or that and the slot of the rank that staged for both.
    async fn in_memory(&self, resolved: &Resolved) -> Result<Option<Fetched>> {
        match self.in_arena(resolved).await? {
            None if self.request.only.is_empty() => self.with_neighbour(resolved).await,
            outcome => Ok(outcome),
        }
    }

    fn reply(
        &self,
        resolved: Resolved,
        fetched: Fetched,
        damaged: Vec<String>,
        took: Duration,
    ) -> Result<v1::RestoreReply> {
        let place = self.node.read(|state| {
            let arena = &state.arenas.by_id.get(&fetched.key.arena)?.arena;
            let held = arena.slot(fetched.key.slot).snapshot().map_or(0, |slot| slot.data_bytes);
            Some((arena.path().display().to_string(), held))
        });
        // Its trainer died, and its lease with it.
        let (arena, bytes) = place.ok_or_else(|| Error::fenced("restoring: the session has ended"))?;
        self.node.metrics.restored(fetched.from, bytes, took);
        let source = match fetched.from {
            RestoreFrom::arena => "arena",
            RestoreFrom::store => "store",
        };
        Ok(v1::RestoreReply {
            step: Some(resolved.step.0),
            committed: resolved.committed,
            source: source.to_owned(),
            arena,
            slot: fetched.key.slot,
            lease: fetched.lease.give(),
            info: resolved.info,
            damaged,
            notes: self.notes.lock().clone(),
        })
    }
}

/// A job whose every step is damaged is not one without steps: whoever begins anew must know what is lost.
fn nothing_left(damaged: Vec<(Step, String)>) -> Result<v1::RestoreReply> {
    if damaged.is_empty() {
        return Ok(v1::RestoreReply::default());
    }
    let texts = texts(damaged).join("; ");
    Err(Error::corrupt(format!("restoring: no undamaged step is left to fall back to: {texts}"))
        .hint("\"strata checkpoints verify\" reads them all; under another job name training begins anew"))
}

fn texts(damaged: Vec<(Step, String)>) -> Vec<String> {
    damaged.into_iter().map(|(_, text)| text).collect()
}
