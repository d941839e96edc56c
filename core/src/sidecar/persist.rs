//! From Sealed to durable: all ranks of this node together, one step of a job after the other, again and again while the
//! store is away. Training never waits for it (P5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::node::Node;
use super::pacing::paced;
use super::place;
use super::state::{SaveId, SlotKey, Stage, State, Use, durable_report};
use super::sums::Sums;
use crate::checkpoint::{Attempt, BaseSlot, Durable, NodeShare, PersistRequest, RankSlot};
use crate::error::{Error, Kind, Result};
use crate::ids::{JobName, JobUuid, Rank, Step, WorldSize};
use crate::pace::Pace;
use crate::proto::v1::{self, SaveKind, node_report::Report};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A full store may have been relieved by the collector meanwhile; longer waiting only holds the slot of a living trainer.
pub(super) const FULL_TRIES: u32 = 3;
/// From so many slots on one of them can be kept from reuse as a base while two take turns.
const SLOTS_FOR_BASE: u32 = 3;

/// Whose turn it is to write: one step of a job at a time. Over all jobs the buffers' budget keeps the measure.
#[derive(Default)]
pub(super) struct Turns {
    jobs: Mutex<HashMap<JobName, Arc<Semaphore>>>,
}

impl Turns {
    async fn take(&self, job: &JobName) -> OwnedSemaphorePermit {
        let turns =
            self.jobs.lock().entry(job.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        turns.acquire_owned().await.expect("turns are never closed")
    }
}

/// What a task has taken, and gives back.
struct Work {
    request: PersistRequest,
    pace: Pace,
    url: String,
    uuid: JobUuid,
    bases: Vec<SlotKey>,
}

/// One try at a save that is ready.
pub(super) async fn run(node: Arc<Node>, id: SaveId) {
    if !node.change(|state| begin(state, &id)) {
        return;
    }
    let _turn = node.turns.take(&id.job).await;
    place::learn(&node, &id).await;
    let work = match node.change(|state| take(state, &id)) {
        Ok(Some(work)) => work,
        // Decided while it waited for its turn.
        Ok(None) => return node.change(|state| state.io_ended(&id)),
        Err(error) => return failed(&node, &id, error, false),
    };
    let started = node.read(State::now);
    let Work { request, pace, url, uuid, bases } = work;
    let with_base = request.ranks.iter().any(|rank| rank.base.is_some());
    let working = async {
        let (cluster, uid) =
            node.read(|state| (state.line.cluster, state.jobs.get(&id.job).map_or(0, |known| known.uid)));
        let store = node.stores.confirmed(&url, &id.job, cluster, uuid, uid).await?;
        store.persist_at(pace, request).await
    };
    let outcome = paced(&node, &id, working).await;
    node.change(|state| bases.iter().for_each(|base| state.let_off(*base)));
    match outcome {
        Ok(durable) => {
            node.metrics.store_reachable.set(1);
            let took = node.read(State::now).saturating_sub(started);
            node.metrics.persist_time.observe(took.as_secs_f64());
            node.change(|state| note_durable(state, &id, durable));
        }
        Err(error) => failed(&node, &id, error, with_base),
    }
}

fn begin(state: &mut State, id: &SaveId) -> bool {
    let Some(save) = state.saves.get_mut(id).filter(|save| save.is_ready()) else { return false };
    save.io = true;
    true
}

/// Sealed → Persisting for every part; None when the step was decided meanwhile.
fn take(state: &mut State, id: &SaveId) -> Result<Option<Work>> {
    let mut bases = Vec::new();
    let taken = take_with(state, id, &mut bases);
    if !matches!(taken, Ok(Some(_))) {
        bases.iter().for_each(|base| state.let_off(*base));
    }
    let pace = state.saves.get(id).map_or_else(Pace::hurried, |save| save.pace.clone());
    Ok(taken?.map(|(request, url, uuid)| Work { request, pace, url, uuid, bases }))
}

/// `bases`: what it holds.
#[allow(clippy::type_complexity, reason = "the parts of Work that are known here")]
fn take_with(
    state: &mut State,
    id: &SaveId,
    bases: &mut Vec<SlotKey>,
) -> Result<Option<(PersistRequest, String, JobUuid)>> {
    let Some(save) = state.saves.get(id).filter(|save| save.decided.is_none()) else { return Ok(None) };
    let (uuid, first, without_base) = (save.uuid, save.failures == 0, save.without_base);
    let parts: Vec<(Rank, SlotKey, u64, v1::SaveBegun)> = save
        .parts
        .iter()
        .filter(|(_, part)| part.is_to_persist())
        .filter_map(|(rank, part)| part.slot.map(|(key, fill)| (*rank, key, fill, part.begun.clone())))
        .collect();
    let known = state.jobs.get(&id.job);
    let url = known.and_then(|known| known.store.clone()).ok_or_else(|| {
        Error::unavailable(format!("persisting {id}: nobody has said yet where its store is"))
    })?;
    let share = share(state, id, parts.first().map_or(&[], |(.., begun)| &begun.ranks));
    let (mut ranks, mut world) = (Vec::new(), 0);
    for (rank, key, fill, begun) in &parts {
        state.arenas.take_for_persist(*key, *fill)?;
        let entry = state.arenas.get_mut(*key).expect("a part's slot lives as long as its save");
        let sums = entry.slot_sums()?;
        let (index, data) = (entry.slot.index()?, Bytes::from_owner(entry.slot.data()?));
        world = index.world_size;
        let base = begun.base_steps.first().filter(|_| !without_base).map(|base| Step(*base));
        let base = base.map(|step| base_slot(state, id, *rank, uuid, step, bases));
        ranks.push(RankSlot { rank: *rank, data, index, sums, base });
    }
    if first {
        let event = v1::StepEvent { step: id.step.0, state: "persisting".to_owned(), ..Default::default() };
        state.push_step(id, event);
    }
    let attempt = Attempt { job_uuid: uuid, step: id.step, generation: id.generation };
    let request = PersistRequest { attempt, world_size: WorldSize(world), ranks, replicated: share };
    Ok(Some((request, url, uuid)))
}

/// This node's part of what all nodes hold alike. Where it is not known it stores everything: equal bytes twice are safe,
/// none is not.
fn share(state: &State, id: &SaveId, expected: &[u32]) -> NodeShare {
    let known = state.jobs.get(&id.job);
    known.and_then(|known| known.share(&state.node, id.generation, expected)).unwrap_or(NodeShare::ALONE)
}

fn base_slot(
    state: &mut State,
    id: &SaveId,
    rank: Rank,
    uuid: JobUuid,
    step: Step,
    bases: &mut Vec<SlotKey>,
) -> BaseSlot {
    let holds = state.arenas.keys(|entry, slot| {
        entry.is_of(&id.job, uuid, rank)
            && entry.arena.slots() >= SLOTS_FOR_BASE
            && slot.used == Use::Clean
            && slot.step == step
    });
    let held = holds.first().and_then(|key| {
        let slot = &state.arenas.get(*key)?.slot;
        Some((*key, (Bytes::from_owner(slot.data().ok()?), slot.index().ok()?)))
    });
    let slot = held.map(|(key, slot)| {
        state.hold(key);
        bases.push(key);
        slot
    });
    BaseSlot { step, slot }
}

fn note_durable(state: &mut State, id: &SaveId, durable: Vec<Durable>) {
    let mut reports = Vec::new();
    if let Some(save) = state.saves.get_mut(id) {
        for durable in durable {
            let Some(part) = save.parts.get_mut(&durable.rank) else { continue };
            state.metrics.saves_durable.inc();
            state.metrics.state_bytes.inc_by(durable.state_bytes);
            state.metrics.stored_bytes.inc_by(durable.stored_bytes);
            reports.push(durable_report(part, &durable));
            part.stage = Stage::Durable(durable);
        }
    }
    for report in reports {
        state.line.report(Report::Durable(report));
    }
    state.io_ended(id);
}

/// Tries again after a while, or gives the step up where trying again can't help.
fn failed(node: &Arc<Node>, id: &SaveId, error: Error, with_base: bool) {
    node.metrics.store_failed("persist", error.kind);
    if matches!(error.kind, Kind::Unavailable | Kind::Timeout) {
        node.metrics.store_reachable.set(0);
    }
    let again = node.change(|state| {
        let limit = node.settings.commit_timeout(state.jobs.get(&id.job));
        let again = note_failed(state, id, &error, with_base, limit);
        state.io_ended(id);
        again
    });
    let Some(wait) = again else {
        tracing::error!(job = %id.job, step = id.step.0, "giving up a step that can't be persisted: {error}");
        return;
    };
    tracing::warn!(job = %id.job, step = id.step.0, "persisting failed, again in {wait:?}: {error}");
    let (later, id) = (node.clone(), id.clone());
    node.spawn(async move {
        tokio::time::sleep(wait).await;
        node_retry(&later, &id);
    });
}

fn node_retry(node: &Arc<Node>, id: &SaveId) {
    node.change(|state| {
        state.metrics.store_retries.inc();
        state.persist_if_ready(id);
    });
}

/// None: given up. `limit`: how long a full store is asked for a dead trainer's step.
fn note_failed(
    state: &mut State,
    id: &SaveId,
    error: &Error,
    with_base: bool,
    limit: Duration,
) -> Option<Duration> {
    let now = state.now();
    let save = state.saves.get_mut(id)?;
    save.failures += 1;
    save.last_error = Some(error.clone());
    let (failures, decided, waited) = (save.failures, save.decided.is_some(), now.saturating_sub(save.since));
    let orphaned = save.parts.values().all(|part| !state.sessions.contains_key(&part.session));
    let base_is_gone = with_base && matches!(error.kind, Kind::NotFound | Kind::Corrupt | Kind::Conflict);
    save.without_base |= base_is_gone;
    let slots: Vec<(Rank, SlotKey, u64, bool)> = save
        .parts
        .iter()
        .filter_map(|(rank, part)| part.slot.map(|(key, fill)| (*rank, key, fill, part.is_to_persist())))
        .collect();
    if base_is_gone {
        let tried = slots.iter().filter(|(.., tried)| *tried).count();
        state.metrics.saves_incremental_without_base.inc_by(tried as u64);
    }
    let hopeless = match error.kind {
        Kind::Unavailable | Kind::Timeout => false,
        // Whose trainer is dead has no other copy, and is not in anybody's way until a save waits for its slot.
        Kind::Overloaded => failures >= FULL_TRIES && (!orphaned || waited >= limit),
        _ => !base_is_gone,
    };
    for (rank, key, fill, tried) in &slots {
        if *tried && state.arenas.get(*key).is_some_and(|entry| entry.used == Use::Persisting) {
            state.arenas.return_to_sealed(*key, *fill);
        }
        if hopeless && !decided {
            state.fail_part(id, *rank, error.clone(), false);
        }
    }
    if failures == 1 && !hopeless && !base_is_gone {
        let again = match error.kind {
            Kind::Overloaded => "tried again a few times",
            _ => "tried again until it succeeds or a later save needs its memory",
        };
        let mut what = error.message.clone();
        // The store's own errors begin with what was being done.
        if !what.starts_with("persisting ") {
            what = format!("persisting step {}: {what}", id.step);
        }
        state.warn_trainers(&id.job, &format!("{what} ({again})"));
    }
    (!hopeless).then(|| FIRST_RETRY.saturating_mul(1 << failures.min(8).saturating_sub(1)).min(LAST_RETRY))
}

/// Takes the checksums of a slot that was just sealed.
pub(super) async fn sum(node: Arc<Node>, key: SlotKey, fill: u64) {
    let slot = node.change(|state| {
        let entry = state.arenas.get_mut(key).filter(|entry| entry.fill == fill)?;
        let (slot, sums) = (entry.slot.clone(), entry.slot_sums());
        state.hold(key);
        Some((slot, sums, state.save_in(key, fill).cloned()))
    });
    let Some((slot, sums, id)) = slot else { return };
    let of_save = |state: &State| Some(state.saves.get(id.as_ref()?)?.pace.clone());
    let pace = node.read(of_save).unwrap_or_else(Pace::hurried);
    let summing = tokio::task::spawn_blocking(move || {
        if let Some(known) = Sums::read(&slot, fill) {
            return Ok(known);
        }
        let sums = Sums::take(&slot, fill, &*sums?, &pace)?;
        // Good for this sidecar; the next one can only take them anew, or go without.
        sums.write(&slot).unwrap_or_else(|error| tracing::warn!("keeping checksums: {error}"));
        Ok(sums)
    });
    let sums = match &id {
        Some(id) => paced(&node, id, summing).await,
        None => summing.await,
    };
    let sums = sums.unwrap_or_else(|error| Err(Error::internal(format!("summing a slot: {error}"))));
    node.change(|state| {
        state.let_off(key);
        let Some(entry) = state.arenas.get_mut(key).filter(|entry| entry.fill == fill) else { return };
        entry.summing = None;
        match sums {
            Ok(sums) => entry.sums = Some(Arc::new(sums)),
            // Freed meanwhile, most likely; without checksums it is not restored from.
            Err(error) => tracing::debug!("taking checksums: {error}"),
        }
    });
}

/// How a wait for a commit ends when its time is over: with what holds it up, as far as that is known here.
pub(super) fn still_pending(state: &State, id: &SaveId, waited: Duration) -> Error {
    let doing = format!("waiting for the commit of {id}");
    match state.saves.get(id).and_then(|save| save.last_error.clone()) {
        Some(error) => error.while_doing(format!("{doing}: not durable after {waited:?}")),
        None if !state.line.attached => {
            let away = state.line.problem.clone();
            let away = away.unwrap_or_else(|| Error::unavailable("the coordinator is not reached"));
            away.while_doing(format!("{doing}: not committed after {waited:?}"))
        }
        None => Error::timeout(format!("{doing}: not committed after {waited:?}"))
            .hint("other ranks may not have saved it yet; `strata status` names who is missing"),
    }
}

/// Whether an INCREMENTAL save has no base: counted, and stored whole.
pub(super) fn choose_base(state: &State, id: &SaveId, kind: SaveKind, world: WorldSize) -> Vec<u64> {
    if kind != SaveKind::Incremental {
        return Vec::new();
    }
    match state.jobs.get(&id.job).and_then(|job| job.base(world)) {
        Some(step) => vec![step.0],
        None => {
            state.metrics.saves_incremental_without_base.inc();
            Vec::new()
        }
    }
}
