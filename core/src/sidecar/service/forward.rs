//! The coordinator's services on the node's socket: look-ups go on to it, repeated while it is being restarted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::super::shards;
use super::Services;
use crate::error::{Error, Result};
use crate::ids::JobName;
use crate::proto::v1;

/// A look-up that names no time-out waits so long for a coordinator that is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the caller's own time-out needs beyond the wait itself.
const GRACE: Duration = Duration::from_secs(2);
/// Within which the coordinator has an answer of every rank, or gives up on it.
const STACKS: Duration = Duration::from_secs(20);

impl Services {
    /// What one user's trainers do is not another's to read or change (P9).
    fn allow<T>(&self, request: &Request<T>, job: &str) -> Result<()> {
        let peer = self.peer(request)?;
        let owner = self.node.read(|state| {
            let known = job.parse::<JobName>().ok().and_then(|job| state.jobs.get(&job));
            known.filter(|job| job.store.is_some()).map(|job| job.uid)
        });
        match owner {
            Some(owner) if owner != peer.uid && peer.uid != 0 => Err(Error::denied(format!(
                "asking about job {job}: it belongs to uid {owner}, the caller is uid {}",
                peer.uid
            ))),
            _ => Ok(()),
        }
    }
}

fn patience(milliseconds: u64) -> Instant {
    match milliseconds {
        0 => Instant::now() + PATIENCE,
        given => Instant::now() + Duration::from_millis(given) + GRACE,
    }
}

/// One method that passes its request on: `job` names whose it is.
macro_rules! forward {
    ($self:ident, $request:ident, $client:ident . $method:ident, $doing:literal, $patience:expr) => {{
        let inner = $request.into_inner();
        let deadline = $patience(&inner);
        let reply = $self.node.uplink.call($doing, deadline, || {
            let (mut client, request) = ($self.node.uplink.$client(), inner.clone());
            async move { client.$method(request).await }
        });
        Ok(Response::new(reply.await?))
    }};
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::checkpoint_server::Checkpoint for Services {
    async fn latest_step(&self, request: Request<v1::LatestStepRequest>) -> Answer<v1::LatestStepReply> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, checkpoint.latest_step, "asking for the latest step", |_: &_| patience(0))
    }

    async fn list_steps(&self, request: Request<v1::ListStepsRequest>) -> Answer<v1::ListStepsReply> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, checkpoint.list_steps, "listing the steps", |_: &_| patience(0))
    }

    async fn get_step(&self, request: Request<v1::GetStepRequest>) -> Answer<v1::StepInfo> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, checkpoint.get_step, "looking up a step", |_: &_| patience(0))
    }

    async fn pin_step(&self, request: Request<v1::PinStepRequest>) -> Answer<v1::StepInfo> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, checkpoint.pin_step, "pinning a step", |_: &_| patience(0))
    }

    async fn delete_step(&self, request: Request<v1::DeleteStepRequest>) -> Answer<v1::DeleteStepReply> {
        self.allow(&request, &request.get_ref().job)?;
        // Returns when the objects are gone; the coordinator keeps the time.
        let all_of_them = |_: &_| Instant::now() + Duration::from_secs(3600);
        forward!(self, request, checkpoint.delete_step, "removing a step", all_of_them)
    }

    async fn resolve_restore(
        &self,
        request: Request<v1::ResolveRestoreRequest>,
    ) -> Answer<v1::ResolveRestoreReply> {
        let job = request.get_ref().caller.as_ref().map(|caller| caller.job.clone()).unwrap_or_default();
        self.allow(&request, &job)?;
        let wait = |asked: &v1::ResolveRestoreRequest| patience(asked.timeout_ms);
        forward!(self, request, checkpoint.resolve_restore, "asking which step to restore", wait)
    }

    async fn notify_checkpoint(
        &self,
        request: Request<v1::NotifyCheckpointRequest>,
    ) -> Answer<v1::NotifyCheckpointReply> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, checkpoint.notify_checkpoint, "telling of a checkpoint", |_: &_| patience(0))
    }
}

#[tonic::async_trait]
impl v1::dataset_server::Dataset for Services {
    async fn register_dataset(
        &self,
        request: Request<v1::RegisterDatasetRequest>,
    ) -> Answer<v1::DatasetSpec> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, dataset.register_dataset, "registering a dataset", |_: &_| patience(0))
    }

    async fn get_dataset(&self, request: Request<v1::GetDatasetRequest>) -> Answer<v1::DatasetSpec> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, dataset.get_dataset, "looking up a dataset", |_: &_| patience(0))
    }

    async fn list_datasets(
        &self,
        request: Request<v1::ListDatasetsRequest>,
    ) -> Answer<v1::ListDatasetsReply> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, dataset.list_datasets, "listing the datasets", |_: &_| patience(0))
    }

    async fn report_damage(
        &self,
        request: Request<v1::ReportDamageRequest>,
    ) -> Answer<v1::ReportDamageReply> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, dataset.report_damage, "reporting a damaged file", |_: &_| patience(0))
    }

    async fn get_shards(&self, request: Request<v1::GetShardsRequest>) -> Answer<v1::GetShardsReply> {
        self.allow(&request, &request.get_ref().job)?;
        let wait = |asked: &v1::GetShardsRequest| patience(asked.timeout_ms);
        if let Some(own) = shards::held(&self.node, request.get_ref(), wait(request.get_ref())).await? {
            return Ok(Response::new(Arc::unwrap_or_clone(own)));
        }
        forward!(self, request, dataset.get_shards, "asking for shards", wait)
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for Services {
    async fn get_version(&self, _: Request<v1::GetVersionRequest>) -> Answer<v1::Version> {
        Ok(Response::new(crate::version::ours()))
    }

    async fn get_status(&self, request: Request<v1::GetStatusRequest>) -> Answer<v1::Status> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, admin.get_status, "asking for the status", |_: &_| patience(0))
    }

    async fn get_goodput(&self, request: Request<v1::GetGoodputRequest>) -> Answer<v1::Goodput> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, admin.get_goodput, "asking where time went", |_: &_| patience(0))
    }

    async fn drain_job(&self, request: Request<v1::DrainJobRequest>) -> Answer<v1::DrainJobReply> {
        self.allow(&request, &request.get_ref().job)?;
        forward!(self, request, admin.drain_job, "draining a job", |_: &_| patience(0))
    }

    async fn get_stacks(&self, request: Request<v1::GetStacksRequest>) -> Answer<v1::GetStacksReply> {
        self.allow(&request, &request.get_ref().job)?;
        let wait = |_: &_| Instant::now() + STACKS;
        forward!(self, request, admin.get_stacks, "asking what ranks are doing", wait)
    }

    async fn ask_save(&self, request: Request<v1::AskSaveRequest>) -> Answer<v1::AskSaveReply> {
        self.allow(&request, &request.get_ref().job)?;
        let wait = |asked: &v1::AskSaveRequest| patience(asked.timeout_ms);
        forward!(self, request, admin.ask_save, "asking for a checkpoint", wait)
    }
}
