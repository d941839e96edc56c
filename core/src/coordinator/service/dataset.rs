//! Datasets and their shards.

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::{Need, Services};
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
        let datasets = self.engine.call(move |engine| engine.datasets(&job)).await?;
        Ok(Response::new(v1::ListDatasetsReply { datasets }))
    }

    async fn get_shards(
        &self,
        request: Request<v1::GetShardsRequest>,
    ) -> Result<Response<v1::GetShardsReply>, Status> {
        let mut request = request.into_inner();
        self.admit(&request.job, Need::Ordinary)?;
        if request.world_size == 0 {
            let job = request.job.clone();
            let opened = self.engine.wait(move |engine, reply| engine.world_of(&job, reply));
            request.world_size = match timeout(self.time(request.timeout_ms), opened).await {
                Ok(generation) => generation?.world_size,
                Err(_) => return Err(self.missing(request.job).await.into()),
            };
        }
        Ok(Response::new(self.engine.call(move |engine| engine.shards(&request)).await?))
    }
}
