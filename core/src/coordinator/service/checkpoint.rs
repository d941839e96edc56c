//! Committed steps: look-up and keeping.

use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::{Need, Services};
use crate::coordinator::state::Command;
use crate::error::Error;
use crate::proto::v1;

#[tonic::async_trait]
impl v1::checkpoint_server::Checkpoint for Services {
    async fn latest_step(
        &self,
        request: Request<v1::LatestStepRequest>,
    ) -> Result<Response<v1::LatestStepReply>, Status> {
        let job = request.into_inner().job;
        self.admit(&job, Need::Ordinary)?;
        let step = self.engine.call(move |engine| engine.latest_step(&job)).await?;
        Ok(Response::new(v1::LatestStepReply { step }))
    }

    async fn list_steps(
        &self,
        request: Request<v1::ListStepsRequest>,
    ) -> Result<Response<v1::ListStepsReply>, Status> {
        let job = request.into_inner().job;
        self.admit(&job, Need::Ordinary)?;
        let steps = self.engine.call(move |engine| engine.steps(&job)).await?;
        Ok(Response::new(v1::ListStepsReply { steps }))
    }

    async fn get_step(&self, request: Request<v1::GetStepRequest>) -> Result<Response<v1::StepInfo>, Status> {
        let v1::GetStepRequest { job, step } = request.into_inner();
        self.admit(&job, Need::Ordinary)?;
        Ok(Response::new(self.engine.call(move |engine| engine.step(&job, step)).await?))
    }

    async fn pin_step(&self, request: Request<v1::PinStepRequest>) -> Result<Response<v1::StepInfo>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.engine.call(move |engine| engine.pin_step(&request)).await?))
    }

    async fn delete_step(
        &self,
        request: Request<v1::DeleteStepRequest>,
    ) -> Result<Response<v1::DeleteStepReply>, Status> {
        let request = request.into_inner();
        let (job, step) = (request.job.clone(), request.step);
        let gone = self.engine.wait(move |engine, reply| engine.delete_step(&request, reply));
        match timeout(self.time(0), gone).await {
            Ok(freed) => Ok(Response::new(v1::DeleteStepReply { freed_bytes: freed? })),
            Err(_) => Err(Error::timeout(format!(
                "removing step {step} of job {job}: its objects are not gone after {:?}",
                self.time(0)
            ))
            .hint("the removal is recorded and goes on; the status names what holds it up")
            .into()),
        }
    }

    async fn resolve_restore(
        &self,
        request: Request<v1::ResolveRestoreRequest>,
    ) -> Result<Response<v1::ResolveRestoreReply>, Status> {
        let mut request = request.into_inner();
        self.admit_caller(request.caller.as_ref(), Need::Vital)?;
        request.timeout_ms = self.time(request.timeout_ms).as_millis() as u64;
        let answer = self.engine.wait(move |engine, reply| engine.resolve_restore(request, reply)).await?;
        Ok(Response::new(answer))
    }

    async fn notify_checkpoint(
        &self,
        request: Request<v1::NotifyCheckpointRequest>,
    ) -> Result<Response<v1::NotifyCheckpointReply>, Status> {
        let told = request.into_inner();
        self.admit(&told.job, Need::Ordinary)?;
        let kind = told.kind().into();
        let command = Command::Notify {
            job: told.job.parse()?,
            step: told.step.into(),
            kind,
            rank: told.rank.into(),
            path: told.path,
            bytes: told.bytes,
        };
        self.engine.call(move |engine| engine.submit(command)).await?;
        Ok(Response::new(v1::NotifyCheckpointReply {}))
    }
}
