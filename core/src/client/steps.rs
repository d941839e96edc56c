//! Look-ups over the node's socket: committed steps, datasets. They work in forked children too.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Response, Status};

use super::interrupt::Interrupt;
use super::session::{Session, milliseconds};
use crate::config::locate;
use crate::error::{Error, Result};
use crate::ids::Step;
use crate::proto::v1::checkpoint_client::CheckpointClient;
use crate::proto::v1::dataset_client::DatasetClient;
use crate::proto::v1::{self, StepInfo};
use crate::transport::is_broken;

/// Larger than any listing: 100 000 steps take about 30 MB.
pub(super) const MAX_REPLY: usize = 64 << 20;
const REDIAL: Duration = Duration::from_millis(50);

impl Session {
    /// The newest committed step that holds the whole state. `timeout`, here and below: None: the job's budget.
    pub fn latest_step(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<Option<Step>> {
        let job = self.job().to_string();
        let reply = self.look_up("asking for the latest step", timeout, interrupt, |channel| {
            let request = v1::LatestStepRequest { job: job.clone() };
            async move { CheckpointClient::new(channel).latest_step(request).await }
        })?;
        Ok(reply.step.map(Step))
    }

    /// Every committed step, ascending.
    pub fn all_steps(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<Vec<StepInfo>> {
        let job = self.job().to_string();
        let reply = self.look_up("listing the steps", timeout, interrupt, |channel| {
            let request = v1::ListStepsRequest { job: job.clone() };
            async move {
                CheckpointClient::new(channel).max_decoding_message_size(MAX_REPLY).list_steps(request).await
            }
        })?;
        Ok(reply.steps)
    }

    /// NotFound when the step is not committed.
    pub fn step_info(
        &self,
        step: Step,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<StepInfo> {
        let job = self.job().to_string();
        self.look_up(&format!("looking up step {step}"), timeout, interrupt, |channel| {
            let request = v1::GetStepRequest { job: job.clone(), step: step.0 };
            async move { CheckpointClient::new(channel).get_step(request).await }
        })
    }

    /// Keeps the step from every retention policy and from `delete`. Durable.
    pub fn pin(&self, step: Step, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<StepInfo> {
        self.set_pinned(step, true, timeout, interrupt)
    }

    /// Takes a pin back. Durable.
    pub fn unpin(
        &self,
        step: Step,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<StepInfo> {
        self.set_pinned(step, false, timeout, interrupt)
    }

    fn set_pinned(
        &self,
        step: Step,
        pinned: bool,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<StepInfo> {
        let job = self.job().to_string();
        self.look_up(&format!("pinning step {step}"), timeout, interrupt, |channel| {
            let request =
                v1::PinStepRequest { job: job.clone(), step: step.0, pinned, holder: String::new() };
            async move { CheckpointClient::new(channel).pin_step(request).await }
        })
    }

    /// Removes a step: bytes freed. Conflict for a pinned one and for the newest whole one, both without `force`.
    /// Timeout when its objects are not gone in time; the removal goes on.
    pub fn delete(
        &self,
        step: Step,
        force: bool,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<u64> {
        let job = self.job().to_string();
        let reply = self.look_up(&format!("deleting step {step}"), timeout, interrupt, |channel| {
            let request = v1::DeleteStepRequest { job: job.clone(), step: step.0, force, dry_run: false };
            async move { CheckpointClient::new(channel).delete_step(request).await }
        })?;
        Ok(reply.freed_bytes)
    }

    /// Makes a dataset known to the job, durably; the same spec again changes nothing, another one is Conflict.
    pub fn register_dataset(
        &self,
        spec: v1::DatasetSpec,
        interrupt: &dyn Interrupt,
    ) -> Result<v1::DatasetSpec> {
        let job = self.job().to_string();
        let token = self.token();
        self.look_up(&format!("registering dataset {:?}", spec.id), None, interrupt, |channel| {
            let (job, token, spec) = (job.clone(), token.clone(), Some(spec.clone()));
            async move {
                DatasetClient::new(channel)
                    .register_dataset(v1::RegisterDatasetRequest { job, spec, token })
                    .await
            }
        })
    }

    /// NotFound when nobody registered it.
    pub fn dataset(&self, id: &str, interrupt: &dyn Interrupt) -> Result<v1::DatasetSpec> {
        let job = self.job().to_string();
        self.look_up(&format!("looking up dataset {id:?}"), None, interrupt, |channel| {
            let request = v1::GetDatasetRequest { job: job.clone(), id: id.to_owned() };
            async move { DatasetClient::new(channel).get_dataset(request).await }
        })
    }

    /// Tells the coordinator of files, each with what is wrong with it, whose samples this rank leaves out. Returns at once; a failure
    /// becomes a warning. A forked child tells nothing.
    pub fn report_damage(&self, dataset: &str, files: Vec<(String, String)>) -> Result<()> {
        let Ok(inner) = self.own() else { return Ok(()) };
        let request = v1::ReportDamageRequest {
            job: self.job().to_string(),
            token: self.token(),
            dataset: dataset.to_owned(),
            host: locate::host_name(),
            files: files.into_iter().map(|(path, reason)| v1::QuarantinedFile { path, reason }).collect(),
        };
        let (caller, state, channel) = (inner.caller.clone(), inner.state.clone(), self.channel()?);
        inner.spawn(async move {
            let report = |_| {
                let (request, mut client) = (request.clone(), DatasetClient::new(channel.clone()));
                async move { client.report_damage(request).await }
            };
            if let Err(error) = caller.repeat(report).await {
                state.send_modify(|state| state.warnings.push(format!("reporting a damaged file: {error}")));
            }
        });
        Ok(())
    }

    /// This rank's shards of an epoch. Waits for the generation to open; Timeout naming the missing ranks.
    pub fn get_shards(
        &self,
        dataset: &str,
        epoch: u64,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<v1::GetShardsReply> {
        let given = timeout.unwrap_or_else(|| self.default_timeout());
        let request = v1::GetShardsRequest {
            job: self.job().to_string(),
            dataset: dataset.to_owned(),
            rank: self.rank().0,
            epoch,
            world_size: 0,
            timeout_ms: milliseconds(given),
            generation: self.generation().0,
        };
        self.look_up(&format!("asking for shards of {dataset:?}"), Some(given), interrupt, |channel| {
            let request = request.clone();
            async move {
                DatasetClient::new(channel).max_decoding_message_size(MAX_REPLY).get_shards(request).await
            }
        })
    }

    /// A call that may be made again after a break, in the process that connected or a forked child of it.
    fn look_up<T, F, Made>(
        &self,
        doing: &str,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
        make: F,
    ) -> Result<T>
    where
        F: Fn(Channel) -> Made,
        Made: Future<Output = Result<Response<T>, Status>>,
    {
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        let channel = self.channel()?;
        if let Ok(inner) = self.own() {
            return self.block(doing, timeout, interrupt, inner.caller.repeat(|_| make(channel.clone())));
        }
        let deadline = std::time::Instant::now() + timeout;
        self.block(doing, timeout, interrupt, async {
            loop {
                match make(channel.clone()).await {
                    Ok(reply) => return Ok(reply.into_inner()),
                    Err(status) if is_broken(&status) && std::time::Instant::now() < deadline => {
                        tokio::time::sleep(REDIAL).await;
                    }
                    Err(status) => return Err(Error::from(status)),
                }
            }
        })
    }
}
