//! Waiting until a session's generation has opened.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::node::Node;
use super::state::State;
use crate::error::{Error, Result};
use crate::ids::SessionId;
use crate::proto::v1;

/// For the answer that names the missing ranks, after our own time is over.
const NAME_THEM: Duration = Duration::from_secs(2);

/// Returns when the session is a member. Fenced when its generation has ended; Timeout naming the missing ranks.
pub(super) async fn joined(
    node: &Arc<Node>,
    session: SessionId,
    deadline: Instant,
) -> Result<v1::Generation> {
    let member = node.wait(|state| membership(state, session));
    match timeout_at(deadline, member).await {
        Ok(answer) => answer,
        Err(_) => Err(missing(node, session).await),
    }
}

fn membership(state: &mut State, id: SessionId) -> Option<Result<v1::Generation>> {
    let Some(session) = state.sessions.get(&id) else {
        return Some(Err(
            Error::fenced("waiting for the world: the session has ended").hint("call strata.connect again")
        ));
    };
    if let Some(error) = &session.fenced {
        return Some(Err(error.clone()));
    }
    session.record.generation?;
    let open = state.jobs.get(&session.record.job).and_then(|job| job.open.clone())?;
    (open.generation == session.generation().0).then_some(Ok(open))
}

/// The coordinator knows who has not come.
async fn missing(node: &Arc<Node>, id: SessionId) -> Error {
    let asked = node.read(|state| state.sessions.get(&id).map(|session| session.record.clone()));
    let Some(record) = asked else {
        return Error::timeout("waiting for the world: the session has ended");
    };
    let request = v1::WaitGenerationRequest {
        job: record.job.to_string(),
        rank: record.rank.0,
        incarnation: record.incarnation.clone(),
        timeout_ms: 1,
    };
    let doing = format!("waiting for the world of job {}", record.job);
    let answer = node.uplink.call(&doing, Instant::now() + NAME_THEM, || {
        let (mut coordinator, request) = (node.uplink.coordinator(), request.clone());
        async move { coordinator.wait_generation(request).await }
    });
    match answer.await {
        Ok(_) => Error::timeout(format!("{doing}: it has just opened")).hint("try again"),
        Err(error) => error,
    }
}
