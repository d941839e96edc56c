//! Waiting until a session's generation has opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::node::Node;
use super::records::SessionRecord;
use super::state::State;
use crate::error::{Error, Result};
use crate::ids::SessionId;
use crate::proto::v1;

/// The coordinator keeps the time and names who has not come; ours is for one that does not answer.
const GRACE: Duration = Duration::from_secs(2);

/// Within which the coordinator's push usually comes: no call of every rank has to wait for it there meanwhile.
const PUSHED: Duration = Duration::from_secs(3);

/// Returns when the session is a member. Fenced when its generation has ended, or its registration was lost; Timeout
/// naming the missing ranks.
pub(super) async fn joined(node: &Arc<Node>, session: SessionId, deadline: Instant) -> Result<()> {
    until(node, session, deadline, membership).await
}

/// The same, with the members. A sidecar that was restarted has to hear of them again.
pub(super) async fn world(node: &Arc<Node>, session: SessionId, deadline: Instant) -> Result<v1::Generation> {
    until(node, session, deadline, |state, id| match membership(state, id)? {
        Ok(()) => members(state, id).map(Ok),
        Err(error) => Some(Err(error)),
    })
    .await
}

async fn until<T>(
    node: &Arc<Node>,
    session: SessionId,
    deadline: Instant,
    ready: impl Fn(&State, SessionId) -> Option<Result<T>>,
) -> Result<T> {
    if let Some(known) = node.read(|state| ready(state, session)) {
        return known;
    }
    let record = node.read(|state| state.sessions.get(&session).map(|known| known.record.clone()));
    let record = record.ok_or_else(gone)?;
    let pushed = node.wait(|state| ready(state, session));
    let refused = async {
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(PUSHED.min(left / 2)).await;
        refusal(node, &record, deadline).await
    };
    let either = async {
        tokio::select! {
            biased;
            pushed = pushed => pushed,
            error = refused => Err(error),
        }
    };
    match timeout_at(deadline + GRACE, either).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(Error::timeout(format!("waiting for the world of job {}: it has not opened", record.job)))
        }
    }
}

fn membership(state: &State, id: SessionId) -> Option<Result<()>> {
    let Some(session) = state.sessions.get(&id) else { return Some(Err(gone())) };
    match &session.fenced {
        Some(error) => Some(Err(error.clone())),
        None => session.record.generation.map(|_| Ok(())),
    }
}

fn members(state: &State, id: SessionId) -> Option<v1::Generation> {
    let session = state.sessions.get(&id)?;
    let open = state.jobs.get(&session.record.job)?.open.clone()?;
    (open.generation == session.generation().0).then_some(open)
}

fn gone() -> Error {
    Error::fenced("waiting for the world: the session has ended").hint("call strata.connect again")
}

/// Asks the coordinator itself, in case its push was lost, or the registration was. Returns only with why it will not
/// come: an opened generation becomes part of the state.
async fn refusal(node: &Arc<Node>, record: &SessionRecord, deadline: Instant) -> Error {
    let doing = format!("waiting for the world of job {}", record.job);
    let answer = node.uplink.call(&doing, deadline + GRACE, || {
        let left = deadline.saturating_duration_since(Instant::now());
        let request = v1::WaitGenerationRequest {
            job: record.job.to_string(),
            rank: record.rank.0,
            incarnation: record.incarnation.clone(),
            timeout_ms: (left.as_millis() as u64).max(1),
            place: true,
        };
        let mut coordinator = node.uplink.coordinator();
        async move { coordinator.wait_generation(request).await }
    });
    match answer.await {
        Ok(opened) => {
            node.change(|state| state.generation_opened(opened));
            std::future::pending().await
        }
        // It stayed away for all of our time.
        Err(error) => error,
    }
}
