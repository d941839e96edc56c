//! Registered datasets: what they hold and how they are cut into shards.

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::job::Job;
use crate::error::{Error, Result};
use crate::ids::JobName;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRecord {
    pub id: String,
    pub path: String,
    pub format: String,
    pub total_samples: u64,
    pub shard_size: u64,
    pub shuffle: bool,
    pub seed: u64,
    pub sample_len: u32,
    pub dtype: String,
    pub files: Vec<DatasetFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedFile>,
    /// Content hash of the rest.
    pub version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetFile {
    pub path: String,
    pub samples: u64,
}

/// Damaged when the dataset was registered: none of its samples is part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedFile {
    pub path: String,
    pub reason: String,
}

/// A map of so many shards takes 32 MiB, its answer to one rank of one a quarter of that.
const MAX_SHARDS: u64 = 4 << 20;

impl DatasetRecord {
    /// It has nothing that builds before version 6 of a record would lose.
    pub fn is_of_numbers_alone(&self) -> bool {
        let DatasetRecord { columns, shape, schema, quarantined, .. } = self;
        columns.is_empty() && shape.is_empty() && schema.is_empty() && quarantined.is_empty()
    }

    pub fn shards(&self) -> u32 {
        self.total_samples.div_ceil(self.shard_size) as u32
    }

    /// Fails with Invalid, saying what is wrong.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: String, hint: &str| {
            Err(Error::invalid(format!("registering dataset {:?}: {why}", self.id)).hint(hint))
        };
        if self.id.is_empty() || self.id.len() > 256 {
            return refuse("the id must have 1 to 256 bytes".into(), "give it a short name");
        }
        if self.total_samples == 0 || self.shard_size == 0 {
            return refuse(
                format!("total_samples is {} and shard_size {}", self.total_samples, self.shard_size),
                "both count samples and are at least 1",
            );
        }
        let shards = self.total_samples.div_ceil(self.shard_size);
        if shards > MAX_SHARDS {
            return refuse(
                format!("it has {shards} shards, more than {MAX_SHARDS}"),
                "use a larger shard_size",
            );
        }
        let counted = self.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.samples));
        if !self.files.is_empty() && counted != Some(self.total_samples) {
            return refuse(
                format!(
                    "total_samples is {}, but its files hold {}",
                    self.total_samples,
                    counted.map_or("too many to count".to_owned(), |n| n.to_string())
                ),
                "leave total_samples out to have them counted",
            );
        }
        Ok(())
    }
}

impl Job {
    /// Idempotent for the same spec, which has been checked.
    pub(super) fn register_dataset(&mut self, job: &JobName, spec: &DatasetRecord) -> Result<Vec<Effect>> {
        match self.datasets.get(&spec.id) {
            Some(known) if known == spec => Ok(Vec::new()),
            Some(known) => Err(Error::conflict(format!(
                "registering dataset {:?} of job {job}: it is registered already with {} samples in shards of {} from {:?}",
                spec.id, known.total_samples, known.shard_size, known.path
            ))
            .hint("use another dataset id for another spec")),
            None => {
                self.datasets.insert(spec.id.clone(), spec.clone());
                Ok(Vec::new())
            }
        }
    }
}
