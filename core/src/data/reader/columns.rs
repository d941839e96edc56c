//! Samples that must be decoded: rows of Parquet files. What was decoded is kept, since the order asks for its rows again and again.

use std::collections::VecDeque;

use arrow_array::RecordBatch;
use arrow_select::interleave::interleave_record_batch;

use crate::data::files::{Files, Open};
use crate::data::formats::parquet::ParquetFile;
use crate::error::{Error, Result};

/// Of decoded rows: a window's 16 shards in pieces of 32 MiB. With less, pieces would be decoded again for every batch.
const KEPT: usize = 512 << 20;

pub struct Columns {
    columns: Vec<String>,
    open: Open<ParquetFile>,
    decoded: Decoded,
}

impl Columns {
    pub fn new(columns: &[String]) -> Columns {
        Columns { columns: columns.to_vec(), open: Open::default(), decoded: Decoded::default() }
    }

    /// A row a sample.
    pub fn read(&mut self, files: &Files, samples: &[u64]) -> Result<RecordBatch> {
        let mut parts: Vec<(Key, RecordBatch)> = Vec::new();
        let mut places = Vec::with_capacity(samples.len());
        for sample in samples {
            let (file, row) = files.locate(*sample)?;
            let path = files.path(file);
            let open = self.open.get(file, || ParquetFile::open(&self.columns, path, files.open(file)?))?;
            let Some((piece, row)) = open.locate(row) else {
                return Err(Error::corrupt(format!(
                    "reading {}: it has {} rows, fewer than when it was registered",
                    path.display(),
                    open.rows()
                ))
                .hint("put the whole file back, or register the dataset anew under another id"));
            };
            let part = match parts.iter().rposition(|(key, _)| *key == (file, piece)) {
                Some(part) => part,
                None => {
                    parts
                        .push(((file, piece), self.decoded.get((file, piece), || open.decode(piece, path))?));
                    parts.len() - 1
                }
            };
            places.push((part, row));
        }
        let batches: Vec<&RecordBatch> = parts.iter().map(|(_, batch)| batch).collect();
        if batches.is_empty() {
            return self.empty(files);
        }
        interleave_record_batch(&batches, &places)
            .map_err(|error| Error::internal(format!("making a batch: {error}")))
    }

    /// A batch without rows has the columns, too.
    fn empty(&mut self, files: &Files) -> Result<RecordBatch> {
        let path = files.path(0);
        let open = self.open.get(0, || ParquetFile::open(&self.columns, path, files.open(0)?))?;
        Ok(RecordBatch::new_empty(open.schema()))
    }
}

/// File and piece of it.
type Key = (usize, usize);

/// The pieces that were decoded last.
#[derive(Default)]
struct Decoded {
    pieces: VecDeque<(Key, RecordBatch, usize)>,
    bytes: usize,
}

impl Decoded {
    fn get(&mut self, key: Key, decode: impl FnOnce() -> Result<RecordBatch>) -> Result<RecordBatch> {
        if let Some(at) = self.pieces.iter().position(|(known, ..)| *known == key) {
            let piece = self.pieces.remove(at).expect("it was found there");
            self.pieces.push_back(piece);
            return Ok(self.pieces[self.pieces.len() - 1].1.clone());
        }
        let batch = decode()?;
        let bytes = batch.get_array_memory_size();
        while self.bytes + bytes > KEPT
            && let Some((.., freed)) = self.pieces.pop_front()
        {
            self.bytes -= freed;
        }
        self.bytes += bytes;
        self.pieces.push_back((key, batch.clone(), bytes));
        Ok(batch)
    }
}
