//! A job's place in a store: the engine's one public type. Each call is a thread of its own that may block; the
//! bodies lie in the files named after them.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Attached, Commit, Durable, Inspection, ListedStep, PersistRequest, RankRestore, Report, Takeover,
};
use crate::error::Result;
use crate::format::Owner;
use crate::ids::{ClusterId, JobName, NodeId, Rank, Step, WorldSize};
use crate::proto::v1;
use crate::storage::{StoreOptions, StoreUrl};

/// What lies under `<store>/<job>`. Cheap to clone.
#[derive(Clone)]
pub struct JobStore {
    inner: Arc<Inner>,
}

struct Inner {
    job: JobName,
    url: StoreUrl,
}

impl JobStore {
    /// Reads nothing yet. Invalid for options that the store can't work with.
    pub fn open(url: &StoreUrl, _options: &StoreOptions, job: &JobName) -> Result<JobStore> {
        Ok(JobStore { inner: Arc::new(Inner { job: job.clone(), url: url.clone() }) })
    }

    pub fn job(&self) -> &JobName {
        &self.inner.job
    }

    /// Of the store, without the job.
    pub fn url(&self) -> &StoreUrl {
        &self.inner.url
    }

    /// Takes the prefix for `cluster`: creates OWNER, or finds the cluster in it. Conflict, naming
    /// `--take-over-store`, when another cluster owns it and `takeover` is No; Conflict for a store whose create-only
    /// PUT overwrites. Durable.
    pub async fn attach(&self, _cluster: ClusterId, _takeover: Takeover) -> Result<Attached> {
        todo!()
    }

    /// Who owns the prefix; None when nobody ever attached.
    pub async fn owner(&self) -> Result<Option<Owner>> {
        todo!()
    }

    /// Leaves a sign that other nodes look for with [`JobStore::sees_token`]: proof that the path is shared.
    pub async fn leave_token(&self, _node: NodeId) -> Result<()> {
        todo!()
    }

    pub async fn sees_token(&self, _node: NodeId) -> Result<bool> {
        todo!()
    }

    pub async fn remove_token(&self, _node: NodeId) -> Result<()> {
        todo!()
    }

    /// Makes the ranks' slots durable: packs, then manifests. On an error nothing that it wrote is named by anything,
    /// and it may simply be called again. Corrupt when a slot changed meanwhile. Dropping the future stops it at the
    /// next chunk: until then it still reads the slots.
    pub async fn persist(&self, _request: PersistRequest) -> Result<Vec<Durable>> {
        todo!()
    }

    /// Publishes a COMMIT create-only: `content` at `path` below the job. The same bytes already there: success; other
    /// bytes: Conflict. Atomic and durable.
    pub async fn publish(&self, _path: &str, _content: Bytes) -> Result<()> {
        todo!()
    }

    /// NotFound when the step is not committed; Corrupt when its COMMIT is damaged.
    pub async fn commit(&self, _step: Step) -> Result<Commit> {
        todo!()
    }

    /// Every step that has a COMMIT, ascending. An incomplete listing is an error.
    pub async fn steps(&self) -> Result<Vec<ListedStep>> {
        todo!()
    }

    /// What `rank` of `world_size` gets of a committed step; `only` is a glob over tensor names, empty: all. Reads
    /// manifests, no tensor yet.
    pub async fn open_step(
        &self,
        _step: Step,
        _rank: Rank,
        _world_size: WorldSize,
        _only: &str,
    ) -> Result<RankRestore> {
        todo!()
    }

    /// Deletes COMMIT, then what no remaining step names; the freed bytes. Any failed read or listing stops it.
    /// Idempotent.
    pub async fn remove(&self, _order: &v1::RemoveStep) -> Result<u64> {
        todo!()
    }

    /// Reads every byte of a step; `progress` hears what has been read so far.
    pub async fn verify(
        &self,
        _step: Step,
        _progress: impl Fn(&Report) + Send + Sync + 'static,
    ) -> Result<Report> {
        todo!()
    }

    /// Tensors and sizes, without reading data.
    pub async fn inspect(&self, _step: Step) -> Result<Inspection> {
        todo!()
    }
}
