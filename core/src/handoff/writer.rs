//! Filling and sealing one slot, in the trainer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::copy::{Run, copy};
use super::fork::{self, ForkedCopy};
use super::forkable;
use super::mapping::Mapping;
use super::rejoin;
use super::slot::{swap, write_seal};
use super::state::{SlotState, Word};
use crate::error::{Doing, Error, Result};
use crate::format::chunks::ALIGNMENT;
use crate::proto::format::SlotIndex;

/// A run of this process's memory and its place in the slot's data.
#[derive(Clone, Copy, Debug)]
pub struct CopyIn {
    pub source: *const u8,
    pub bytes: u64,
    pub offset: u64,
}

/// Where each of a save's runs goes in the slot, and what is zeroed between them.
pub struct FillPlan {
    /// In the order of the copies it was made from.
    runs: Vec<Run>,
    gaps: Vec<(u64, u64)>,
}

impl FillPlan {
    fn chosen(&self, which: &[usize]) -> Vec<Run> {
        which.iter().map(|&number| self.runs[number]).collect()
    }

    pub(super) fn run(&self, number: usize) -> &Run {
        &self.runs[number]
    }

    /// Where in this process's memory a run goes.
    pub fn target(&self, number: usize) -> *mut u8 {
        self.runs[number].target
    }

    /// The first of the runs `which` that this forked child does not see as it was at the fork, and why.
    pub fn first_unfit_to_fork(
        &self,
        child: &ForkedCopy,
        which: &[usize],
    ) -> Result<Option<(usize, &'static str)>> {
        forkable::first_unfit(child.pid(), which.iter().map(|&number| (number, &self.runs[number])))
    }

    /// Has the memory that these runs are copied from put into huge pages, in the background: the next fork is cheaper for
    /// it. For after a forked child has ended; a later fork ends it.
    pub fn rejoin_in_background(&self, which: &[usize]) -> Result<()> {
        rejoin::in_background(which.iter().map(|&number| &self.runs[number]))
    }

    pub fn bytes(&self, which: &[usize]) -> u64 {
        which.iter().map(|&number| self.runs[number].bytes).sum()
    }
}

/// The right to fill one slot under one fill number.
pub struct SlotWriter {
    mapping: Arc<Mapping>,
    slot: u32,
    fill: u64,
}

impl SlotWriter {
    pub(super) fn new(mapping: Arc<Mapping>, slot: u32, fill: u64) -> SlotWriter {
        SlotWriter { mapping, slot, fill }
    }

    /// Conflict when the slot is no longer Filling under this number: it was abandoned, and may be somebody else's.
    pub fn check(&self) -> Result<()> {
        let found = self.mapping.slot(self.slot).word.load(Ordering::Acquire);
        if found == self.filling().pack() {
            return Ok(());
        }
        Err(self.lost(Word::unpack(found)))
    }

    /// Copies all of `copies` and zeroes what is between them: [`plan`](SlotWriter::plan), [`copy`](SlotWriter::copy)
    /// and [`zero_gaps`](SlotWriter::zero_gaps) at once.
    ///
    /// # Safety
    /// As for [`SlotWriter::copy`].
    pub unsafe fn fill(&self, copies: &[CopyIn], data_bytes: u64, threads: usize) -> Result<()> {
        let plan = self.plan(copies, data_bytes)?;
        let all: Vec<usize> = (0..copies.len()).collect();
        // SAFETY: as the caller vouches.
        unsafe { self.copy(&plan, &all, threads)? };
        self.zero_gaps(&plan)
    }

    /// Copies the runs `which` (numbers of the copies that `plan` was made from) with at most `threads` threads, as fast
    /// as the file gets its memory. Returns when their sources may change. Conflict as in [`SlotWriter::check`], asked
    /// between pieces; Overloaded when memory ran out.
    ///
    /// # Safety
    /// Every source of these runs is readable for its bytes until this returns, and nothing writes to it.
    pub unsafe fn copy(&self, plan: &FillPlan, which: &[usize], threads: usize) -> Result<()> {
        let problem = Mutex::new(None);
        let ready = |piece: &[Run]| {
            let outcome = self.check().and_then(|()| self.ready_for(piece));
            outcome.map_err(|error| problem.lock().get_or_insert(error).kind).is_ok()
        };
        // SAFETY: sources as the caller vouches; targets lie in the slot, do not overlap (checked), and only the
        // owner of this fill writes there.
        unsafe { copy(&plan.chosen(which), threads, &ready) };
        problem.into_inner().map_or(Ok(()), Err)
    }

    /// Returns once the targets have their memory, and have it in this process's page tables.
    fn ready_for(&self, piece: &[Run]) -> Result<()> {
        let end = |run: &Run| self.mapping.offset_of(run.target) + run.bytes;
        self.mapping.wait_allocated(piece.iter().map(end).max().unwrap_or_default())?;
        for run in piece {
            self.mapping.before_writing(run.target, run.bytes);
        }
        Ok(())
    }

    /// As [`SlotWriter::copy`], by a forked child, of the sources as they are at this moment: they may change once this
    /// returns. The child ends with the calling thread.
    ///
    /// # Safety
    /// Every source of these runs is readable.
    pub unsafe fn copy_in_child(&self, plan: &FillPlan, which: &[usize]) -> Result<ForkedCopy> {
        self.check()?;
        self.mapping.wait_slot(self.slot)?;
        rejoin::stop();
        let word = &self.mapping.slot(self.slot).word;
        // SAFETY: sources as the caller vouches; targets lie in the slot, which has its memory.
        unsafe { fork::copy_in_child(&plan.chosen(which), word, self.filling().pack()) }
    }

    /// Zeroes what no run covers, so that equal states give equal slots. Gaps of a page and more are left as they are:
    /// no chunk holds them.
    pub fn zero_gaps(&self, plan: &FillPlan) -> Result<()> {
        self.check()?;
        self.mapping.wait_slot(self.slot)?;
        for (from, to) in &plan.gaps {
            // SAFETY: inside the slot's data, which only the owner of this fill writes to.
            unsafe { self.mapping.data(self.slot).add(*from as usize).write_bytes(0, (to - from) as usize) };
        }
        Ok(())
    }

    /// Checks where the copies go. Invalid when they overlap or lie outside of the slot.
    pub fn plan(&self, copies: &[CopyIn], data_bytes: u64) -> Result<FillPlan> {
        self.places(copies, data_bytes).doing(|| "filling a slot")
    }

    fn places(&self, copies: &[CopyIn], data_bytes: u64) -> Result<FillPlan> {
        if data_bytes > self.mapping.header.slot_bytes {
            return Err(Error::invalid(format!(
                "{data_bytes} bytes of data, the slot holds {}",
                self.mapping.header.slot_bytes
            )));
        }
        let base = self.mapping.data(self.slot);
        let target = |copy: &CopyIn| base.wrapping_add(copy.offset as usize);
        let run = |copy: &CopyIn| Run { source: copy.source, target: target(copy), bytes: copy.bytes };
        let mut order: Vec<&CopyIn> = copies.iter().filter(|copy| copy.bytes > 0).collect();
        order.sort_by_key(|copy| copy.offset);
        let (mut gaps, mut end) = (Vec::new(), 0);
        let mut gap = |from, to| {
            if (1..ALIGNMENT).contains(&(to - from)) {
                gaps.push((from, to));
            }
        };
        for copy in order {
            let copy_end = copy.offset.checked_add(copy.bytes).filter(|end| *end <= data_bytes);
            let Some(copy_end) = copy_end.filter(|_| copy.offset >= end) else {
                return Err(Error::invalid(format!(
                    "a run of {} bytes at {} overlaps another, or lies outside of {data_bytes} bytes",
                    copy.bytes, copy.offset
                )));
            };
            gap(end, copy.offset);
            end = copy_end;
        }
        gap(end, data_bytes);
        Ok(FillPlan { runs: copies.iter().map(run).collect(), gaps })
    }

    /// Writes the index behind the data and seals: one compare-and-swap, after which the trainer may die. Conflict
    /// when the slot has passed on; Invalid when the index does not fit.
    pub fn seal(&self, index: &SlotIndex, data_bytes: u64) -> Result<()> {
        self.check()?;
        write_seal(&self.mapping, self.slot, self.fill, index, data_bytes).doing(|| "sealing a slot")?;
        let sealed = Word { state: SlotState::Sealed, fill: self.fill };
        swap(self.mapping.slot(self.slot), self.filling(), sealed).map_err(|found| self.lost(found))
    }

    fn filling(&self) -> Word {
        Word { state: SlotState::Filling, fill: self.fill }
    }

    fn lost(&self, found: Option<Word>) -> Error {
        let Some(found) = found else {
            return Error::corrupt(format!("slot {}: its state is none that Strata knows", self.slot));
        };
        Error::conflict(format!(
            "slot {} is {} with fill {}, no longer this save's (fill {})",
            self.slot, found.state, found.fill, self.fill
        ))
        .hint("the step was abandoned while it was copied: another rank was lost, or this one stood still too long")
    }
}
