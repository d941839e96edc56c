//! What a restarted sidecar asks the coordinator: which steps are committed, so that INCREMENTAL saves have their base.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::Node;
use crate::ids::JobName;
use crate::proto::v1;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn steps(node: Arc<Node>, job: JobName) {
    let known = node.read(|state| state.jobs.get(&job).is_some_and(|job| !job.committed.is_empty()));
    if known {
        return;
    }
    let answer = node.uplink.call("listing the steps", Instant::now() + PATIENCE, || {
        let (mut checkpoint, request) =
            (node.uplink.checkpoint(), v1::ListStepsRequest { job: job.to_string() });
        async move { checkpoint.list_steps(request).await }
    });
    match answer.await {
        Ok(listed) => node.change(|state| {
            let job = state.job(&job);
            // A save refers to what the first store has, nothing else.
            let here = listed.steps.iter().filter(|info| !info.elsewhere);
            here.for_each(|info| job.note_committed(info));
        }),
        // The next save is stored whole, and the one after it has a base again.
        Err(error) => tracing::debug!(%job, "learning what is committed: {error}"),
    }
}
