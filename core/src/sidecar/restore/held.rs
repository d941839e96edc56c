//! A step that is still in an arena of this node.

use std::sync::Arc;
use std::time::Duration;

use super::super::state::{SlotKey, Use};
use super::super::sums::Sums;
use super::{Fetched, Resolved, Restore};
use crate::error::{Error, Kind, Result};
use crate::handoff::Slot;
use crate::telemetry::RestoreFrom;

/// Checksums of the largest slot take less; without them the store is asked.
const SUMMED: Duration = Duration::from_secs(10);

/// A slot that is held while it is looked at.
struct Held {
    key: SlotKey,
    slot: Slot,
    fill: u64,
}

impl Restore {
    /// None when no slot holds the rank's whole part, or it can't be proved whole: the store is asked then. A damaged
    /// slot is not used again.
    pub(super) async fn in_arena(&self, resolved: &Resolved) -> Result<Option<Fetched>> {
        let Some(held) = self.hold(resolved) else { return Ok(None) };
        let sums = self.sums_of(&held).await;
        let outcome = match (sums, self.fits(&held.slot)) {
            (Some(sums), true) => check(sums, held.slot.clone()).await,
            _ => Err(Error::not_found("there is no proof for it")),
        };
        let lease = self.node.change(|state| {
            state.let_off(held.key);
            match &outcome {
                Ok(()) => state.lease(self.session, held.key).map(Some),
                Err(error) => {
                    if error.kind == Kind::Corrupt {
                        tracing::error!(job = %self.record.job, "{error}");
                        state.metrics.restores_damaged.inc();
                        let leased = state.arenas.get(held.key).is_some_and(|slot| slot.leases > 0);
                        let clean = state.arenas.get(held.key).is_some_and(|slot| slot.used == Use::Clean);
                        if clean && !leased {
                            state.arenas.free(held.key, held.fill);
                        }
                    }
                    Ok(None)
                }
            }
        })?;
        Ok(lease.map(|lease| Fetched { key: held.key, lease, from: RestoreFrom::arena }))
    }

    fn hold(&self, resolved: &Resolved) -> Option<Held> {
        let record = &self.record;
        self.node.change(|state| {
            let keys = state.arenas.keys(|entry, slot| {
                entry.is_of(&record.job, record.job_uuid, record.rank)
                    && entry.uid == record.uid
                    && matches!(slot.used, Use::Sealed | Use::Persisting | Use::Clean)
                    && (slot.step, slot.generation) == (resolved.step, resolved.generation)
            });
            let key = *keys.first()?;
            state.hold(key);
            let entry = state.arenas.get(key)?;
            Some(Held { key, slot: entry.slot.clone(), fill: entry.fill })
        })
    }

    /// They are taken right after the seal: a step that was just sealed has them in a moment.
    async fn sums_of(&self, held: &Held) -> Option<Arc<Sums>> {
        let summed = self.node.wait(|state| {
            let entry = state.arenas.get(held.key)?;
            let never = entry.used == Use::Clean;
            (entry.sums.is_some() || never).then(|| entry.sums.clone())
        });
        tokio::time::timeout(SUMMED, summed).await.ok().flatten()
    }

    /// Whether the slot is what a restore into this world would bring: all of it, and nothing but what was asked for.
    fn fits(&self, slot: &Slot) -> bool {
        self.request.only.is_empty()
            && slot.index().is_ok_and(|index| {
                index.world_size == self.record.world.0 && index.tensors.iter().all(|tensor| tensor.staged)
            })
    }
}

async fn check(sums: Arc<Sums>, slot: Slot) -> Result<()> {
    let checked = tokio::task::spawn_blocking(move || sums.check(&slot));
    checked.await.map_err(|error| Error::internal(format!("checking a slot: {error}")))?
}
