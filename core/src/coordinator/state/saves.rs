//! What a committed step is known by.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::format::commit::{CommitRecord, DataPosition, StepKind};
use crate::ids::{Generation, Step, WorldSize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Of the attempt that was committed.
    pub generation: Generation,
    pub kind: StepKind,
    pub world: WorldSize,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub committed_unix_ms: u64,
    /// By a person.
    pub pinned: bool,
    /// Work that needs it meanwhile, such as a repair: as if it were pinned, and each takes back its own alone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub holders: BTreeSet<String>,
    pub bases: Vec<Step>,
    pub commit_blake3: String,
    pub metrics_json: String,
    pub meta_json: String,
    pub data: Vec<DataPosition>,
}

impl StepRecord {
    /// By anybody.
    pub fn is_pinned(&self) -> bool {
        self.pinned || !self.holders.is_empty()
    }

    #[cfg(test)]
    pub fn for_tests() -> StepRecord {
        StepRecord {
            generation: Generation(1),
            kind: StepKind::Full,
            world: WorldSize(1),
            bytes: 0,
            stored_bytes: 0,
            committed_unix_ms: 0,
            pinned: false,
            holders: BTreeSet::new(),
            bases: Vec::new(),
            commit_blake3: String::new(),
            metrics_json: "{}".into(),
            meta_json: "{}".into(),
            data: Vec::new(),
        }
    }

    pub(super) fn of(commit: &CommitRecord) -> StepRecord {
        StepRecord {
            generation: commit.generation,
            kind: commit.kind,
            world: commit.world_size,
            bytes: commit.state_bytes(),
            stored_bytes: commit.stored_bytes(),
            committed_unix_ms: commit.committed_unix_ms,
            pinned: false,
            holders: BTreeSet::new(),
            bases: commit.base_steps.clone(),
            commit_blake3: blake3::hash(&commit.encode()).to_hex().to_string(),
            metrics_json: commit.metrics_json.clone(),
            meta_json: commit.meta_json.clone(),
            data: commit.data.clone(),
        }
    }
}
