//! What a dataset is registered with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::format::{About, Format};
use crate::error::{Error, Result};
use crate::sharding::{Consumption, Order, Tail};

/// A placement takes 8 bytes a shard on every replica of the coordinator: 32 MiB for a dataset of this many.
pub const MAX_SHARDS: u64 = 1 << 22;

/// Positions and samples are counted in u64 and multiplied by sizes: far below overflow, far above any dataset.
const MAX_SAMPLES: u64 = 1 << 48;

/// A dataset as the coordinator keeps it. `total_samples` is 0 only before [`super::resolve`] has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSpec {
    pub id: String,
    pub path: PathBuf,
    pub format: Format,
    pub total_samples: u64,
    /// Samples of one shard; the last may be short.
    pub shard_size: u64,
    pub shuffle: bool,
    pub seed: u64,
    /// As [`DatasetSpec::content_version`] gives it; 0 before registration.
    pub version: u64,
    /// As scanned; empty where the path could not be read: then shards are ranges of samples and nothing else.
    pub files: Vec<DataFile>,
    /// Files that were damaged when it was registered: none of their samples is part of it.
    pub quarantined: Vec<Quarantined>,
}

/// A file that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub path: PathBuf,
    pub reason: String,
}

/// One file and how many whole samples it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    pub path: PathBuf,
    pub samples: u64,
}

impl DatasetSpec {
    /// Of files that have not been looked at: in their order, all else as 0.
    pub fn new(
        id: impl Into<String>,
        path: impl Into<PathBuf>,
        format: Format,
        shard_size: u64,
    ) -> DatasetSpec {
        DatasetSpec {
            id: id.into(),
            path: path.into(),
            format,
            total_samples: 0,
            shard_size,
            shuffle: false,
            seed: 0,
            version: 0,
            files: Vec::new(),
            quarantined: Vec::new(),
        }
    }

    /// Refuses, as Invalid, what could not be placed or read. `total_samples` must have been counted or declared.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: String, hint: &str| {
            Err(Error::invalid(format!("registering dataset {:?}: {what}", self.id)).hint(hint))
        };
        if self.id.is_empty() || self.id.len() > 255 || self.id.chars().any(char::is_control) {
            return refuse(
                "not a valid id".into(),
                "dataset_id= has 1 to 255 bytes and no control characters",
            );
        }
        if self.path.as_os_str().is_empty() {
            return refuse(
                "the path is empty".into(),
                "path= names the file or directory that holds the samples",
            );
        }
        if self.shard_size == 0 {
            return refuse("a shard of 0 samples".into(), "shard_size= is at least 1");
        }
        if self.total_samples == 0 {
            return refuse(
                "it has no samples".into(),
                "total_samples= is at least 1; it can be left out only where the path can be read",
            );
        }
        if self.total_samples > MAX_SAMPLES || self.shard_size > MAX_SAMPLES {
            return refuse(
                format!("more than {MAX_SAMPLES} samples"),
                "check total_samples= and shard_size=",
            );
        }
        if self.total_samples.div_ceil(self.shard_size) > MAX_SHARDS {
            let least = self.total_samples.div_ceil(MAX_SHARDS);
            return refuse(
                format!("{} shards, the most are {MAX_SHARDS}", self.total_samples.div_ceil(self.shard_size)),
                &format!("take a shard_size= of at least {least}"),
            );
        }
        let held: u64 = self.files.iter().map(|file| file.samples).sum();
        if !self.files.is_empty() && held != self.total_samples {
            return refuse(
                format!("{} samples declared, its files hold {held}", self.total_samples),
                "correct total_samples=, or leave it out to have them counted; check that all files are there",
            );
        }
        Ok(())
    }

    /// A hash of everything that decides which sample stands where: cursors and orders belong to one version. The
    /// folder is not part of it, so a dataset may move or be mounted elsewhere.
    pub fn content_version(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        let mut text = |part: &str| {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        };
        text("dataset/v1");
        text(&self.id);
        text(self.format.name());
        let About { dtype, sample_len, columns, shape, schema } = self.format.about();
        // Nothing of what a format has not is hashed: versions of earlier releases stay what they were.
        let length = if sample_len == 0 { String::new() } else { sample_len.to_string() };
        let axes = shape.iter().map(u64::to_string);
        for part in [dtype, length, schema].into_iter().chain(columns).chain(axes) {
            if !part.is_empty() {
                text(&part);
            }
        }
        for file in &self.files {
            text(&file.path.file_name().unwrap_or_default().to_string_lossy());
            text(&file.samples.to_string());
        }
        for number in [self.total_samples, self.shard_size, u64::from(self.shuffle), self.seed] {
            hash.update(&number.to_le_bytes());
        }
        // 0 stands for "not registered yet".
        hash.digest().max(1)
    }

    /// Number of shards; [`DatasetSpec::validate`] keeps it below [`MAX_SHARDS`].
    pub fn shards(&self) -> u32 {
        u32::try_from(self.total_samples.div_ceil(self.shard_size.max(1))).unwrap_or(u32::MAX)
    }

    /// The order of one epoch of this dataset.
    pub fn order(&self, epoch: u64) -> Order {
        Order::new(self.version, self.seed, epoch, self.total_samples, self.shard_size, self.shuffle)
    }

    pub fn consumption(&self, tail: Tail) -> Consumption {
        Consumption { samples: self.total_samples, tail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn spec() -> DatasetSpec {
        let format = Format::new("parquet", About::default()).unwrap();
        DatasetSpec {
            total_samples: 1_281_167,
            shuffle: true,
            ..DatasetSpec::new("imagenet", "/data/imagenet", format, 10_000)
        }
    }

    #[test]
    fn metadata_alone_is_enough() {
        spec().validate().unwrap();
        assert_eq!(spec().shards(), 129);
    }

    #[test]
    fn what_can_not_be_placed_is_refused_with_a_hint() {
        type Change = fn(&mut DatasetSpec);
        let changes: [(&str, Change); 7] = [
            ("not a valid id", |spec| spec.id.clear()),
            ("path is empty", |spec| spec.path.clear()),
            ("shard of 0", |spec| spec.shard_size = 0),
            ("no samples", |spec| spec.total_samples = 0),
            ("more than", |spec| spec.total_samples = u64::MAX),
            ("the most are", |spec| (spec.total_samples, spec.shard_size) = (MAX_SHARDS + 1, 1)),
            ("files hold 7", |spec| spec.files = vec![DataFile { path: "a".into(), samples: 7 }]),
        ];
        for (expected, change) in changes {
            let mut changed = spec();
            change(&mut changed);
            let error = changed.validate().unwrap_err();
            assert!(error.message.contains(expected), "{expected}: {error}");
            assert!(error.kind == Kind::Invalid && error.hint.is_some());
        }
    }

    #[test]
    fn version_follows_the_content_and_not_the_folder() {
        let version = spec().content_version();
        let moved = DatasetSpec { path: "/mnt/imagenet".into(), version: 9, ..spec() };
        assert_eq!(moved.content_version(), version);
        for other in [
            DatasetSpec { seed: 1, ..spec() },
            DatasetSpec { shuffle: false, ..spec() },
            DatasetSpec { shard_size: 9_999, ..spec() },
            DatasetSpec { total_samples: 1_281_166, ..spec() },
            DatasetSpec { id: "imagenet2".into(), ..spec() },
        ] {
            assert_ne!(other.content_version(), version, "{other:?}");
        }
    }
}
