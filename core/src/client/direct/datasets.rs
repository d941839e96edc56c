//! Datasets as the coordinator keeps them: registration, and which rank holds which shards.

use std::sync::Arc;
use std::time::Duration;

use super::super::interrupt::Interrupt;
use super::super::session::milliseconds;
use super::super::steps::MAX_REPLY;
use super::line::Line;
use crate::data::DatasetSpec;
use crate::error::{Error, Kind, Result};
use crate::ids::{Generation, JobName, Rank, WorldSize};
use crate::proto::v1;
use crate::proto::v1::coordinator_client::CoordinatorClient;
use crate::proto::v1::dataset_client::DatasetClient;

/// The datasets of one job. Not a membership: any process may ask.
pub struct DatasetRegistry {
    line: Arc<Line>,
    job: JobName,
    token: String,
}

/// Whose shards are wanted.
#[derive(Clone, Copy, Debug)]
pub struct ShardRequest {
    pub rank: Rank,
    pub epoch: u64,
    /// Ranks that share the dataset; None: the open generation's, which is waited for.
    pub world_size: Option<WorldSize>,
    /// Of the caller's membership, where it has one: after its end the call is Fenced.
    pub generation: Option<Generation>,
}

impl DatasetRegistry {
    pub fn new(line: Arc<Line>, job: JobName, token: Option<String>) -> DatasetRegistry {
        DatasetRegistry { line, job, token: token.unwrap_or_default() }
    }

    pub fn job(&self) -> &JobName {
        &self.job
    }

    /// Makes a resolved spec known: durable, and the same again is no error. Returns what is registered, which names
    /// files where any rank could read them. Conflict when another spec has this id.
    pub fn register(
        &self,
        spec: DatasetSpec,
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<v1::DatasetSpec> {
        let doing = format!("registering dataset {:?}", spec.id);
        let spec = v1::DatasetSpec::from(spec);
        let request = v1::RegisterDatasetRequest {
            job: self.job.to_string(),
            spec: Some(spec.clone()),
            token: self.token.clone(),
        };
        let outcome = self.line.block(&doing, timeout, interrupt, |channel, _| {
            let request = request.clone();
            async move { client(channel).register_dataset(request).await }
        });
        match outcome {
            Err(error) if error.kind == Kind::Conflict => {
                let known = self.spec(&spec.id, timeout, interrupt)?;
                if differs_in_files_alone(&known, &spec) { Ok(known) } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    /// NotFound, naming what there is, when no dataset has this id.
    pub fn spec(&self, id: &str, timeout: Duration, interrupt: &dyn Interrupt) -> Result<v1::DatasetSpec> {
        let request = v1::GetDatasetRequest { job: self.job.to_string(), id: id.to_owned() };
        self.line.block(&format!("looking up dataset {id:?}"), timeout, interrupt, |channel, _| {
            let request = request.clone();
            async move { client(channel).get_dataset(request).await }
        })
    }

    /// One rank's shards for an epoch, in the order in which they come: a pure function of the dataset, the epoch and
    /// the world size. Over all ranks every shard is held exactly once.
    pub fn shards(
        &self,
        id: &str,
        wanted: ShardRequest,
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<v1::GetShardsReply> {
        let doing = format!("taking the shards of dataset {id:?}");
        if wanted.world_size.is_none() {
            self.expect_a_world(&doing, timeout, interrupt)?;
        }
        self.line.block(&doing, timeout, interrupt, |channel, left| {
            let request = v1::GetShardsRequest {
                job: self.job.to_string(),
                dataset: id.to_owned(),
                rank: wanted.rank.0,
                epoch: wanted.epoch,
                world_size: wanted.world_size.map_or(0, |world| world.0),
                timeout_ms: milliseconds(left),
                generation: wanted.generation.map_or(0, |generation| generation.0),
            };
            async move { client(channel).get_shards(request).await }
        })
    }

    /// Nobody has joined the job, so there is no generation to wait for: better said at once.
    fn expect_a_world(&self, doing: &str, timeout: Duration, interrupt: &dyn Interrupt) -> Result<()> {
        let job = self.job.to_string();
        let info = self.line.block(doing, timeout, interrupt, |channel, _| {
            let request = v1::GetRecoveryInfoRequest { job: job.clone() };
            async move { CoordinatorClient::new(channel).get_recovery_info(request).await }
        })?;
        if info.current.is_some() || !info.missing_ranks.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("{doing}: nobody has joined job {job}, so its world size is not known"))
            .hint("make the TrainingOrchestrator first, or set WORLD_SIZE"))
    }
}

fn client(channel: tonic::transport::Channel) -> DatasetClient<tonic::transport::Channel> {
    DatasetClient::new(channel).max_decoding_message_size(MAX_REPLY)
}

/// A rank whose node can't read the files registers the metadata alone: the same dataset.
fn differs_in_files_alone(known: &v1::DatasetSpec, ours: &v1::DatasetSpec) -> bool {
    let bare = |spec: &v1::DatasetSpec| v1::DatasetSpec { files: Vec::new(), version: 0, ..spec.clone() };
    (known.files.is_empty() || ours.files.is_empty()) && bare(known) == bare(ours)
}
