//! Where this node stands among those that save some of a generation's ranks: the coordinator knows, and is asked once. Of a
//! save of all ranks it has told with the generation.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::Node;
use super::state::SaveId;
use crate::proto::v1;

/// A coordinator that stays away must not hold up what is Sealed: without an answer the node stores everything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns when the node's place in this save is known, or will not be.
pub(super) async fn learn(node: &Arc<Node>, id: &SaveId) {
    let unknown = node.read(|state| {
        let part = state.saves.get(id)?.parts.values().next()?;
        let known = state.jobs.get(&id.job)?;
        let ranks = &part.begun.ranks;
        known.share(&state.node, id.generation, ranks).is_none().then(|| (state.node.clone(), ranks.clone()))
    });
    let Some((name, ranks)) = unknown else { return };
    let doing = format!("asking who else saves {id}");
    let request = v1::GetPlaceRequest {
        job: id.job.to_string(),
        generation: id.generation.0,
        node: name,
        ranks: ranks.clone(),
    };
    let asked = node.uplink.call(&doing, Instant::now() + PATIENCE, || {
        let (mut coordinator, request) = (node.uplink.coordinator(), request.clone());
        async move { coordinator.get_place(request).await }
    });
    match asked.await {
        Ok(place) => node.change(|state| state.job(&id.job).learn_share(id.generation, ranks, &place.into())),
        Err(error) => tracing::warn!("{error}; what other nodes hold too is stored here as well"),
    }
}
