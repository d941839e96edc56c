//! A rank at a barrier: its arrival is told with those of its node, its wait ends with the release.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::joined::joined;
use super::node::Node;
use super::state::{Meeting, State};
use crate::error::{Error, Result};
use crate::ids::{Rank, SessionId};
use crate::proto::v1::{self, node_report::Report};

/// How long arrivals wait for the other ranks of their node, so that one report serves all.
const FOLD: Duration = Duration::from_millis(20);
/// For the answer that names who is missing, after the caller's time is over.
const NAME_THEM: Duration = Duration::from_secs(2);

/// Returns when every rank of the generation has come. Timeout naming the missing ranks and hosts.
pub(super) async fn wait(
    node: &Arc<Node>,
    session: SessionId,
    name: &str,
    round: u64,
    deadline: Instant,
) -> Result<()> {
    joined(node, session, deadline).await?;
    let (meeting, rank) = node.read(|state| {
        let known = state.sessions.get(&session).ok_or_else(|| Error::fenced("the session has ended"))?;
        let meeting = Meeting {
            job: known.record.job.clone(),
            generation: known.generation(),
            name: name.to_owned(),
            round,
        };
        Ok::<_, Error>((meeting, known.record.rank))
    })?;
    arrive(node, &meeting, rank);
    let released = node.wait(|state| outcome(state, session, &meeting));
    match timeout_at(deadline, released).await {
        Ok(outcome) => outcome,
        Err(_) => missing(node, session, &meeting).await,
    }
}

fn outcome(state: &mut State, session: SessionId, meeting: &Meeting) -> Option<Result<()>> {
    if state.barriers.is_released(meeting) {
        return Some(Ok(()));
    }
    match state.sessions.get(&session) {
        None => Some(Err(Error::fenced("waiting at a barrier: the session has ended"))),
        Some(session) => session.fenced.clone().map(Err),
    }
}

fn arrive(node: &Arc<Node>, meeting: &Meeting, rank: Rank) {
    let whole = node.change(|state| {
        if state.barriers.is_released(meeting) {
            return true;
        }
        let here =
            state.jobs.get(&meeting.job).and_then(|job| job.here(&state.node, meeting.generation, &[]));
        let arrived = state.barriers.arrive(meeting, rank).len();
        let whole = here.is_some_and(|here| arrived >= here.len());
        if whole {
            tell(state, meeting);
        }
        whole
    });
    if whole {
        return;
    }
    let (later, meeting) = (node.clone(), meeting.clone());
    node.spawn(async move {
        tokio::time::sleep(FOLD).await;
        later.change(|state| tell(state, &meeting));
    });
}

fn tell(state: &mut State, meeting: &Meeting) {
    if let Some(arrival) = state.barriers.arrival(meeting) {
        state.line.report(Report::Arrival(arrival));
    }
}

/// The coordinator knows who has not come, and where they should be.
async fn missing(node: &Arc<Node>, session: SessionId, meeting: &Meeting) -> Result<()> {
    let caller = node.read(|state| state.sessions.get(&session).map(|session| session.caller()));
    let request =
        v1::BarrierRequest { caller, name: meeting.name.clone(), round: meeting.round, timeout_ms: 1 };
    let doing = format!("waiting at barrier {:?}", meeting.name);
    let asked = node.uplink.call(&doing, Instant::now() + NAME_THEM, || {
        let (mut coordinator, request) = (node.uplink.coordinator(), request.clone());
        async move { coordinator.barrier(request).await }
    });
    asked.await.map(drop)
}
