//! A step out of the store, into a slot.

use std::sync::Arc;

use prost::Message;
use tokio::time::{Instant, timeout_at};

use super::super::arena;
use super::super::node::Node;
use super::super::state::{Grant, SlotKey, State};
use super::super::sums::Sums;
use super::held::Held;
use super::{Fetched, Resolved, Restore};
use crate::checkpoint::{JobStore, RankRestore};
use crate::error::{Doing, Error, Result};
use crate::handoff::plan::SlotLayout;
use crate::handoff::{Slot, SlotLoad};
use crate::ids::{Generation, Step};
use crate::storage::StoreUrl;
use crate::telemetry::RestoreFrom;

/// What a save adds to the index (its data position, metrics and meta): the arena of a restored state should do for
/// the saves that follow.
const SAVE_ADDS: u64 = 4096;

/// What a slot to load into must hold, and for which attempt.
pub(super) struct Room {
    pub data_bytes: u64,
    pub index_bytes: u64,
    pub attempt: (Step, Generation),
    pub deadline: Instant,
}

/// The store's own errors begin with the same words.
fn once(error: Error, doing: impl FnOnce() -> String) -> Error {
    if error.message.starts_with("restoring step ") { error } else { error.while_doing(doing()) }
}

impl Restore {
    /// From the first store; what it lacks or has damaged from a further target.
    pub(super) async fn out_of_store(&self, resolved: &Resolved) -> Result<Fetched> {
        let doing = || format!("restoring step {} of job {}", resolved.step, self.record.job);
        let cluster = self.node.read(|state| state.line.cluster);
        let record = &self.record;
        let store = self
            .node
            .stores
            .confirmed(&record.store, &record.job, cluster, record.job_uuid, record.uid)
            .await
            .doing(doing)?;
        match self.load_from(&store, resolved).await {
            Err(error) if self.may_be_elsewhere(resolved, &error) => {
                self.out_of_targets(resolved, error).await
            }
            outcome => outcome,
        }
    }

    pub(super) async fn load_from(&self, store: &JobStore, resolved: &Resolved) -> Result<Fetched> {
        let (record, url) = (&self.record, store.url());
        let doing = || format!("restoring step {} of job {}", resolved.step, record.job);
        let opened = store.open_step(resolved.step, record.rank, record.world, &self.request.only);
        let plan = match timeout_at(self.deadline, opened).await {
            Ok(plan) => plan.map_err(|error| once(error, doing))?,
            Err(_) => return Err(self.too_slow(resolved, url)),
        };
        let attempt = (resolved.step, plan.commit().record.generation);
        let room = Room {
            data_bytes: plan.slot_bytes(),
            index_bytes: plan.index().encoded_len() as u64,
            attempt,
            deadline: self.deadline,
        };
        let (key, load) = self.slot_for(&room).await.doing(doing)?;
        // Goes on when the trainer gives up: the slot is being written to.
        match timeout_at(self.deadline, load_all(&self.node, key, load, plan, attempt)).await {
            Ok(held) => {
                let held = held.map_err(|error| once(error, doing))?;
                let lease = self.lease(&held).doing(doing)?;
                Ok(Fetched { key, lease, from: RestoreFrom::store })
            }
            Err(_) => Err(self.too_slow(resolved, url)),
        }
    }

    fn too_slow(&self, resolved: &Resolved, url: &StoreUrl) -> Error {
        Error::timeout(format!(
            "restoring step {} of job {}: the store {url} did not give all of it in time",
            resolved.step, self.record.job
        ))
        .hint("give a longer timeout; a repeated call finds what has arrived by then")
    }

    /// A slot to load into, its arena made or replaced where it must be.
    pub(super) async fn slot_for(&self, room: &Room) -> Result<(SlotKey, SlotLoad)> {
        let least = room.data_bytes.next_multiple_of(64) + room.index_bytes;
        let layout = SlotLayout { offsets: Vec::new(), data_bytes: room.data_bytes };
        loop {
            let next = self.node.wait(|state| self.try_slot(state, least, room.attempt));
            match timeout_at(room.deadline, next).await {
                Ok(Some(begun)) => return begun,
                Ok(None) => {
                    let comfortable = layout.slot_bytes(room.index_bytes + SAVE_ADDS).max(least);
                    let slots = self.node.settings.slots;
                    arena::make(&self.node, self.session, comfortable, slots).await?;
                }
                Err(_) => {
                    let busy = self.node.read(|state| state.busy_slots(self.session));
                    return Err(Error::overloaded(format!("no slot came free: {busy}")).hint(
                        "drop what earlier restores returned, or give the arena more slots (STRATA_SLOTS)",
                    ));
                }
            }
        }
    }

    /// None: wait. Some(None): an arena is needed first.
    #[allow(clippy::type_complexity, reason = "wait, make an arena, or a slot")]
    fn try_slot(
        &self,
        state: &mut State,
        least: u64,
        (step, generation): (Step, Generation),
    ) -> Option<Option<Result<(SlotKey, SlotLoad)>>> {
        if !state.sessions.contains_key(&self.session) {
            return Some(Some(Err(Error::fenced("the session has ended"))));
        }
        match state.grant(self.session, least) {
            Grant::Wait => None,
            Grant::NeedArena(_) => Some(None),
            Grant::Slot(key) => {
                Some(Some(state.arenas.begin_load(key, step, generation).map(|load| (key, load))))
            }
        }
    }
}

async fn load_all(
    node: &Arc<Node>,
    key: SlotKey,
    load: SlotLoad,
    plan: RankRestore,
    attempt: (Step, Generation),
) -> Result<Held> {
    let noting = node.clone();
    let work = async move {
        let loaded = tokio::task::spawn_blocking(move || load_into(load, &plan)).await;
        let loaded = loaded.unwrap_or_else(|error| Err(Error::internal(format!("loading: {error}"))));
        note_loaded(&noting, key, attempt, loaded)
    };
    node.finish(work).await
}

/// Reads and checks every byte; checksums for the next restore are taken while they are warm.
fn load_into(mut load: SlotLoad, plan: &RankRestore) -> Result<(Slot, u64, Option<Sums>)> {
    let (fill, index) = (load.fill(), plan.index());
    plan.read_into(load.data(plan.slot_bytes())?)?;
    let slot = load.finish(index, plan.slot_bytes())?;
    // Part of a state is not what a later restore wants.
    let whole = index.tensors.iter().all(|tensor| tensor.staged);
    let sums = whole.then(|| Sums::of(&slot, fill)).transpose()?;
    if let Some(sums) = &sums {
        sums.write(&slot)?;
    }
    Ok((slot, fill, sums))
}

/// Held for whoever waits for it. Nobody may: then it is let off at once, and the next restore finds it.
pub(super) fn note_loaded(
    node: &Arc<Node>,
    key: SlotKey,
    (step, generation): (Step, Generation),
    loaded: Result<(Slot, u64, Option<Sums>)>,
) -> Result<Held> {
    let held = node.change(|state| match loaded {
        Ok((slot, fill, sums)) => {
            state.arenas.found_clean(key, step, generation, fill);
            if let Some(entry) = state.arenas.get_mut(key) {
                entry.sums = sums.map(Arc::new);
            }
            state.hold(key);
            Ok((slot, fill))
        }
        Err(error) => {
            state.arenas.load_failed(key);
            Err(error)
        }
    });
    held.map(|(slot, fill)| Held::taken(node, key, slot, fill))
}
