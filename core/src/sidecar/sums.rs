//! CRC32C of a slot's chunks, taken right after its seal (or its load) and kept beside the arena: what is restored from
//! memory is checked against them, also by a sidecar that was restarted in between.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::records;
use crate::checkpoint::{each_at, matches_any};
use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::format::chunks::{self, Span};
use crate::handoff::Slot;
use crate::pace::Pace;
use crate::proto::format::Tensor;

/// Two cores read memory at nearly its full rate; more than this only takes them from other ranks' restores.
const MOST_THREADS: usize = 8;

/// Of one filling of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    fill: u64,
    /// By chunk, in the order of the slot.
    chunks: Vec<u32>,
}

impl Sums {
    /// Reads the whole slot: call it on a blocking thread.
    pub fn of(slot: &Slot, fill: u64) -> Result<Sums> {
        Sums::of_at(slot, fill, &Pace::hurried())
    }

    /// The same at a pace.
    pub fn of_at(slot: &Slot, fill: u64, pace: &Pace) -> Result<Sums> {
        let chunks = sums(slot, pace)?;
        Ok(Sums { fill, chunks })
    }

    /// Corrupt, naming the slot, when a byte is not what it was.
    pub fn check_at(&self, slot: &Slot, pace: &Pace) -> Result<()> {
        let found = sums(slot, pace)?;
        let same = found.len() == self.chunks.len();
        let wrong = found.iter().zip(&self.chunks).position(|(found, wanted)| found != wanted);
        match wrong {
            None if same => Ok(()),
            wrong => Err(changed(slot, wrong.unwrap_or(found.len().min(self.chunks.len())))),
        }
    }

    /// The same on all cores, for a trainer that waits for it: of the chunks that hold tensors of `only` (empty: all).
    pub fn check_for(&self, slot: &Slot, only: &str) -> Result<()> {
        let (index, data) = (slot.index()?, slot.data()?);
        let data = data.as_ref();
        let spans = spans(&index.tensors, data)?;
        if spans.len() != self.chunks.len() {
            return Err(changed(slot, spans.len().min(self.chunks.len())));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let check = |number: usize| match sum_of(data, spans[number]) == self.chunks[number] {
            true => Ok(()),
            false => Err(changed(slot, number)),
        };
        each_at(&Pace::hurried(), threads, wanted(&index.tensors, &spans, only), check).map(drop)
    }

    /// None when there are none for this filling, or they are damaged themselves.
    pub fn read(slot: &Slot, fill: u64) -> Option<Sums> {
        let text = std::fs::read(path(slot)).ok()?;
        match records::decode::<Sums>(&text) {
            Ok(sums) => (sums.fill == fill).then_some(sums),
            Err(error) => {
                tracing::error!("the checksums of {slot} are not used: {error}");
                None
            }
        }
    }

    pub fn write(&self, slot: &Slot) -> Result<()> {
        records::replace(&path(slot), &records::encode(self))
    }

    pub fn remove(slot: &Slot) {
        // There may be none; a left-over one belongs to no filling to come.
        let _ = std::fs::remove_file(path(slot));
    }
}

fn path(slot: &Slot) -> PathBuf {
    slot.arena().path().with_extension(format!("{}.sums", slot.number()))
}

fn changed(slot: &Slot, number: usize) -> Error {
    Error::corrupt(format!("checking {slot}: chunk {number} is not what was sealed (CRC32C)"))
}

fn sums(slot: &Slot, pace: &Pace) -> Result<Vec<u32>> {
    let (index, data) = (slot.index()?, slot.data()?);
    let spans = spans(&index.tensors, data.as_ref())?;
    // One thread: it is done long before the disk has the bytes.
    each_at(pace, 1, spans, |span| Ok(sum_of(data.as_ref(), span)))
}

fn spans(tensors: &[Tensor], data: &[u8]) -> Result<Vec<Span>> {
    let runs = chunks::runs(tensors, data.len() as u64)?;
    Ok(runs.iter().flat_map(|run| run.spans()).collect())
}

fn sum_of(data: &[u8], span: Span) -> u32 {
    crc32c(&data[span.offset as usize..(span.offset + span.bytes) as usize])
}

/// Numbers of the spans that hold bytes of the tensors asked for.
fn wanted(tensors: &[Tensor], spans: &[Span], only: &str) -> Vec<usize> {
    if only.is_empty() {
        return (0..spans.len()).collect();
    }
    let mut found = std::collections::BTreeSet::new();
    for tensor in tensors.iter().filter(|tensor| tensor.staged && matches_any(only, &tensor.name)) {
        let first = spans.partition_point(|span| span.offset + span.bytes <= tensor.offset);
        let end = tensor.offset + tensor.bytes;
        found.extend((first..spans.len()).take_while(|&number| spans[number].offset < end));
    }
    found.into_iter().collect()
}
