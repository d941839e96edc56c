//! A step that is still in an arena of this node.

use std::sync::Arc;
use std::time::Duration;

use super::super::node::Node;
use super::super::state::{SlotKey, Use};
use super::super::sums::Sums;
use super::{Fetched, Resolved, Restore};
use crate::checkpoint::matches_any;
use crate::error::{Error, Kind, Result};
use crate::handoff::Slot;
use crate::ids::{Rank, SessionId};
use crate::proto::format::Tensor;
use crate::telemetry::RestoreFrom;

/// Checksums of the largest slot take less; without them the store is asked.
const SUMMED: Duration = Duration::from_secs(10);

/// A slot that is neither filled nor freed while this lives.
pub(super) struct Held {
    node: Arc<Node>,
    pub key: SlotKey,
    pub slot: Slot,
    fill: u64,
}

impl Held {
    /// Of a slot that has been counted as held already.
    pub fn taken(node: &Arc<Node>, key: SlotKey, slot: Slot, fill: u64) -> Held {
        Held { node: node.clone(), key, slot, fill }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.change(|state| state.let_off(self.key));
    }
}

/// A trainer's lease on its way to it. Dropped before it is given, it is released: a trainer that has stopped waiting,
/// or is dead, will never give it back.
pub(super) struct Lease {
    node: Arc<Node>,
    session: SessionId,
    number: u64,
    given: bool,
}

impl Lease {
    pub fn give(mut self) -> u64 {
        self.given = true;
        self.number
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.given {
            self.node.change(|state| state.release(self.session, self.number));
        }
    }
}

impl Restore {
    /// None when no slot holds the rank's whole part, or it can't be proved whole: the store is asked then. A damaged
    /// slot is not used again.
    pub(super) async fn in_arena(&self, resolved: &Resolved) -> Result<Option<Fetched>> {
        let whole = |rank: Rank, slot: &Slot| rank == self.record.rank && self.fits(slot);
        let Some(held) = self.hold(resolved, whole) else { return Ok(None) };
        let Some(sums) = self.sums_of(&held).await else { return Ok(None) };
        if let Err(error) = check(sums, held.slot.clone(), &self.request.only).await {
            self.found_damaged(&held, &error);
            return Ok(None);
        }
        let lease = self.lease(&held)?;
        Ok(Some(Fetched { key: held.key, lease, from: RestoreFrom::arena }))
    }

    /// Fenced when the session has ended meanwhile.
    pub(super) fn lease(&self, held: &Held) -> Result<Lease> {
        let number = self.node.change(|state| state.lease(self.session, held.key))?;
        Ok(Lease { node: self.node.clone(), session: self.session, number, given: false })
    }

    /// A slot that is not what was sealed is not used again. Anything but Corrupt says nothing about it.
    pub(super) fn found_damaged(&self, held: &Held, error: &Error) {
        if error.kind != Kind::Corrupt {
            return;
        }
        tracing::error!(job = %self.record.job, "{error}");
        self.node.change(|state| {
            state.metrics.restores_damaged.inc();
            // Held by us alone.
            let free =
                state.arenas.get(held.key).is_some_and(|slot| slot.used == Use::Clean && slot.leases == 1);
            if free {
                state.arenas.free(held.key, held.fill);
            }
        });
    }

    /// A slot of the step, of a rank of this node and user, that `pick` takes.
    pub(super) fn hold(&self, resolved: &Resolved, pick: impl Fn(Rank, &Slot) -> bool) -> Option<Held> {
        let record = &self.record;
        self.node.change(|state| {
            let keys = state.arenas.keys(|entry, slot| {
                let rank = entry.arena.identity().rank;
                entry.is_of(&record.job, record.job_uuid, rank)
                    && entry.uid == record.uid
                    && matches!(slot.used, Use::Sealed | Use::Persisting | Use::Clean)
                    && (slot.step, slot.generation) == (resolved.step, resolved.generation)
                    && pick(rank, &slot.slot)
            });
            let key = *keys.first()?;
            state.hold(key);
            let entry = state.arenas.get(key)?;
            Some(Held::taken(&self.node, key, entry.slot.clone(), entry.fill))
        })
    }

    /// They are taken right after the seal: a step that was just sealed has them in a moment, since who waits for them here
    /// ends their yielding.
    pub(super) async fn sums_of(&self, held: &Held) -> Option<Arc<Sums>> {
        self.node.change(|state| state.await_save_in(held.key, held.fill));
        let summed = self.node.wait(|state| {
            let entry = state.arenas.get(held.key)?;
            // The step may be durable before they are taken.
            let never = entry.used == Use::Clean && !entry.is_summing(held.fill);
            (entry.sums.is_some() || never).then(|| entry.sums.clone())
        });
        tokio::time::timeout(SUMMED, summed).await.ok().flatten()
    }

    /// Whether the slot holds what a restore into this world would bring: all that was asked for.
    fn fits(&self, slot: &Slot) -> bool {
        let only = self.request.only.as_str();
        let Ok(index) = slot.index() else { return false };
        let asked = |tensor: &&Tensor| only.is_empty() || matches_any(only, &tensor.name);
        index.world_size == self.record.world.0
            && index.tensors.iter().filter(asked).all(|tensor| tensor.staged)
    }
}

/// `only`: a glob; empty: all of it.
pub(super) async fn check(sums: Arc<Sums>, slot: Slot, only: &str) -> Result<()> {
    let only = only.to_owned();
    let checked = tokio::task::spawn_blocking(move || sums.check_for(&slot, &only));
    checked.await.map_err(|error| Error::internal(format!("checking a slot: {error}")))?
}
