//! An arena's memory, given to its file step by step after it is published: the first save begins in what is there
//! already, and `prepare` need not be waited for. Nobody touches a page before it has its memory: it would be a SIGBUS.
//!
//! It comes in huge pages where the kernel has them at hand: one small page, which MADV_COLLAPSE then makes a huge one, by
//! zeroing the rest. Measured on 2 cores of an AMD EPYC, for 1 GB: 60 to 85 ms of one core's time so, fallocate alone 240 to
//! 290, on one core whatever the number of threads (the inode's lock). The first copy through a fresh mapping, by two threads,
//! takes 230 to 310 ms over small pages; later ones 72.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

use super::arena::ArenaShared;
use super::budget::{Promise, human};
use super::header::{ArenaHeader, PAGE};
use super::huge::{Collapse, HUGE, Patience, Refusal, pieces};
use super::mapping::{Mapping, populate};
use crate::error::{Doing, Error, Result};

/// About 4 ms of work, so that who copies waits little at each step.
const STEP: u64 = 16 << 20;
/// Huge pages may delay those who wait for memory by about a frame; small ones take some 0.5 ms of a core for 2 MiB, and
/// this much where it is busy. They took 5 ms where a virtual machine's host had to find the memory first.
const PATIENCE: Patience = Patience::new(Duration::from_millis(16), Duration::from_millis(1));
/// A sidecar that gives no step in this time is not there any more; the next one goes on with the file.
const STALLED: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_micros(300);

/// The word in page 0: bytes at the file's end that have no memory yet. Zero, as in files that were made whole: all have.
#[repr(C, align(64))]
pub(super) struct AllocationWord(AtomicU64);

/// Set beside the count when memory ran out.
const FAILED: u64 = 1 << 63;

impl AllocationWord {
    /// Up to which offset of the file there is memory; None when there will never be more.
    pub fn reached(&self, header: &ArenaHeader) -> Option<u64> {
        let word = self.0.load(Ordering::Acquire);
        (word & FAILED == 0).then(|| header.file_bytes().saturating_sub(word))
    }

    fn set(&self, left: u64) {
        self.0.store(left, Ordering::Release);
    }

    fn fail(&self) {
        self.0.fetch_or(FAILED, Ordering::Release);
    }
}

impl Mapping {
    /// Returns once the file has memory up to offset `end`. Overloaded when it ran out, Unavailable when the sidecar has
    /// stopped giving it.
    pub fn wait_allocated(&self, end: u64) -> Result<()> {
        let mut seen = None;
        let mut since = Instant::now();
        loop {
            let reached = self.allocation().reached(&self.header).ok_or_else(ran_out)?;
            if reached >= end {
                return Ok(());
            }
            if seen.replace(reached) != Some(reached) {
                since = Instant::now();
            } else if since.elapsed() > STALLED {
                let whole = human(self.header.file_bytes());
                return Err(Error::unavailable(format!(
                    "waiting for the arena's memory: {} of {whole} are there, no more came in {STALLED:?}",
                    human(reached)
                ))
                .hint("the sidecar that makes the arena is stopped or gone: start it again, it goes on where it was"));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The same for all of a slot.
    pub fn wait_slot(&self, slot: u32) -> Result<()> {
        self.wait_allocated(self.header.slot_offset(slot + 1))
    }

    /// Memory ran out before all of the file had some.
    pub fn allocation_failed(&self) -> bool {
        self.allocation().reached(&self.header).is_none()
    }
}

fn ran_out() -> Error {
    Error::overloaded("giving the arena its memory: none was left in its volume, or in the container's limit").hint(
        "something took memory that was free when the arena was begun; enlarge /dev/shm (docker: --shm-size; Kubernetes: \
         the emptyDir's sizeLimit) or set STRATA_ARENA_DIR to a larger tmpfs",
    )
}

/// Gives the file its header's memory, before it is published; all that follows is still to come.
pub(super) fn allocate_header(file: &File, header: &ArenaHeader) -> Result<()> {
    file.set_len(header.file_bytes()).doing(|| "sizing it")?;
    allocate(file, 0, header.slot_offset(0))
}

pub(super) fn begin(mapping: &Mapping) {
    mapping.allocation().set(mapping.header.file_bytes() - mapping.header.slot_offset(0));
}

/// Goes on where the word says, on a thread of its own, to the end or until nobody holds the arena any more; then fills
/// this process's page tables, and has what got small pages put into huge ones.
pub(super) fn in_background(arena: &Arc<ArenaShared>, promise: Promise, collapse: Collapse) -> Result<()> {
    let weak = Arc::downgrade(arena);
    std::thread::Builder::new()
        .name("strata-allocate".into())
        .spawn(move || run(&weak, promise, collapse))
        .map(drop)
        .doing(|| "starting the thread that gives an arena its memory")
}

fn run(arena: &Weak<ArenaShared>, mut promise: Promise, collapse: Collapse) {
    let mut asking = Asking::new(collapse);
    while let Some(arena) = arena.upgrade() {
        match step(&arena, &mut asking) {
            Ok(Some(bytes)) => promise.kept(bytes),
            Ok(None) => {
                drop(promise);
                let mapping = Arc::downgrade(&arena.mapping);
                drop(arena);
                populate(&mapping);
                return super::collapsing::later(&mapping, asking.small, collapse);
            }
            Err(error) => {
                arena.mapping.allocation().fail();
                tracing::error!("{}", error.while_doing(format!("allocating {}", arena.path.display())));
                return;
            }
        }
    }
}

/// One step: how much it gave; None when there is no more to give.
fn step(arena: &ArenaShared, asking: &mut Asking) -> Result<Option<u64>> {
    let mapping = &arena.mapping;
    let whole = mapping.header.file_bytes();
    let from = mapping.allocation().reached(&mapping.header).ok_or_else(ran_out)?;
    if from == whole {
        return Ok(None);
    }
    // Whole huge pages, but for the last.
    let end = if whole - from <= STEP { whole } else { (from + STEP) / HUGE * HUGE };
    asking.begin_pieces(arena, from, end)?;
    allocate(&arena.file, from, end - from)?;
    mapping.allocation().set(whole - end);
    Ok(Some(end - from))
}

/// Whether huge pages are asked for, and where there are none.
struct Asking {
    collapse: Collapse,
    patience: Patience,
    next: Try,
    /// Pieces that a later try may put into huge pages.
    small: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Try {
    Now,
    /// Those who wait for memory have to go on.
    Later,
    /// The kernel has none for this file.
    Never,
}

impl Asking {
    fn new(collapse: Collapse) -> Asking {
        Asking { collapse, patience: PATIENCE, next: Try::Now, small: Vec::new() }
    }

    /// Gives a huge page to each piece that ends in this part of the file, where one is to be had.
    fn begin_pieces(&mut self, arena: &ArenaShared, from: u64, end: u64) -> Result<()> {
        for piece in pieces(from / HUGE * HUGE..end) {
            match self.next {
                Try::Now => self.begin(arena, piece, from)?,
                Try::Later => self.small.push(piece),
                Try::Never => return Ok(()),
            }
        }
        Ok(())
    }

    fn begin(&mut self, arena: &ArenaShared, piece: u64, from: u64) -> Result<()> {
        // An extent without any page is refused.
        allocate(&arena.file, piece.max(from), PAGE)?;
        let begun = Instant::now();
        let outcome = (self.collapse)(arena.mapping.piece(piece));
        if !self.patience.spend(begun.elapsed()) {
            self.next = Try::Later;
        }
        match outcome {
            Ok(()) => {}
            Err(Refusal::NotNow) => self.small.push(piece),
            Err(Refusal::Never) => {
                tracing::debug!(arena = %arena.path.display(), "the kernel gives it no huge pages");
                self.next = Try::Never;
                self.small.clear();
            }
        }
        Ok(())
    }
}

fn allocate(file: &File, from: u64, bytes: u64) -> Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), from, bytes) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::NOMEM) => return Err(ran_out()),
            outcome => return outcome.doing(|| format!("allocating {bytes} bytes at {from}")),
        }
    }
}
