//! Samples that must be decoded: rows of Parquet files. What was decoded is kept, since the order asks for its rows again and again.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_select::interleave::interleave_record_batch;
use parking_lot::Mutex;

use crate::data::files::{Files, Located, Open, Opened};
use crate::data::formats::parquet::ParquetFile;
use crate::error::{Error, Kind, Result};

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
    pub fn read(&self, files: &Files, samples: &[u64]) -> Result<RecordBatch> {
        let mut parts: Vec<(Key, RecordBatch)> = Vec::new();
        let mut places = vec![(0, 0); samples.len()];
        for Located { file, row, place } in files.by_file(samples)? {
            let path = files.path(file);
            let open = self.open.get(files, file, |file| ParquetFile::open(&self.columns, path, file))?;
            let Some((piece, row)) = open.locate(row) else {
                return Err(Error::corrupt(format!(
                    "reading {}: it has {} rows, fewer than when it was registered",
                    path.display(),
                    open.rows()
                ))
                .hint("put the whole file back, or register the dataset anew under another id"));
            };
            // In this order it is the last one, or a new one.
            if parts.last().is_none_or(|(key, _)| *key != (file, piece)) {
                let decoded = self.decoded.get((file, piece), || open.decode(piece, path))?;
                parts.push(((file, piece), decoded));
            }
            places[place] = (parts.len() - 1, row);
        }
        let batches: Vec<&RecordBatch> = parts.iter().map(|(_, batch)| batch).collect();
        if batches.is_empty() {
            return self.empty(files);
        }
        interleave_record_batch(&batches, &places)
            .map_err(|error| Error::internal(format!("making a batch: {error}")))
    }

    /// A batch without rows has the columns, too: of the first file that can be opened.
    fn empty(&self, files: &Files) -> Result<RecordBatch> {
        let mut outcome = Err(Error::invalid("reading a dataset without files"));
        for file in 0..files.count() {
            outcome = self
                .open
                .get(files, file, |opened| ParquetFile::open(&self.columns, files.path(file), opened));
            if outcome.as_ref().map_or_else(|error| error.kind != Kind::Corrupt, |_| true) {
                break;
            }
        }
        Ok(RecordBatch::new_empty(outcome?.schema()))
    }
}

impl Opened for ParquetFile {
    fn file(&self) -> &File {
        ParquetFile::file(self)
    }
}

/// File and piece of it.
type Key = (usize, usize);

/// The pieces that were decoded last. Threads share it: a piece is decoded by one of them, for which the others that want it wait.
#[derive(Default)]
struct Decoded {
    pieces: Mutex<Pieces>,
}

#[derive(Default)]
struct Pieces {
    /// The one that was asked for last comes last; of 0 bytes until it has been decoded.
    held: VecDeque<(Key, Piece, usize)>,
    bytes: usize,
}

type Piece = Arc<Mutex<Option<RecordBatch>>>;

impl Decoded {
    fn get(&self, key: Key, decode: impl FnOnce() -> Result<RecordBatch>) -> Result<RecordBatch> {
        let piece = self.pieces.lock().place(key);
        let mut piece = piece.lock();
        if let Some(batch) = &*piece {
            return Ok(batch.clone());
        }
        let batch = decode()?;
        *piece = Some(batch.clone());
        self.pieces.lock().filled(key, batch.get_array_memory_size());
        Ok(batch)
    }
}

impl Pieces {
    fn place(&mut self, key: Key) -> Piece {
        let known = self.held.iter().position(|(known, ..)| *known == key);
        let held = known.and_then(|at| self.held.remove(at)).unwrap_or_else(|| (key, Piece::default(), 0));
        let piece = held.1.clone();
        self.held.push_back(held);
        piece
    }

    /// Makes room for this piece, if it is still held.
    fn filled(&mut self, key: Key, bytes: usize) {
        let Some(at) = self.held.iter().position(|(known, ..)| *known == key) else { return };
        self.held[at].2 = bytes;
        self.bytes += bytes;
        while self.bytes > KEPT
            && let Some(first) = self.held.iter().position(|(known, _, bytes)| *bytes > 0 && *known != key)
            && let Some((.., freed)) = self.held.remove(first)
        {
            self.bytes -= freed;
        }
    }
}
