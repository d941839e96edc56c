//! Parquet: a row a sample, of all columns or of those that are asked for. Row groups are decoded in pieces.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::Held;
use super::guarded::guarded;
use crate::data::cache::{Onward, Source};
use crate::data::format::Format;
use crate::error::{Doing, Error, Result};

/// Decoded at once, as the file's own figures estimate it: a window of the order keeps 16 of them in memory.
const PIECE: u64 = 32 << 20;

/// Of the footer alone.
pub fn scan(columns: &[String], path: &Path, source: &Source) -> Result<Held> {
    let layout = guarded(path, || Layout::read(columns, path, &Chunks(source)))?;
    let schema = layout.schema.fields().iter().map(|field| {
        let optional = if field.is_nullable() { "?" } else { "" };
        format!("{}: {}{optional}", field.name(), field.data_type())
    });
    let schema = schema.collect::<Vec<_>>().join(", ");
    Ok(Held { samples: layout.rows(), format: Format::Parquet { columns: columns.to_vec(), schema } })
}

/// An open file.
pub struct ParquetFile {
    file: Placed,
    layout: Layout,
}

/// What a footer says, and how the rows are cut into pieces.
struct Layout {
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    schema: SchemaRef,
    pieces: Vec<Piece>,
}

/// Rows of one row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    group: usize,
    /// The first of them: of the file, and of its row group.
    first: u64,
    skip: u64,
    rows: u64,
}

impl ParquetFile {
    /// Fails with Invalid for a column that it does not have.
    pub fn open(columns: &[String], path: &Path, file: File) -> Result<ParquetFile> {
        let bytes = file.metadata().doing(|| format!("reading {}", path.display()))?.len();
        let file = Placed { file: Arc::new(file), bytes };
        let layout = guarded(path, || Layout::read(columns, path, &file))?;
        Ok(ParquetFile { file, layout })
    }

    pub fn file(&self) -> &File {
        &self.file.file
    }

    pub fn schema(&self) -> SchemaRef {
        self.layout.schema.clone()
    }

    pub fn rows(&self) -> u64 {
        self.layout.rows()
    }

    /// Number of the piece that holds this row, and where it stands in it. None beyond the last.
    pub fn locate(&self, row: u64) -> Option<(usize, usize)> {
        let number = self.layout.pieces.partition_point(|piece| piece.first + piece.rows <= row);
        self.layout.pieces.get(number).map(|piece| (number, (row - piece.first) as usize))
    }

    /// All rows of a piece.
    ///
    /// Fails with Corrupt where the bytes are not what the file says, by their CRC32 too where the writer has left one.
    pub fn decode(&self, number: usize, path: &Path) -> Result<RecordBatch> {
        guarded(path, || self.decode_piece(number, path))
    }

    fn decode_piece(&self, number: usize, path: &Path) -> Result<RecordBatch> {
        let Layout { metadata, mask, schema, pieces } = &self.layout;
        let Piece { group, skip, rows, .. } = pieces[number];
        let selection = vec![RowSelector::skip(skip as usize), RowSelector::select(rows as usize)];
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask.clone())
            .with_row_selection(RowSelection::from(selection))
            .with_batch_size(rows as usize)
            .build()
            .map_err(|error| damaged(path, &error))?;
        let batches =
            reader.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| damaged(path, &error))?;
        let batch = match <[RecordBatch; 1]>::try_from(batches) {
            Ok([whole]) => whole,
            Err(parts) => concat_batches(schema, &parts).map_err(|error| damaged(path, &error))?,
        };
        match batch.num_rows() as u64 == rows {
            true => Ok(batch),
            false => Err(damaged(path, &format!("row group {group} has not the rows that its footer names"))),
        }
    }
}

impl Layout {
    fn read(columns: &[String], path: &Path, file: &impl ChunkReader) -> Result<Layout> {
        let doing = || format!("reading {}", path.display());
        // Arrow's own types, which some writers leave in the file, would differ from writer to writer.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(file, options).map_err(|error| unread(path, error))?;
        refuse_brotli(path, &metadata)?;
        let groups = metadata.parquet_schema();
        let mask = match columns {
            [] => ProjectionMask::all(),
            some => {
                let known: Vec<&str> =
                    metadata.schema().fields().iter().map(|field| field.name().as_str()).collect();
                if let Some(strange) = some.iter().find(|name| !known.contains(&name.as_str())) {
                    return Err(Error::invalid(format!("{}: it has no column {strange:?}", doing()))
                        .hint(format!("its columns: {}", known.join(", "))));
                }
                let wanted = known.iter().enumerate().filter(|(_, name)| some.iter().any(|one| one == *name));
                ProjectionMask::roots(groups, wanted.map(|(number, _)| number))
            }
        };
        let chosen = metadata.schema().fields().iter();
        let chosen = chosen.filter(|field| columns.is_empty() || columns.contains(field.name()));
        let schema = SchemaRef::new(arrow_schema::Schema::new(chosen.cloned().collect::<Vec<_>>()));
        let pieces = pieces(&metadata, &mask);
        Ok(Layout { metadata, mask, schema, pieces })
    }

    fn rows(&self) -> u64 {
        self.pieces.last().map_or(0, |last| last.first + last.rows)
    }
}

/// A file that threads decode at once, each from places of its own: the crate's reader of a [`File`] moves the place that all its
/// clones share.
#[derive(Clone)]
struct Placed {
    file: Arc<File>,
    bytes: u64,
}

impl Length for Placed {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Placed {
    type T = BufReader<Onwards>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(Onwards { file: self.file.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if start.saturating_add(length as u64) > self.bytes {
            return Err(ParquetError::EOF(format!("{length} bytes at {start}: it ends before them")));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// What comes from a place of a file on.
struct Onwards {
    file: Arc<File>,
    at: u64,
}

impl Read for Onwards {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Its decoder, with the encoder that comes along, would be a megabyte and more of the executable.
fn refuse_brotli(path: &Path, metadata: &ArrowReaderMetadata) -> Result<()> {
    let mut columns = metadata.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
    match columns.any(|column| matches!(column.compression(), Compression::BROTLI(_))) {
        false => Ok(()),
        true => Err(Error::invalid(format!("reading {}: it is compressed with Brotli", path.display()))
            .hint("this build can't decode that; write it anew with zstd, snappy, lz4 or gzip")),
    }
}

fn pieces(metadata: &ArrowReaderMetadata, mask: &ProjectionMask) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut first = 0;
    for (group, about) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = about.num_rows().max(0) as u64;
        let chosen = about.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let bytes: u64 = chosen.map(|(_, column)| column.uncompressed_size().max(0) as u64).sum();
        let count = bytes.div_ceil(PIECE).clamp(1, rows.max(1));
        let bound = |number: u64| rows * number / count;
        pieces.extend((0..count).map(|number| {
            let (skip, end) = (bound(number), bound(number + 1));
            Piece { group, first: first + skip, skip, rows: end - skip }
        }));
        first += rows;
    }
    pieces.retain(|piece| piece.rows > 0);
    pieces
}

/// A file that may lie in a bucket, for the crate.
struct Chunks<'a>(&'a Source);

impl Length for Chunks<'_> {
    fn len(&self) -> u64 {
        self.0.bytes()
    }
}

impl<'a> ChunkReader for Chunks<'a> {
    type T = BufReader<Onward<'a>>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(self.0.from(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if start.saturating_add(length as u64) > self.0.bytes() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start}: it ends before")));
        }
        let mut bytes = vec![0; length];
        self.0.read_at(start, &mut bytes).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(Bytes::from(bytes))
    }
}

/// A source that could not be read at all says so itself.
fn unread(path: &Path, error: ParquetError) -> Error {
    match ours(error) {
        Ok(ours) => ours.while_doing(format!("reading {}", path.display())),
        Err(other) => damaged(path, &other),
    }
}

/// The error of ours that this one was made of, as it came from [`Chunks`].
fn ours(error: ParquetError) -> std::result::Result<Error, ParquetError> {
    let ParquetError::External(error) = error else { return Err(error) };
    let error = match error.downcast::<Error>() {
        Ok(ours) => return Ok(*ours),
        Err(other) => other,
    };
    match error.downcast::<io::Error>() {
        Ok(error) => error.downcast::<Error>().map_err(ParquetError::from),
        Err(other) => Err(ParquetError::External(other)),
    }
}

fn damaged(path: &Path, error: &impl std::fmt::Display) -> Error {
    Error::corrupt(format!("reading {}: {error}", path.display()))
        .hint("put the whole file back; parquet-tools or pyarrow show what is left of it")
}
