//! Goodbye: the rank leaves its generation in good order; what it sealed is still committed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::Node;
use crate::error::Kind;
use crate::ids::SessionId;
use crate::proto::v1;

/// The trainer waits for its goodbye to be taken note of at most 2 s.
const NOTED: Duration = Duration::from_millis(1500);
/// A coordinator that stays away longer has let the rank's lease run out by then.
const LATER: Duration = Duration::from_secs(60);

pub(super) async fn leave(node: &Arc<Node>, session: SessionId) {
    let asked = node.read(|state| {
        state.sessions.get(&session).map(|known| (known.caller(), known.record.incarnation.clone()))
    });
    let Some((caller, incarnation)) = asked else { return };
    // Its end tells the trainer that it may go: not before the coordinator has taken note.
    let _stream = node.change(|state| {
        // A private sidecar must not end before: its coordinator would find the rank alive at its next start.
        state.leaving += usize::from(!incarnation.is_empty());
        state.left(session)
    });
    if incarnation.is_empty() {
        return;
    }
    let request = v1::RemoveWorkerRequest { caller: Some(caller), incarnation };
    // The first try is waited for, so that a trainer that closes and joins again finds its number free.
    if told(node, &request, NOTED).await {
        return node.change(|state| state.leaving -= 1);
    }
    let node_later = node.clone();
    node.spawn(async move {
        told(&node_later, &request, LATER).await;
        node_later.change(|state| state.leaving -= 1);
    });
}

/// A registration that came to nothing here.
pub(super) async fn unregister(node: &Arc<Node>, caller: v1::Caller, incarnation: &str) {
    let request = v1::RemoveWorkerRequest { caller: Some(caller), incarnation: incarnation.to_owned() };
    told(node, &request, NOTED).await;
}

async fn told(node: &Arc<Node>, request: &v1::RemoveWorkerRequest, within: Duration) -> bool {
    let answer = node.uplink.call("leaving the job", Instant::now() + within, || {
        let (mut coordinator, request) = (node.uplink.coordinator(), request.clone());
        async move { coordinator.remove_worker(request).await }
    });
    match answer.await {
        Ok(_) => true,
        Err(error) if error.kind == Kind::Unavailable => false,
        // It has forgotten us already.
        Err(error) => {
            tracing::debug!("leaving: {error}");
            true
        }
    }
}
