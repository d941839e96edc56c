//! Registrations at the coordinator. The ranks of a node come at about the same time: while one call is under way the
//! others gather, and go together in the next.

use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::node::Node;
use crate::error::Result;
use crate::proto::v1;

/// Of one call; with what the store holds in each of them they may be large.
const TOGETHER: usize = 16 << 20;

type Waiting = (v1::RegisterWorkerRequest, oneshot::Sender<Option<v1::RegisterWorkerReply>>);

/// Registrations that wait for the call under way to come back.
#[derive(Default)]
pub(super) struct Registering {
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    under_way: bool,
    waiting: Vec<Waiting>,
}

/// Registers a rank; repeats that until `deadline` while the coordinator can't be reached, and waits for what may pass.
pub(super) async fn register(
    node: &Arc<Node>,
    request: v1::RegisterWorkerRequest,
    deadline: Instant,
) -> Result<v1::RegisterWorkerReply> {
    if node.read(|state| state.line.registers_many)
        && let Some(reply) = together(node, request.clone(), deadline).await
    {
        return Ok(reply);
    }
    node.uplink
        .call("registering at the coordinator", deadline, || {
            let (mut coordinator, request) = (node.uplink.coordinator(), request.clone());
            async move { coordinator.register_worker(request).await }
        })
        .await
}

/// None when that did not go well: the rank registers by itself, which tells why.
async fn together(
    node: &Arc<Node>,
    request: v1::RegisterWorkerRequest,
    deadline: Instant,
) -> Option<v1::RegisterWorkerReply> {
    let (send, receive) = oneshot::channel();
    let first = {
        let mut gathered = node.registering.gathered.lock();
        gathered.waiting.push((request, send));
        !std::mem::replace(&mut gathered.under_way, true)
    };
    if first {
        let calling = node.clone();
        node.spawn(async move {
            while let Some(together) = calling.registering.next() {
                call(&calling, together, deadline).await;
            }
        });
    }
    timeout_at(deadline, receive).await.ok()?.ok()?
}

impl Registering {
    /// What goes into one call.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut gathered = self.gathered.lock();
        let mut bytes = 0;
        let fits = |(request, _): &&Waiting| {
            let fits = bytes < TOGETHER;
            bytes += request.encoded_len();
            fits
        };
        let count = gathered.waiting.iter().take_while(fits).count();
        gathered.under_way = count > 0;
        (count > 0).then(|| gathered.waiting.drain(..count).collect())
    }
}

async fn call(node: &Arc<Node>, together: Vec<Waiting>, deadline: Instant) {
    let (registrations, waiting): (Vec<_>, Vec<_>) = together.into_iter().unzip();
    let request = v1::RegisterWorkersRequest { registrations };
    let mut coordinator = node.uplink.coordinator();
    let outcomes = match timeout_at(deadline, coordinator.register_workers(request)).await {
        Ok(Ok(reply)) => reply.into_inner().outcomes,
        // Each tries by itself.
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let outcomes = outcomes.into_iter().map(|outcome| outcome.registered).chain(std::iter::repeat(None));
    for (answer, registered) in waiting.into_iter().zip(outcomes) {
        // Its trainer may be gone.
        let _ = answer.send(registered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(bytes: usize) -> Waiting {
        let request = v1::RegisterWorkerRequest { host: "h".repeat(bytes), ..Default::default() };
        (request, oneshot::channel().0)
    }

    #[test]
    fn a_call_takes_all_that_wait_as_far_as_a_message_holds_them() {
        let registering = Registering::default();
        assert!(registering.next().is_none());
        let take = || registering.next().map(|together| together.len());
        registering.gathered.lock().waiting.extend((0..8).map(|_| waiting(10)));
        assert_eq!((take(), registering.gathered.lock().under_way), (Some(8), true));
        registering.gathered.lock().waiting.extend((0..3).map(|_| waiting(TOGETHER / 2 + 1)));
        assert_eq!((take(), take(), take()), (Some(2), Some(1), None));
        assert!(!registering.gathered.lock().under_way, "the next one calls again");
    }
}
