//! Samples that lie somewhere in their file: lines, and the parts of an archive's samples. A file is gone through once, when it is
//! opened; then each sample is read to its place in the batch, without a copy between.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::fixed::read_at;
use crate::data::files::{Files, Located, Open, Opened};
use crate::data::formats::{Extent, archive, lines};
use crate::error::{Error, Result};

/// The column of a sample's name in an archive, as WebDataset calls it.
pub const KEY: &str = "__key__";
/// The column of a line.
pub const LINE: &str = "line";

pub struct Extents {
    kind: Kind,
    schema: SchemaRef,
    open: Open<Source>,
}

enum Kind {
    Lines,
    /// With these parts, in this order.
    Archives(Vec<String>),
}

/// An open file and where its samples lie.
struct Source {
    file: File,
    /// Names of its samples; none for lines.
    keys: Vec<String>,
    /// As many for each sample as there are columns.
    extents: Vec<Option<Extent>>,
}

impl Extents {
    pub fn lines() -> Extents {
        let schema = Schema::new(vec![Field::new(LINE, DataType::Binary, false)]);
        Extents { kind: Kind::Lines, schema: Arc::new(schema), open: Open::default() }
    }

    pub fn archives(parts: &[String]) -> Extents {
        let key = Field::new(KEY, DataType::Utf8, false);
        let parts_of = parts.iter().map(|part| Field::new(part, DataType::Binary, true));
        let schema = Schema::new([key].into_iter().chain(parts_of).collect::<Vec<_>>());
        Extents { kind: Kind::Archives(parts.to_vec()), schema: Arc::new(schema), open: Open::default() }
    }

    /// A row a sample.
    pub fn read(&self, files: &Files, samples: &[u64]) -> Result<RecordBatch> {
        let width = self.width();
        let located = files.by_file(samples)?;
        let mut keys = vec![String::new(); samples.len()];
        let mut extents = vec![None; samples.len() * width];
        for Located { file, row, place } in located.iter().copied() {
            let source = self.source(files, file)?;
            let row = row as usize;
            extents[place * width..(place + 1) * width]
                .copy_from_slice(&source.extents[row * width..(row + 1) * width]);
            keys[place] = source.keys.get(row).cloned().unwrap_or_default();
        }
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(width + 1);
        if let Kind::Archives(_) = self.kind {
            columns.push(Arc::new(StringArray::from(keys)));
        }
        for number in 0..width {
            let mut column = Column::new(extents.iter().skip(number).step_by(width))?;
            for Located { file, place, .. } in located.iter().copied() {
                if let Some(extent) = extents[place * width + number] {
                    let source = self.source(files, file)?;
                    read_at(&source.file, files.path(file), extent.offset, column.slot(place))?;
                }
            }
            columns.push(Arc::new(column.finish()));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(samples.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::internal(format!("making a batch: {error}")))
    }

    /// Extents of a sample.
    fn width(&self) -> usize {
        match &self.kind {
            Kind::Lines => 1,
            Kind::Archives(parts) => parts.len(),
        }
    }

    /// With all its samples: of a file that was cut off the last one may be a part.
    fn source(&self, files: &Files, file: usize) -> Result<Arc<Source>> {
        let path = files.path(file);
        self.open.get(files, file, |opened| {
            let (source, wanted) = (open(&self.kind, path, opened)?, files.samples(file));
            match (source.extents.len() as u64) < wanted * self.width() as u64 {
                false => Ok(source),
                true => Err(shrunk(path, source.extents.len() / self.width())),
            }
        })
    }
}

impl Opened for Source {
    fn file(&self) -> &File {
        &self.file
    }
}

fn open(kind: &Kind, path: &Path, file: File) -> Result<Source> {
    match kind {
        Kind::Lines => {
            let extents = lines::index(path, &file)?.into_iter().map(Some).collect();
            Ok(Source { file, keys: Vec::new(), extents })
        }
        Kind::Archives(parts) => {
            let (mut keys, mut extents) = (Vec::new(), Vec::new());
            for archive::Sample { key, parts: found } in archive::index(path, &file)? {
                let of = |part: &String| {
                    found.iter().find(|(ending, _)| ending == part).map(|(_, extent)| *extent)
                };
                extents.extend(parts.iter().map(of));
                keys.push(key);
            }
            Ok(Source { file, keys, extents })
        }
    }
}

fn shrunk(path: &Path, samples: usize) -> Error {
    Error::corrupt(format!(
        "reading {}: it has {samples} samples, fewer than when it was registered",
        path.display()
    ))
    .hint("put the whole file back, or register the dataset anew under another id")
}

/// Values of one column, to be read to their places.
struct Column {
    values: Vec<u8>,
    /// Where each begins, and where the last one ends.
    offsets: Vec<i32>,
    is_there: Vec<bool>,
}

impl Column {
    fn new<'a>(extents: impl Iterator<Item = &'a Option<Extent>>) -> Result<Column> {
        let (mut end, mut offsets, mut is_there) = (0i64, vec![0], Vec::new());
        for extent in extents {
            end += i64::from(extent.map_or(0, |extent| extent.bytes));
            offsets.push(i32::try_from(end).map_err(|_| {
                Error::invalid("reading a batch: more than 2 GiB of one column")
                    .hint("take a smaller batch_size")
            })?);
            is_there.push(extent.is_some());
        }
        Ok(Column { values: vec![0; end as usize], offsets, is_there })
    }

    fn slot(&mut self, place: usize) -> &mut [u8] {
        &mut self.values[self.offsets[place] as usize..self.offsets[place + 1] as usize]
    }

    fn finish(self) -> BinaryArray {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        let nulls = self.is_there.contains(&false).then(|| NullBuffer::from(self.is_there));
        BinaryArray::new(offsets, Buffer::from_vec(self.values), nulls)
    }
}
