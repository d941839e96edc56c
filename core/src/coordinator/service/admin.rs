//! What operators ask.

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::Services;
use crate::coordinator::compat;
use crate::proto::v1;

#[tonic::async_trait]
impl v1::admin_server::Admin for Services {
    async fn get_version(&self, _: Request<v1::GetVersionRequest>) -> Result<Response<v1::Version>, Status> {
        // Who asks looks for one that answers everything.
        self.engine.open()?;
        Ok(Response::new(compat::ours()))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::Status>, Status> {
        let job = request.into_inner().job;
        Ok(Response::new(self.status(job).await?))
    }

    async fn get_goodput(
        &self,
        request: Request<v1::GetGoodputRequest>,
    ) -> Result<Response<v1::Goodput>, Status> {
        let job = request.into_inner().job;
        Ok(Response::new(self.engine.call(move |engine| engine.goodput(&job)).await?))
    }

    async fn drain_job(
        &self,
        request: Request<v1::DrainJobRequest>,
    ) -> Result<Response<v1::DrainJobReply>, Status> {
        let job = request.into_inner().job;
        self.engine.call(move |engine| engine.drain_job(&job)).await?;
        Ok(Response::new(v1::DrainJobReply {}))
    }

    async fn get_stacks(
        &self,
        request: Request<v1::GetStacksRequest>,
    ) -> Result<Response<v1::GetStacksReply>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.engine.wait(move |engine, reply| engine.stacks(request, reply)).await?))
    }

    async fn ask_save(
        &self,
        request: Request<v1::AskSaveRequest>,
    ) -> Result<Response<v1::AskSaveReply>, Status> {
        let request = request.into_inner();
        let (again, limit) = (request.clone(), self.time(request.timeout_ms));
        let agreed = self.engine.wait(move |engine, reply| engine.ask_save(&request, reply));
        match timeout(limit, agreed).await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => Err(self.engine.call(move |engine| Ok(engine.save_unanswered(&again))).await?.into()),
        }
    }
}
