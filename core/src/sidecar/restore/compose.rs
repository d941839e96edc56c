//! A step whose replicated tensors another rank of this node staged: put together from the two slots, so that a lost rank
//! comes back at memory's speed although it staged only what was its own.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;

use super::super::state::SlotKey;
use super::super::sums::Sums;
use super::held::{Held, check};
use super::load::{Room, note_loaded};
use super::{Fetched, Resolved, Restore};
use crate::error::{Doing, Error, Result};
use crate::handoff::plan::{TensorSpec, layout};
use crate::handoff::{Slot, SlotLoad};
use crate::ids::{Generation, Step};
use crate::proto::format::{SlotIndex, Tensor};
use crate::telemetry::RestoreFrom;

/// How long a slot to put it together in is waited for: the slots that are read here are held meanwhile, and the store
/// needs only one of them.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the bytes of each tensor lie, both slots proved whole.
struct Parts {
    own: Slot,
    neighbour: Slot,
    index: SlotIndex,
    data_bytes: u64,
    /// By tensor of `index`.
    sources: Vec<Source>,
}

struct Source {
    slot: From,
    offset: u64,
}

#[derive(Clone, Copy)]
enum From {
    Own,
    Neighbour,
}

impl Restore {
    /// None when this node does not hold both slots whole, or has no slot free for the two together: the store is asked
    /// then.
    pub(super) async fn with_neighbour(&self, resolved: &Resolved) -> Result<Option<Fetched>> {
        let Some(own) = self.hold(resolved, |rank, _| rank == self.record.rank) else { return Ok(None) };
        let staged_all = |slot: &Slot| slot.index().is_ok_and(|index| index.tensors.iter().all(|t| t.staged));
        let neighbour = self.hold(resolved, |rank, slot| rank != self.record.rank && staged_all(slot));
        let Some(neighbour) = neighbour else { return Ok(None) };
        for held in [&own, &neighbour] {
            let Some(sums) = self.sums_of(held).await else { return Ok(None) };
            if let Err(error) = check(sums, held.slot.clone(), "").await {
                self.found_damaged(held, &error);
                return Ok(None);
            }
        }
        let Some(parts) = parts(own.slot.clone(), neighbour.slot.clone(), self.record.world.0) else {
            return Ok(None);
        };
        let room = Room {
            data_bytes: parts.data_bytes,
            index_bytes: parts.index.encoded_len() as u64,
            attempt: (resolved.step, resolved.generation),
            deadline: self.deadline.min(Instant::now() + PATIENCE),
        };
        let (key, load) = match self.slot_for(&room).await {
            Ok(found) => found,
            Err(error) => {
                tracing::info!(job = %self.record.job, "restoring from the store instead: {}", error.message);
                return Ok(None);
            }
        };
        let doing = || format!("restoring step {} of job {} from two slots", resolved.step, self.record.job);
        let held = self.put_together(key, load, parts, [own, neighbour], room.attempt).await.doing(doing)?;
        let lease = self.lease(&held).doing(doing)?;
        Ok(Some(Fetched { key, lease, from: RestoreFrom::arena }))
    }

    /// Goes on when the trainer gives up: the slot is being written to, and the two are held until it is done.
    async fn put_together(
        &self,
        key: SlotKey,
        load: SlotLoad,
        parts: Parts,
        held: [Held; 2],
        attempt: (Step, Generation),
    ) -> Result<Held> {
        let node = self.node.clone();
        let work = async move {
            let loaded = tokio::task::spawn_blocking(move || copy(load, &parts)).await;
            drop(held);
            let loaded = loaded.unwrap_or_else(|e| Err(Error::internal(format!("copying slots: {e}"))));
            note_loaded(&node, key, attempt, loaded)
        };
        self.node.finish(work).await
    }
}

/// None when the neighbour lacks a tensor of ours, or the state is of another world.
fn parts(own: Slot, neighbour: Slot, world: u32) -> Option<Parts> {
    let (mut index, theirs) = (own.index().ok()?, neighbour.index().ok()?);
    if index.world_size != world {
        return None;
    }
    let replicated = theirs.tensors.iter().filter(|tensor| tensor.replicated);
    let by_name: HashMap<&str, &Tensor> = replicated.map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut sources = Vec::with_capacity(index.tensors.len());
    for tensor in &index.tensors {
        if tensor.staged {
            sources.push(Source { slot: From::Own, offset: tensor.offset });
            continue;
        }
        let found = *by_name.get(tensor.name.as_str())?;
        if (&found.dtype, &found.shape, found.bytes) != (&tensor.dtype, &tensor.shape, tensor.bytes) {
            return None;
        }
        sources.push(Source { slot: From::Neighbour, offset: found.offset });
    }
    let spec = |tensor: &Tensor| TensorSpec {
        name: tensor.name.clone(),
        bytes: tensor.bytes,
        replicated: tensor.replicated,
    };
    let plan = layout(&index.tensors.iter().map(spec).collect::<Vec<_>>());
    for (tensor, offset) in index.tensors.iter_mut().zip(&plan.offsets) {
        (tensor.offset, tensor.staged) = (*offset, true);
    }
    index.begun.clear();
    Some(Parts { own, neighbour, index, data_bytes: plan.data_bytes, sources })
}

/// Zeroes what lies between tensors, so that equal states give equal slots.
fn copy(mut load: SlotLoad, parts: &Parts) -> Result<(Slot, u64, Option<Sums>)> {
    let fill = load.fill();
    let (own, neighbour) = (parts.own.data()?, parts.neighbour.data()?);
    let target = load.data(parts.data_bytes)?;
    target.fill(0);
    for (tensor, source) in parts.index.tensors.iter().zip(&parts.sources) {
        let from = match source.slot {
            From::Own => own.as_ref(),
            From::Neighbour => neighbour.as_ref(),
        };
        let (to, from_at, bytes) = (tensor.offset as usize, source.offset as usize, tensor.bytes as usize);
        target[to..to + bytes].copy_from_slice(&from[from_at..from_at + bytes]);
    }
    let slot = load.finish(&parts.index, parts.data_bytes)?;
    let sums = Sums::of(&slot, fill)?;
    sums.write(&slot)?;
    Ok((slot, fill, Some(sums)))
}
