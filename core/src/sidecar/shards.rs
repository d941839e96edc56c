//! Which shards a rank of this node holds, from the sidecar's own copy of the dataset's map: made once a generation, from what the
//! coordinator says of the dataset. It answers also while the coordinator is away.

use std::sync::Arc;

use tokio::time::Instant;

use super::node::Node;
use crate::data::{Assignment, HeldShards};
use crate::error::Result;
use crate::ids::{Generation, JobName, Rank, WorldSize};
use crate::proto::v1;

/// A member's question about its own generation. None: it is another question, or that generation is not open here, and the
/// coordinator must be asked. Fails as the coordinator's own look-up does.
pub(super) async fn held(
    node: &Arc<Node>,
    request: &v1::GetShardsRequest,
    deadline: Instant,
) -> Result<Option<Arc<v1::GetShardsReply>>> {
    let (job, generation) = (request.job.parse::<JobName>()?, Generation(request.generation));
    let open = node.read(|state| {
        let open = state.jobs.get(&job)?.open.as_ref()?;
        let is_own = open.generation == generation.0 && [0, open.world_size].contains(&request.world_size);
        is_own.then_some(WorldSize(open.world_size))
    });
    let Some(world) = open else { return Ok(None) };
    let known = node.read(|state| state.jobs.get(&job)?.assignments.get(&request.dataset).cloned());
    let map = match known {
        Some(map) => map,
        None => learn(node, &job, generation, world, &request.dataset, deadline).await?,
    };
    node.metrics.shard_requests.inc();
    map.of(Rank(request.rank), request.epoch).map(Some)
}

async fn learn(
    node: &Arc<Node>,
    job: &JobName,
    generation: Generation,
    world: WorldSize,
    dataset: &str,
    deadline: Instant,
) -> Result<Arc<HeldShards>> {
    let spec = node.uplink.call("looking up a dataset", deadline, || {
        let mut client = node.uplink.dataset();
        let request = v1::GetDatasetRequest { job: job.to_string(), id: dataset.to_owned() };
        async move { client.get_dataset(request).await }
    });
    let map = Arc::new(HeldShards::new(Assignment::new(spec.await?, world)?));
    node.change(|state| state.job(job).learn_assignment(generation, dataset, map.clone()));
    Ok(map)
}
