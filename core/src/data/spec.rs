//! What a dataset is registered with.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

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
}

/// One file and how many whole samples it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    pub path: PathBuf,
    pub samples: u64,
}

/// How samples lie in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Raw little-endian items without a header, `sample_len` to a sample; what is left over at a file's end is unused.
    Tokens { dtype: Dtype, sample_len: u32 },
    /// A format whose files this build doesn't open: registered and placed by its metadata alone.
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    Uint8,
    Uint16,
    Uint32,
    Int32,
    Int64,
}

impl Dtype {
    pub const ALL: [Dtype; 5] = [Dtype::Uint8, Dtype::Uint16, Dtype::Uint32, Dtype::Int32, Dtype::Int64];

    /// As NumPy and torch spell it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Uint8 => "uint8",
            Dtype::Uint16 => "uint16",
            Dtype::Uint32 => "uint32",
            Dtype::Int32 => "int32",
            Dtype::Int64 => "int64",
        }
    }

    /// Bytes of one item.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::Uint8 => 1,
            Dtype::Uint16 => 2,
            Dtype::Uint32 | Dtype::Int32 => 4,
            Dtype::Int64 => 8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let names = Dtype::ALL.map(Dtype::name).join(", ");
            Error::invalid(format!("reading the dtype {name:?}: tokens have none of that name"))
                .hint(format!("dtype= is one of {names}"))
        })
    }
}

impl Format {
    const NAMES: [&str; 5] = ["tokens", "parquet", "jsonl", "webdataset", "npy"];

    /// `name` as users write it; `dtype` and `sample_len` belong to tokens alone. A name that nearly is a known one is
    /// Invalid; any other stands for a format that the caller reads.
    pub fn parse(name: &str, dtype: &str, sample_len: u32) -> Result<Format> {
        if name == "tokens" {
            if sample_len == 0 {
                return Err(Error::invalid("reading the format tokens: a sample of 0 tokens")
                    .hint("sample_len= says how many tokens make a sample"));
            }
            return Ok(Format::Tokens { dtype: dtype.parse()?, sample_len });
        }
        // Between slips such as "parqet" or "json" and real other names such as "tfrecord" (test below).
        let near = |known: &&str| name != *known && strsim::jaro_winkler(name, known) > 0.85;
        if let Some(known) = Format::NAMES.iter().find(|known| near(known)) {
            return Err(Error::invalid(format!("reading the format {name:?}: no such format"))
                .hint(format!("did you mean {known:?}?")));
        }
        if name.is_empty() {
            return Err(Error::invalid("reading the format: it is empty")
                .hint(format!("format= is one of {}, or your own", Format::NAMES.join(", "))));
        }
        Ok(Format::Named(name.to_owned()))
    }

    pub fn name(&self) -> &str {
        match self {
            Format::Tokens { .. } => "tokens",
            Format::Named(name) => name,
        }
    }

    /// Bytes of one sample, where all samples have the same.
    pub fn sample_bytes(&self) -> Option<u64> {
        match self {
            Format::Tokens { dtype, sample_len } => Some(dtype.bytes() * u64::from(*sample_len)),
            Format::Named(_) => None,
        }
    }
}

impl DatasetSpec {
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
        if let Format::Tokens { dtype, sample_len } = &self.format {
            text(dtype.name());
            text(&sample_len.to_string());
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
        DatasetSpec {
            id: "imagenet".into(),
            path: "/data/imagenet".into(),
            format: Format::parse("parquet", "", 0).unwrap(),
            total_samples: 1_281_167,
            shard_size: 10_000,
            shuffle: true,
            seed: 0,
            version: 0,
            files: vec![],
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

    #[test]
    fn a_slip_in_the_format_is_refused_and_a_strange_format_is_not() {
        for slip in ["parqet", "Parquet", "json", "token", ""] {
            assert_eq!(Format::parse(slip, "uint8", 1).unwrap_err().kind, Kind::Invalid, "{slip}");
        }
        for strange in ["tfrecord", "arrow", "parquet", "jsonl", "npy", "webdataset"] {
            assert_eq!(Format::parse(strange, "", 0).unwrap().name(), strange);
        }
        assert!(Format::parse("tokens", "float32", 8).is_err());
        assert!(Format::parse("tokens", "uint8", 0).is_err());
    }
}
