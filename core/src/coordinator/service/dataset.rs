//! Datasets and their shards.

use std::sync::Arc;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::{Need, Services};
use crate::data::Assignment;
use crate::ids::Rank;
use crate::proto::v1;

#[tonic::async_trait]
impl v1::dataset_server::Dataset for Services {
    async fn register_dataset(
        &self,
        request: Request<v1::RegisterDatasetRequest>,
    ) -> Result<Response<v1::DatasetSpec>, Status> {
        let request = request.into_inner();
        self.admit(&request.job, Need::Ordinary)?;
        Ok(Response::new(self.engine.call(move |engine| engine.register_dataset(request)).await?))
    }

    async fn get_dataset(
        &self,
        request: Request<v1::GetDatasetRequest>,
    ) -> Result<Response<v1::DatasetSpec>, Status> {
        let v1::GetDatasetRequest { job, id } = request.into_inner();
        self.admit(&job, Need::Ordinary)?;
        Ok(Response::new(self.engine.call(move |engine| engine.dataset_spec(&job, &id)).await?))
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsReply>, Status> {
        let job = request.into_inner().job;
        self.admit(&job, Need::Ordinary)?;
        Ok(Response::new(self.engine.call(move |engine| engine.datasets(&job)).await?))
    }

    async fn report_damage(
        &self,
        request: Request<v1::ReportDamageRequest>,
    ) -> Result<Response<v1::ReportDamageReply>, Status> {
        let request = request.into_inner();
        self.admit(&request.job, Need::Ordinary)?;
        Ok(Response::new(self.engine.call(move |engine| engine.report_damage(request)).await?))
    }

    async fn get_shards(
        &self,
        request: Request<v1::GetShardsRequest>,
    ) -> Result<Response<v1::GetShardsReply>, Status> {
        let request = request.into_inner();
        self.admit(&request.job, Need::Ordinary)?;
        self.metrics.shard_requests.inc();
        let (rank, epoch) = (Rank(request.rank), request.epoch);
        let known = self.engine.accepted().and_then(|accepted| self.assignments.of(&request, accepted));
        let map = match known {
            Some(map) => map,
            None => self.learn(request).await?,
        };
        Ok(Response::new(map.shards(rank, epoch)?))
    }
}

impl Services {
    /// The map that is asked for, from the engine; kept for the next question.
    async fn learn(&self, asked: v1::GetShardsRequest) -> Result<Arc<Assignment>, Status> {
        let mut request = asked.clone();
        if request.world_size == 0 {
            let job = request.job.clone();
            let opened = self.engine.wait(move |engine, reply| engine.world_of(&job, reply));
            request.world_size = match timeout(self.time(request.timeout_ms), opened).await {
                Ok(generation) => generation?.world_size,
                Err(_) => return Err(self.missing(request.job).await.into()),
            };
        }
        let door = self.engine.clone();
        let found = self.engine.call(move |engine| Ok((engine.assignment_for(&request)?, door.accepted())));
        let (map, accepted) = found.await?;
        if let Some(accepted) = accepted {
            self.assignments.keep(asked, accepted, map.clone());
        }
        Ok(map)
    }
}
