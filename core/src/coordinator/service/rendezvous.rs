//! Records that launchers' agents agree over.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::Services;
use crate::proto::v1;

#[tonic::async_trait]
impl v1::rendezvous_server::Rendezvous for Services {
    async fn get_records(
        &self,
        request: Request<v1::GetRecordsRequest>,
    ) -> Result<Response<v1::GetRecordsReply>, Status> {
        let request = request.into_inner();
        if request.wait_ms == 0 {
            return Ok(Response::new(self.engine.call(move |engine| engine.records(&request)).await?));
        }
        let (asked, limit) = (request.clone(), Duration::from_millis(request.wait_ms));
        let there = self.engine.wait(move |engine, reply| engine.wait_records(asked, reply));
        match timeout(limit, there).await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => Ok(Response::new(self.engine.call(move |engine| engine.records(&request)).await?)),
        }
    }

    async fn write_record(
        &self,
        request: Request<v1::WriteRecordRequest>,
    ) -> Result<Response<v1::WriteRecordReply>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.engine.call(move |engine| engine.write_record(request)).await?))
    }
}
