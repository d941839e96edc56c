//! Specs, shards and positions as the services carry them.

use std::path::PathBuf;

use super::format::{About, Format};
use super::shard::{Shard, ShardFile};
use super::spec::{DataFile, DatasetSpec, Quarantined};
use crate::error::{Error, Result};
use crate::ids::WorldSize;
use crate::proto::v1;
use crate::sharding::Cursor;

impl TryFrom<v1::DatasetSpec> for DatasetSpec {
    type Error = Error;

    /// Fails with Invalid for an unknown format or dtype; [`DatasetSpec::validate`] checks the rest.
    fn try_from(spec: v1::DatasetSpec) -> Result<DatasetSpec> {
        let v1::DatasetSpec { dtype, sample_len, columns, shape, schema, .. } = spec;
        let format = Format::new(&spec.format, About { dtype, sample_len, columns, shape, schema })
            .map_err(|error| error.while_doing(format!("registering dataset {:?}", spec.id)))?;
        let file = |file: v1::DataFile| DataFile { path: PathBuf::from(file.path), samples: file.samples };
        let left_out = |v1::QuarantinedFile { path, reason }| Quarantined { path: path.into(), reason };
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
            quarantined: spec.quarantined.into_iter().map(left_out).collect(),
        })
    }
}

impl From<DatasetSpec> for v1::DatasetSpec {
    fn from(spec: DatasetSpec) -> v1::DatasetSpec {
        let About { dtype, sample_len, columns, shape, schema } = spec.format.about();
        let file = |file: DataFile| v1::DataFile { path: text(file.path), samples: file.samples };
        let left_out = |Quarantined { path, reason }| v1::QuarantinedFile { path: text(path), reason };
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
            columns,
            shape,
            schema,
            quarantined: spec.quarantined.into_iter().map(left_out).collect(),
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
    /// the ones at hand is for [`super::Share::cursor`] to say.
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
    use crate::data::dtype::Dtype;

    #[test]
    fn specs_and_cursors_read_the_same_on_both_sides_of_the_wire() {
        let columns = vec!["text".to_owned(), "label".to_owned()];
        let formats = [
            Format::Tokens { dtype: Dtype::Int64, sample_len: 9 },
            Format::Npy { dtype: Some(Dtype::Float16), shape: vec![3, 4] },
            Format::Npy { dtype: None, shape: vec![] },
            Format::Jsonl,
            Format::WebDataset { parts: columns.clone() },
            Format::Parquet { columns, schema: "text: Utf8, label: Int32?".into() },
            Format::Named("tfrecord".into()),
        ];
        for format in formats {
            let spec = DatasetSpec {
                total_samples: 10,
                shuffle: true,
                seed: 3,
                version: 77,
                files: vec![DataFile { path: "/data/a".into(), samples: 10 }],
                quarantined: vec![Quarantined { path: "/data/b".into(), reason: "it ends early".into() }],
                ..DatasetSpec::new("d", "/data", format, 4)
            };
            let back = DatasetSpec::try_from(v1::DatasetSpec::from(spec.clone())).unwrap();
            assert_eq!(back, spec);
        }

        let cursor =
            Cursor::new("d", 77, 2, 5, WorldSize(3)).unwrap().advanced().resized(6, WorldSize(3)).unwrap();
        let position = v1::DataPosition::from(&cursor.advanced());
        assert_eq!(Cursor::from_position(&position, WorldSize(3)).unwrap(), cursor.advanced());
    }
}
