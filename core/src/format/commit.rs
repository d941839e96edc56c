//! COMMIT: a step exists if and only if this object does (P1). Its bytes are a pure function of the record, so that
//! whoever publishes an intent, and however often, writes the same bytes.

use serde::{Deserialize, Serialize};

use super::sealed_json;
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, JobUuid, Rank, Step, WorldSize};
use crate::proto::v1;

const FORMAT: u32 = 1;

/// Which part of a state a step holds, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StepKind {
    #[default]
    Full,
    Incremental,
    ModelOnly,
    OptimizerOnly,
}

impl StepKind {
    /// Whether a restore without a step number may take it.
    pub fn holds_whole_state(self) -> bool {
        matches!(self, StepKind::Full | StepKind::Incremental)
    }
}

impl From<v1::SaveKind> for StepKind {
    fn from(kind: v1::SaveKind) -> StepKind {
        match kind {
            v1::SaveKind::Full => StepKind::Full,
            v1::SaveKind::Incremental => StepKind::Incremental,
            v1::SaveKind::ModelOnly => StepKind::ModelOnly,
            v1::SaveKind::OptimizerOnly => StepKind::OptimizerOnly,
        }
    }
}

impl From<StepKind> for v1::SaveKind {
    fn from(kind: StepKind) -> v1::SaveKind {
        match kind {
            StepKind::Full => v1::SaveKind::Full,
            StepKind::Incremental => v1::SaveKind::Incremental,
            StepKind::ModelOnly => v1::SaveKind::ModelOnly,
            StepKind::OptimizerOnly => v1::SaveKind::OptimizerOnly,
        }
    }
}

/// What COMMIT says. `metrics_json` and `meta_json` are the user's JSON, kept as text so that it comes back unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRecord {
    pub job: JobName,
    pub job_uuid: JobUuid,
    pub step: Step,
    /// Of the attempt, whose objects this names.
    pub generation: Generation,
    /// Under which it was committed: later than `generation` for an adopted step.
    pub authority: Generation,
    pub kind: StepKind,
    pub world_size: WorldSize,
    pub committed_unix_ms: u64,
    pub base_steps: Vec<Step>,
    pub data: Vec<DataPosition>,
    pub metrics_json: String,
    pub meta_json: String,
    /// The expected set, ascending by rank.
    pub ranks: Vec<RankManifest>,
}

/// One rank's manifest, by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankManifest {
    pub rank: Rank,
    /// Below `<store>/<job>`.
    pub path: String,
    pub blake3: String,
    /// Length of the manifest object.
    pub bytes: u64,
    /// Of the rank's state.
    pub state_bytes: u64,
    /// Newly written for this rank.
    pub stored_bytes: u64,
}

/// How far a dataset has been consumed by this step; equal on all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPosition {
    pub dataset: String,
    pub epoch: u64,
    /// Global steps consumed since `start`.
    pub step: u64,
    /// Global batch.
    pub batch_size: u64,
    /// First position of the segment.
    pub start: u64,
    /// Of the dataset: in another version the position means other samples.
    pub version: u64,
}

impl From<v1::DataPosition> for DataPosition {
    fn from(position: v1::DataPosition) -> DataPosition {
        let v1::DataPosition { dataset, epoch, step, batch_size, start, version } = position;
        DataPosition { dataset, epoch, step, batch_size, start, version }
    }
}

impl From<DataPosition> for v1::DataPosition {
    fn from(position: DataPosition) -> v1::DataPosition {
        let DataPosition { dataset, epoch, step, batch_size, start, version } = position;
        v1::DataPosition { dataset, epoch, step, batch_size, start, version }
    }
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    format: u32,
    commit: T,
}

impl CommitRecord {
    /// Deterministic: the same record always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        sealed_json::encode(&File { format: FORMAT, commit: self })
    }

    /// Corrupt on any damage; Invalid when a newer version wrote it.
    pub fn decode(bytes: &[u8]) -> Result<CommitRecord> {
        let File { commit, .. } = sealed_json::decode::<File<CommitRecord>>(bytes, FORMAT, "COMMIT")?;
        let ascending = commit.ranks.windows(2).all(|pair| pair[0].rank < pair[1].rank);
        if commit.ranks.is_empty() || !ascending {
            return Err(Error::corrupt("reading COMMIT: its ranks are not an ascending list"));
        }
        Ok(commit)
    }

    /// Of the state, over all ranks.
    pub fn state_bytes(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.state_bytes).sum()
    }

    /// Newly written for this step, over all ranks.
    pub fn stored_bytes(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.stored_bytes).sum()
    }

    /// As the services and the command line tell it; `blake3` is that of the COMMIT's bytes.
    pub fn to_proto(&self, blake3: &str) -> v1::StepInfo {
        v1::StepInfo {
            step: self.step.0,
            generation: self.generation.0,
            kind: v1::SaveKind::from(self.kind).into(),
            world_size: self.world_size.0,
            bytes: self.state_bytes(),
            stored_bytes: self.stored_bytes(),
            committed_unix_ms: self.committed_unix_ms,
            pinned: false,
            base_steps: self.base_steps.iter().map(|step| step.0).collect(),
            commit_blake3: blake3.to_owned(),
            metrics_json: self.metrics_json.clone(),
            meta_json: self.meta_json.clone(),
            data: self.data.iter().cloned().map(Into::into).collect(),
            ..v1::StepInfo::default()
        }
    }
}
