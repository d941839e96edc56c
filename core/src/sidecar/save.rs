//! A rank's save, from the question for a slot to its seal.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, timeout_at};

use super::joined::joined;
use super::node::Node;
use super::state::{Grant, Job, Outcome, Part, SaveId, SlotKey, Stage, State};
use super::{arena, persist};
use crate::error::{Error, Kind, Result};
use crate::ids::{Rank, SessionId, Step, WorldSize};
use crate::proto::v1::{self, node_report::Report};

/// A skipped save may be tried again with the next step.
const SOON: Duration = Duration::from_secs(1);

/// Between two questions about a step whose commit nobody has told.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Grants a slot, waiting up to `save_wait`; then the step is skipped on all ranks. See sidecar.proto for the errors.
pub(super) async fn begin(
    node: &Arc<Node>,
    session: SessionId,
    request: v1::BeginSaveRequest,
) -> Result<v1::BeginSaveReply> {
    let started = Instant::now();
    let (budget, wait) = node.read(|state| {
        let (job, wait) = (state.job_of(session), node.settings.save_wait(state.job_of(session)));
        (job.map_or(wait, Job::timeout), wait)
    });
    joined(node, session, started + budget).await?;
    forget_removed(node, session, Step(request.step)).await;
    let waits = Instant::now();
    let (id, rank, needed) = match node.change(|state| open(state, session, &request))? {
        Opened::NotExpected => return Ok(v1::BeginSaveReply::default()),
        Opened::Again(reply) => return Ok(reply),
        Opened::Part { id, rank, needed } => (id, rank, needed),
    };
    let outcome = grant(node, session, &id, rank, needed, wait).await;
    node.metrics.save_wait.observe(waits.elapsed().as_secs_f64());
    match outcome {
        Ok((key, fresh)) => {
            node.metrics.saves_begun.inc();
            let waited = waits.elapsed();
            node.read(|state| reply(state, &id, rank, &request, key, waited, fresh))
        }
        Err(error) => {
            let skipped = error.kind == Kind::Overloaded && error.retry_after.is_some();
            node.change(|state| state.fail_part(&id, rank, error.clone(), skipped));
            Err(error)
        }
    }
}

/// A number that an earlier generation committed is free again once its step has been removed: this node need not have
/// heard of that. Within its own generation it stays taken: its slots would be mistaken for the new save's.
async fn forget_removed(node: &Arc<Node>, session: SessionId, step: Step) {
    let taken = node.read(|state| {
        let id = state.save_id(session, step)?;
        let earlier = state.jobs.get(&id.job)?.committed_before(step, id.generation);
        earlier.then_some(id)
    });
    let Some(id) = taken else { return };
    let answer = node.uplink.call("looking the step up", Instant::now() + ASK_AGAIN, || {
        let request = v1::GetStepRequest { job: id.job.to_string(), step: id.step.0 };
        let mut checkpoint = node.uplink.checkpoint();
        async move { checkpoint.get_step(request).await }
    });
    if answer.await.is_err_and(|error| error.kind == Kind::NotFound) {
        node.change(|state| state.job(&id.job).forget(step));
    }
}

enum Opened {
    NotExpected,
    /// Granted before; the answer was lost.
    Again(v1::BeginSaveReply),
    Part {
        id: SaveId,
        rank: Rank,
        needed: u64,
    },
}

/// Notes the part and tells the coordinator, which pins the bases before anything refers to them.
fn open(state: &mut State, session: SessionId, request: &v1::BeginSaveRequest) -> Result<Opened> {
    let known = state.member(session.0, state.sessions.get(&session).map_or(0, |known| known.record.uid))?;
    let (record, caller) = (known.record.clone(), known.caller());
    let step = Step(request.step);
    let id = SaveId { job: record.job.clone(), step, generation: known.generation() };
    check(state, &id, request, record.world)?;
    state.finish_earlier(session, step);
    // Also when the others have committed it by now: its handle hears of that.
    if !request.ranks.is_empty() && !request.ranks.contains(&record.rank.0) {
        return Ok(Opened::NotExpected);
    }
    check_number(state, &id)?;
    if let Some(reply) = granted(state, &id, session, record.rank, request) {
        return Ok(Opened::Again(reply));
    }
    let kind = request.kind();
    let base_steps = persist::choose_base(state, &id, kind, record.world);
    let begun = v1::SaveBegun {
        caller: Some(v1::Caller { token: String::new(), ..caller.clone() }),
        step: request.step,
        kind: request.kind,
        ranks: request.ranks.clone(),
        data: request.data.clone(),
        metrics_json: request.metrics_json.clone(),
        meta_json: request.meta_json.clone(),
        base_steps,
    };
    let save = state.save_of(&id, record.job_uuid, &request.ranks);
    if let Some(other) =
        save.parts.get(&record.rank).filter(|part| !matches!(part.stage, Stage::Failed { .. }))
    {
        let what = format!("saving step {step}: rank {} is saving it already", record.rank);
        return Err(match other.session == session {
            true => {
                Error::conflict(what).hint("wait for the save before, or save under the next step number")
            }
            false => Error::conflict(what),
        });
    }
    let part = Part { begun: begun.clone(), is_told: true, session, slot: None, stage: Stage::Waiting };
    save.parts.insert(record.rank, part);
    state.line.report(Report::Begun(begun));
    let alone = !request.has_replicated || stages_replicated(state, &id, record.rank, &request.ranks);
    let needed = if alone { request.slot_bytes } else { request.slot_bytes_private };
    Ok(Opened::Part { id, rank: record.rank, needed })
}

fn check(state: &State, id: &SaveId, request: &v1::BeginSaveRequest, world: WorldSize) -> Result<()> {
    if let Some(rank) = request.ranks.iter().find(|rank| **rank >= world.0) {
        return Err(Error::invalid(format!("saving step {}: rank {rank} of a world of {world}", id.step))
            .hint("ranks= names ranks of this job, counted from 0"));
    }
    let known = state.jobs.get(&id.job);
    known.and_then(|job| job.problem.clone()).map_or(Ok(()), Err)
}

fn check_number(state: &State, id: &SaveId) -> Result<()> {
    match state.jobs.get(&id.job).and_then(|job| job.outcome(id.step, id.generation)) {
        None => Ok(()),
        Some(Outcome::Abandoned { error, skipped: true }) => Err(error.clone().retry_after(SOON)),
        Some(Outcome::Abandoned { error, .. }) => Err(error.clone()),
        Some(Outcome::Committed(_)) => Err(Error::conflict("it is already committed")
            .hint("restore first, so that training goes on behind it; or remove the step")),
    }
}

/// The lowest expected rank of a node stages what all ranks hold alike: the same one for every step.
fn stages_replicated(state: &State, id: &SaveId, rank: Rank, expected: &[u32]) -> bool {
    let here = state.jobs.get(&id.job).and_then(|job| job.here(&state.node, id.generation, expected));
    here.is_none_or(|here| here.first() == Some(&rank))
}

fn granted(
    state: &State,
    id: &SaveId,
    session: SessionId,
    rank: Rank,
    request: &v1::BeginSaveRequest,
) -> Option<v1::BeginSaveReply> {
    let part = state.saves.get(id)?.parts.get(&rank)?;
    let (key, _) = part.slot.filter(|_| part.session == session && matches!(part.stage, Stage::Filling))?;
    reply(state, id, rank, request, key, Duration::ZERO, false).ok()
}

fn reply(
    state: &State,
    id: &SaveId,
    rank: Rank,
    request: &v1::BeginSaveRequest,
    key: SlotKey,
    waited: Duration,
    fresh: bool,
) -> Result<v1::BeginSaveReply> {
    let gone = || Error::conflict("it was abandoned before it began");
    let part = state.saves.get(id).and_then(|save| save.parts.get(&rank)).ok_or_else(gone)?;
    let (_, fill) = part.slot.ok_or_else(gone)?;
    let arena = state.arenas.by_id[&key.arena].arena.path();
    Ok(v1::BeginSaveReply {
        stage: true,
        stage_replicated: !request.has_replicated || stages_replicated(state, id, rank, &request.ranks),
        arena: arena.display().to_string(),
        slot: key.slot,
        fill,
        waited_ms: waited.as_millis() as u64,
        begun: part.begun.encode_to_vec(),
        fresh_arena: fresh,
    })
}

/// A slot of the session's arena, which is made or replaced where it must be; whether that was made now.
async fn grant(
    node: &Arc<Node>,
    session: SessionId,
    id: &SaveId,
    rank: Rank,
    needed: u64,
    wait: Duration,
) -> Result<(SlotKey, bool)> {
    let until = Instant::now() + wait;
    let mut fresh = false;
    let mut gave_up = false;
    loop {
        let next = node.wait(|state| match try_grant(state, session, id, rank, needed) {
            Ok(Tried::Wait) => None,
            Ok(tried) => Some(Ok(tried)),
            Err(error) => Some(Err(error)),
        });
        match timeout_at(until, next).await {
            Ok(Ok(Tried::Slot(key))) => return Ok((key, fresh)),
            Ok(Ok(_)) => {
                arena::make(node, session, needed, node.settings.slots).await?;
                fresh = true;
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                // A step that the store has not taken for so long makes room, once.
                let (error, limit) = node.read(|state| {
                    let limit = node.settings.commit_timeout(state.job_of(session));
                    (no_slot(state, session, wait), limit)
                });
                if gave_up || !node.change(|state| state.give_up_stalest(session, &error, limit)) {
                    return Err(error);
                }
                gave_up = true;
            }
        }
    }
}

enum Tried {
    Slot(SlotKey),
    Wait,
    NeedArena,
}

fn try_grant(state: &mut State, session: SessionId, id: &SaveId, rank: Rank, needed: u64) -> Result<Tried> {
    let known = state.sessions.get(&session).ok_or_else(|| Error::fenced("the session has ended"))?;
    if let Some(error) = known.fenced.clone() {
        return Err(error);
    }
    if state.draining {
        return Err(Error::overloaded("this node's sidecar is being stopped").retry_after(SOON));
    }
    // Another rank skipped it, or could not save it, meanwhile.
    if let Some(Outcome::Abandoned { error, skipped }) =
        state.jobs.get(&id.job).and_then(|job| job.outcome(id.step, id.generation))
    {
        let error = error.clone();
        return Err(if *skipped { error.retry_after(SOON) } else { error });
    }
    // Its trainer may have given it up, or been granted it by the same call made again.
    let part = state.saves.get(id).and_then(|save| save.parts.get(&rank));
    if !part.is_some_and(|part| part.session == session && matches!(part.stage, Stage::Waiting)) {
        return Err(Error::conflict("it was abandoned before it began"));
    }
    match state.grant(session, needed) {
        Grant::Wait => Ok(Tried::Wait),
        Grant::NeedArena(_) => Ok(Tried::NeedArena),
        Grant::Slot(key) => {
            let fill = state.begin_fill(session, key, id.step)?;
            let part = state.saves.get_mut(id).and_then(|save| save.parts.get_mut(&rank));
            let part = part.expect("it was there, and the lock is held");
            (part.slot, part.stage) = (Some((key, fill)), Stage::Filling);
            Ok(Tried::Slot(key))
        }
    }
}

fn no_slot(state: &State, session: SessionId, waited: Duration) -> Error {
    Error::overloaded(format!("no slot came free in {waited:?}: {}", state.busy_slots(session)))
        .hint("saves come faster than the store takes them: save less often, or give the arena more slots (STRATA_SLOTS)")
        .retry_after(waited)
}

/// Tells what the header already says.
pub(super) fn seal(state: &mut State, session: SessionId, request: &v1::SealSaveRequest) -> Result<()> {
    let step = Step(request.step);
    let doing = format!("sealing step {step}");
    let found = state.saves.iter().find_map(|(id, save)| {
        let (rank, part) = save.parts.iter().find(|(_, part)| part.session == session)?;
        (id.step == step && part.slot.is_some_and(|(_, fill)| fill == request.fill))
            .then(|| (id.clone(), *rank))
    });
    let Some((id, rank)) = found else { return sealed_before(state, session, step) };
    match state.note_sealed(&id, rank)? {
        true => Ok(()),
        false => Err(Error::invalid(format!("{doing}: the slot's header does not say so"))),
    }
}

/// A repeated call, or a step that was decided before its seal was told.
fn sealed_before(state: &mut State, session: SessionId, step: Step) -> Result<()> {
    state.arenas.let_go(session);
    let outcome = state.save_id(session, step).and_then(|id| {
        let job = state.jobs.get(&id.job)?;
        job.outcome(step, id.generation).cloned()
    });
    match outcome {
        Some(Outcome::Committed(_)) => Ok(()),
        Some(Outcome::Abandoned { error, .. }) => Err(error),
        None => Err(Error::conflict(format!("sealing step {step}: it was given up"))),
    }
}

/// The trainer could not fill the slot, or does not wait for one any more.
pub(super) fn abandon(state: &mut State, session: SessionId, request: &v1::AbandonSaveRequest) {
    let Some(id) = state.save_id(session, Step(request.step)) else { return };
    let rank = state.sessions[&session].record.rank;
    let ours = state.saves.get(&id).and_then(|save| save.parts.get(&rank));
    let open = |part: &Part| matches!(part.stage, Stage::Filling | Stage::Waiting);
    if ours.is_some_and(|part| part.session == session && open(part)) {
        // Nobody has cancelled anything on the other ranks: their next step may well succeed.
        let error = Error::unavailable(request.reason.clone());
        state.fail_part(&id, rank, error, false);
    }
    state.arenas.let_go(session);
}

/// Returns when the step is committed, over all ranks.
pub(super) async fn wait_committed(
    node: &Arc<Node>,
    session: SessionId,
    request: &v1::WaitCommittedRequest,
) -> Result<v1::StepInfo> {
    let waited = match request.timeout_ms {
        0 => node.read(|state| node.settings.commit_timeout(state.job_of(session))),
        given => Duration::from_millis(given),
    };
    let deadline = Instant::now() + waited;
    let step = Step(request.step);
    let gone = || Error::fenced(format!("waiting for the commit of step {step}: the session has ended"));
    let id = node.read(|state| state.save_id(session, step)).ok_or_else(gone)?;
    node.change(|state| {
        if let Some(save) = state.saves.get_mut(&id) {
            save.is_awaited = true;
        }
    });
    let heard = node.wait(|state| match state.jobs.get(&id.job)?.outcome(step, id.generation)? {
        Outcome::Committed(info) => Some(Ok((**info).clone())),
        Outcome::Abandoned { error, .. } => Some(Err(error.clone())),
    });
    let outcome_elsewhere = ask(node, &id);
    let outcome = timeout_at(deadline, async {
        tokio::select! {
            biased;
            heard = heard => heard,
            info = outcome_elsewhere => Ok(info),
        }
    });
    match outcome.await {
        Ok(outcome) => outcome,
        Err(_) => Err(node.read(|state| persist::still_pending(state, &id, waited))),
    }
}

/// A step that was committed before this sidecar was started, or while its line was down: the coordinator knows. Returns
/// only with that.
async fn ask(node: &Arc<Node>, id: &SaveId) -> v1::StepInfo {
    loop {
        let request = v1::GetStepRequest { job: id.job.to_string(), step: id.step.0 };
        let answer = node.uplink.call("looking the step up", Instant::now() + ASK_AGAIN, || {
            let (mut checkpoint, request) = (node.uplink.checkpoint(), request.clone());
            async move { checkpoint.get_step(request).await }
        });
        match answer.await {
            // The same number in another attempt is not this save.
            Ok(info) if info.generation == id.generation.0 => return info,
            _ => tokio::time::sleep(ASK_AGAIN).await,
        }
    }
}
