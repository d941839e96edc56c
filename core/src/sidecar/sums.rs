//! CRC32C of a slot's chunks, taken right after its seal (or its load) and kept beside the arena: what is restored from
//! memory is checked against them, also by a sidecar that was restarted in between.

use std::path::PathBuf;

use crc_fast::{CrcAlgorithm, checksum};
use serde::{Deserialize, Serialize};

use super::records;
use crate::checkpoint::each_at;
use crate::error::{Error, Result};
use crate::format::chunks;
use crate::handoff::Slot;
use crate::pace::Pace;
use crate::proto::format::Tensor;

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
    pub fn check(&self, slot: &Slot) -> Result<()> {
        self.check_at(slot, &Pace::hurried())
    }

    /// The same at a pace.
    pub fn check_at(&self, slot: &Slot, pace: &Pace) -> Result<()> {
        let found = sums(slot, pace)?;
        let same = found.len() == self.chunks.len();
        let wrong = found.iter().zip(&self.chunks).position(|(found, wanted)| found != wanted);
        match wrong {
            None if same => Ok(()),
            wrong => Err(Error::corrupt(format!(
                "checking {slot}: chunk {} is not what was sealed (CRC32C)",
                wrong.unwrap_or(found.len().min(self.chunks.len()))
            ))),
        }
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

fn sums(slot: &Slot, pace: &Pace) -> Result<Vec<u32>> {
    let (index, data) = (slot.index()?, slot.data()?);
    of_tensors(&index.tensors, data.as_ref(), pace)
}

fn of_tensors(tensors: &[Tensor], data: &[u8], pace: &Pace) -> Result<Vec<u32>> {
    let runs = chunks::runs(tensors, data.len() as u64)?;
    let spans = runs.iter().flat_map(|run| run.spans()).collect();
    let sum = |span: chunks::Span| {
        let bytes = &data[span.offset as usize..(span.offset + span.bytes) as usize];
        Ok(checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32)
    };
    // One thread: it is done long before the disk has the bytes.
    each_at(pace, 1, spans, sum)
}
