//! Reading one leased slot, in the trainer.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::copy::{Run, copy};
use super::header::SlotSnapshot;
use super::mapping::Mapping;
use super::private::PrivateMapping;
use super::slot::read_index;
use crate::error::{Doing, Error, Result};
use crate::proto::format::SlotIndex;

/// A run of this process's memory and the place in the slot's data that it is filled from.
#[derive(Clone, Copy, Debug)]
pub struct CopyOut {
    pub target: *mut u8,
    pub bytes: u64,
    pub offset: u64,
}

/// A slot that is Sealed, Persisting or Clean. The sidecar's lease, not this value, keeps it from being filled again.
pub struct SlotReader {
    file: Arc<File>,
    mapping: Arc<Mapping>,
    snapshot: SlotSnapshot,
}

impl SlotReader {
    pub(super) fn new(file: Arc<File>, mapping: Arc<Mapping>, snapshot: SlotSnapshot) -> SlotReader {
        SlotReader { file, mapping, snapshot }
    }

    pub fn snapshot(&self) -> &SlotSnapshot {
        &self.snapshot
    }

    /// The index, checked against its checksum.
    pub fn index(&self) -> Result<SlotIndex> {
        read_index(&self.mapping, self.snapshot.slot)
            .doing(|| format!("reading the index of slot {}", self.snapshot.slot))
    }

    /// All of the slot's data.
    pub fn data(&self) -> &[u8] {
        // SAFETY: inside the mapping (checked with the seal); nobody writes to a slot that is leased.
        unsafe {
            std::slice::from_raw_parts(
                self.mapping.data(self.snapshot.slot),
                self.snapshot.data_bytes as usize,
            )
        }
    }

    /// All of the slot's data as this process's own memory, of which the ranges in `used` will be looked at. The slot's
    /// lease must last until every page of them is owned, or the mapping is dropped.
    pub fn map_private(&self, used: &[Range<u64>]) -> Result<PrivateMapping> {
        let offset = self.mapping.header.slot_offset(self.snapshot.slot);
        PrivateMapping::new(&*self.file, offset, self.snapshot.data_bytes, used)
    }

    /// Copies runs of the slot into this process's memory with at most `threads` threads. Invalid, before anything is
    /// written, when a run lies outside of the data.
    ///
    /// # Safety
    /// Every target is writable for its bytes until this returns, and targets overlap nothing.
    pub unsafe fn copy_out(&self, copies: &[CopyOut], threads: usize) -> Result<()> {
        let data = self.data();
        let run = |to: &CopyOut| {
            let end = to.offset.checked_add(to.bytes).filter(|end| *end <= data.len() as u64)?;
            Some(Run {
                source: data[to.offset as usize..end as usize].as_ptr(),
                target: to.target,
                bytes: to.bytes,
            })
        };
        let runs: Option<Vec<Run>> = copies.iter().map(run).collect();
        let runs = runs.ok_or_else(|| {
            Error::invalid(format!("copying out of a slot: a run lies outside of its {} bytes", data.len()))
        })?;
        // SAFETY: sources lie in the leased slot; targets as the caller vouches.
        unsafe { copy(&runs, threads, &|_| true) };
        Ok(())
    }
}
