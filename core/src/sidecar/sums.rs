//! CRC32C of a slot's chunks, taken right after its seal (or its load) and kept beside the arena: what is restored from
//! memory is checked against them, also by a sidecar that was restarted in between.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::records;
use crate::checkpoint::{SlotSums, each_at, matches_any};
use crate::error::{Doing, Error, Result};
use crate::format::Span;
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
    /// Reads what is not summed yet: call it on a blocking thread.
    pub fn take(slot: &Slot, fill: u64, sums: &SlotSums, pace: &Pace) -> Result<Sums> {
        let chunks = sums.take_all(slot.data()?.as_ref(), pace)?;
        Ok(Sums { fill, chunks })
    }

    /// The same of a slot that nobody has summed yet, at once.
    pub fn of(slot: &Slot, fill: u64) -> Result<Sums> {
        let untaken = SlotSums::untaken(&slot.index()?, slot.data()?.as_ref().len() as u64)?;
        Sums::take(slot, fill, &untaken, &Pace::hurried())
    }

    /// Corrupt, naming the slot, when its layout is not what it was.
    pub fn of_slot(&self, slot: &Slot) -> Result<SlotSums> {
        let (index, data) = (slot.index()?, slot.data()?);
        SlotSums::known(&index, data.as_ref().len() as u64, &self.chunks).doing(|| format!("checking {slot}"))
    }

    /// Corrupt, naming the slot, when a byte is not what it was: of the chunks that hold tensors of `only` (empty: all).
    /// On all cores, for a trainer that waits for it.
    pub fn check_for(&self, slot: &Slot, only: &str) -> Result<()> {
        let (index, data, sums) = (slot.index()?, slot.data()?, self.of_slot(slot)?);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let check = |number: usize| match sums.is_unchanged(number, data.as_ref()) {
            true => Ok(()),
            false => {
                let what = format!("checking {slot}: chunk {number} is not what was sealed (CRC32C)");
                Err(Error::corrupt(what))
            }
        };
        each_at(&Pace::hurried(), threads, wanted(&index.tensors, sums.spans(), only), check).map(drop)
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
