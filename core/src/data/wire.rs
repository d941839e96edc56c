//! Specs, shards and positions as the services carry them.

use std::path::PathBuf;

use super::shard::{Shard, ShardFile};
use super::spec::{DataFile, DatasetSpec, Format};
use crate::error::{Error, Result};
use crate::ids::WorldSize;
use crate::proto::v1;
use crate::sharding::Cursor;

impl TryFrom<v1::DatasetSpec> for DatasetSpec {
    type Error = Error;

    /// Fails with Invalid for an unknown format or dtype; [`DatasetSpec::validate`] checks the rest.
    fn try_from(spec: v1::DatasetSpec) -> Result<DatasetSpec> {
        let format = Format::parse(&spec.format, &spec.dtype, spec.sample_len)
            .map_err(|error| error.while_doing(format!("registering dataset {:?}", spec.id)))?;
        let file = |file: v1::DataFile| DataFile { path: PathBuf::from(file.path), samples: file.samples };
        Ok(DatasetSpec {
            id: spec.id,
            path: PathBuf::from(spec.path),
            format,
            total_samples: spec.total_samples,
            shard_size: spec.shard_size,
            shuffle: spec.shuffle,
            seed: spec.seed,
            version: spec.version,
            files: spec.files.into_iter().map(file).collect(),
        })
    }
}

impl From<DatasetSpec> for v1::DatasetSpec {
    fn from(spec: DatasetSpec) -> v1::DatasetSpec {
        let (dtype, sample_len) = match &spec.format {
            Format::Tokens { dtype, sample_len } => (dtype.name().to_owned(), *sample_len),
            Format::Named(_) => (String::new(), 0),
        };
        let file = |file: DataFile| v1::DataFile { path: text(file.path), samples: file.samples };
        v1::DatasetSpec {
            format: spec.format.name().to_owned(),
            id: spec.id,
            path: text(spec.path),
            total_samples: spec.total_samples,
            shard_size: spec.shard_size,
            shuffle: spec.shuffle,
            seed: spec.seed,
            version: spec.version,
            sample_len,
            dtype,
            files: spec.files.into_iter().map(file).collect(),
        }
    }
}

impl From<Shard> for v1::Shard {
    fn from(shard: Shard) -> v1::Shard {
        let file = |file: ShardFile| v1::ShardFile {
            path: text(file.path),
            row_start: file.row_start,
            row_stop: file.row_stop,
        };
        v1::Shard {
            id: u64::from(shard.id),
            start: shard.start,
            stop: shard.stop,
            files: shard.files.into_iter().map(file).collect(),
        }
    }
}

impl From<&Cursor> for v1::DataPosition {
    fn from(cursor: &Cursor) -> v1::DataPosition {
        v1::DataPosition {
            dataset: cursor.dataset.clone(),
            epoch: cursor.epoch,
            step: cursor.step,
            batch_size: cursor.segment.batch,
            start: cursor.segment.start,
            version: cursor.version,
        }
    }
}

impl Cursor {
    /// The cursor that a COMMIT's position stands for, in the world that committed it. Whether dataset and version are
    /// the ones at hand is for [`super::Batches::new`] to say.
    ///
    /// Fails with Invalid for an empty batch or world.
    pub fn from_position(position: &v1::DataPosition, world: WorldSize) -> Result<Cursor> {
        let v1::DataPosition { dataset, epoch, step, batch_size, start, version } = position;
        let mut cursor = Cursor::new(dataset, *version, *epoch, *batch_size, world)?;
        cursor.step = *step;
        cursor.segment.start = *start;
        Ok(cursor)
    }
}

/// Protobuf strings are UTF-8; a path that isn't is carried with replacement characters and fails, named, when opened.
fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_and_cursors_read_the_same_on_both_sides_of_the_wire() {
        for format in [Format::parse("tokens", "int64", 9).unwrap(), Format::parse("parquet", "", 0).unwrap()]
        {
            let spec = DatasetSpec {
                id: "d".into(),
                path: "/data".into(),
                format,
                total_samples: 10,
                shard_size: 4,
                shuffle: true,
                seed: 3,
                version: 77,
                files: vec![DataFile { path: "/data/a".into(), samples: 10 }],
            };
            let back = DatasetSpec::try_from(v1::DatasetSpec::from(spec.clone())).unwrap();
            assert_eq!(back, spec);

            let cursor = Cursor::new("d", 77, 2, 5, WorldSize(3))
                .unwrap()
                .advanced()
                .resized(6, WorldSize(3))
                .unwrap();
            let position = v1::DataPosition::from(&cursor.advanced());
            assert_eq!(Cursor::from_position(&position, WorldSize(3)).unwrap(), cursor.advanced());
        }
    }
}
