//! An arena's memory, given to its file step by step after it is published: the first save begins in what is there
//! already, and `prepare` need not be waited for. Nobody touches a page before it has its memory: it would be a SIGBUS.
//!
//! Measured on 2 cores of an AMD EPYC, for 1.1 GB: fallocate 240 ms, on one core whatever the number of threads (the
//! inode's lock); the first copy through a fresh mapping, by two threads, 230 to 310 ms; later ones 72 ms.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

use super::arena::ArenaShared;
use super::budget::{Promise, human};
use super::header::ArenaHeader;
use super::mapping::Mapping;
use crate::error::{Doing, Error, Result};

/// About 4 ms of work, so that who copies waits little at each step.
const STEP: u64 = 16 << 20;
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
/// this process's page tables.
pub(super) fn in_background(arena: &Arc<ArenaShared>, promise: Promise) -> Result<()> {
    let weak = Arc::downgrade(arena);
    std::thread::Builder::new()
        .name("strata-allocate".into())
        .spawn(move || run(&weak, promise))
        .map(drop)
        .doing(|| "starting the thread that gives an arena its memory")
}

fn run(arena: &Weak<ArenaShared>, mut promise: Promise) {
    while let Some(arena) = arena.upgrade() {
        match step(&arena) {
            Ok(Some(bytes)) => promise.kept(bytes),
            Ok(None) => {
                drop(promise);
                let mapping = Arc::downgrade(&arena.mapping);
                drop(arena);
                return super::mapping::populate(&mapping);
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
fn step(arena: &ArenaShared) -> Result<Option<u64>> {
    let mapping = &arena.mapping;
    let whole = mapping.header.file_bytes();
    let from = mapping.allocation().reached(&mapping.header).ok_or_else(ran_out)?;
    let bytes = (whole - from).min(STEP);
    if bytes == 0 {
        return Ok(None);
    }
    allocate(&arena.file, from, bytes)?;
    mapping.allocation().set(whole - from - bytes);
    Ok(Some(bytes))
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
