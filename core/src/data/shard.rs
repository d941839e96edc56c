//! A shard: a range of samples, with the files that hold it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::spec::DatasetSpec;
use crate::error::{Error, Result};

/// Samples `start` to `stop` (exclusive) of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub id: u32,
    pub start: u64,
    pub stop: u64,
    /// In order; where the dataset was not scanned, its path with the samples' own numbers as rows.
    pub files: Vec<ShardFile>,
}

/// Rows `row_start` to `row_stop` (exclusive) of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFile {
    pub path: PathBuf,
    pub row_start: u64,
    pub row_stop: u64,
}

impl DatasetSpec {
    /// The shard of this number. Fails with NotFound beyond the last.
    pub fn shard(&self, id: u32) -> Result<Shard> {
        if id >= self.shards() {
            return Err(Error::not_found(format!(
                "reading dataset {:?}: shard {id} of {}",
                self.id,
                self.shards()
            )));
        }
        let start = u64::from(id) * self.shard_size;
        let stop = (start + self.shard_size).min(self.total_samples);
        let files = if self.files.is_empty() {
            vec![ShardFile { path: self.path.clone(), row_start: start, row_stop: stop }]
        } else {
            self.rows(start..stop)
                .map(|(path, rows)| ShardFile {
                    path: path.to_owned(),
                    row_start: rows.start,
                    row_stop: rows.end,
                })
                .collect()
        };
        Ok(Shard { id, start, stop, files })
    }

    /// The rows of each file that hold these samples.
    fn rows(&self, samples: Range<u64>) -> impl Iterator<Item = (&Path, Range<u64>)> {
        let mut first = 0;
        self.files.iter().filter_map(move |file| {
            let start = first;
            first += file.samples;
            let rows = samples.start.max(start)..samples.end.min(first);
            (rows.start < rows.end).then(|| (file.path.as_path(), rows.start - start..rows.end - start))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataFile, Dtype, Format};

    fn spec(files: &[(&str, u64)]) -> DatasetSpec {
        let format = Format::Tokens { dtype: Dtype::Uint8, sample_len: 2 };
        let file = |(path, samples): &(&str, u64)| DataFile { path: path.into(), samples: *samples };
        DatasetSpec {
            total_samples: 10,
            shuffle: true,
            version: 1,
            files: files.iter().map(file).collect(),
            ..DatasetSpec::new("d", "/data", format, 4)
        }
    }

    fn ranges(spec: &DatasetSpec, id: u32) -> Vec<(String, u64, u64)> {
        let shard = spec.shard(id).unwrap();
        shard.files.iter().map(|f| (f.path.display().to_string(), f.row_start, f.row_stop)).collect()
    }

    #[test]
    fn shards_cover_every_row_of_every_file_once() {
        let spec = spec(&[("a", 3), ("empty", 0), ("b", 6), ("c", 1)]);
        assert_eq!(ranges(&spec, 0), [("a".into(), 0, 3), ("b".into(), 0, 1)]);
        assert_eq!(ranges(&spec, 1), [("b".into(), 1, 5)]);
        assert_eq!(ranges(&spec, 2), [("b".into(), 5, 6), ("c".into(), 0, 1)]);
        assert_eq!(spec.shard(2).unwrap().stop, 10);
    }

    #[test]
    fn without_a_scan_a_shard_is_its_range() {
        assert_eq!(ranges(&spec(&[]), 2), [("/data".into(), 8, 10)]);
    }

    #[test]
    fn a_shard_beyond_the_last_is_not_found() {
        assert_eq!(spec(&[]).shard(3).unwrap_err().kind, crate::error::Kind::NotFound);
    }
}
