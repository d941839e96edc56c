//! A shared mapping of a whole arena file, and its pre-faulting.

use std::fs::File;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mm::{MapFlags, munmap};

use super::allocation::AllocationWord;
use super::header::{ALLOCATION_OFFSET, ArenaHeader, SlotHeader};
use super::huge::{self, HUGE};
use super::tables;
use crate::error::{Doing, Result};

/// Bytes pre-faulted by one system call, 0.7 to 2 ms: it holds the lock that an allocation anywhere in the process waits for,
/// which is why the thread does not do it at a low priority either.
const POPULATE_STEP: u64 = 8 << 20;
/// Runs of fewer bytes take their few faults when they are written to.
const WORTH_A_CALL: u64 = 64 << 10;
/// Between two looks whether the file has got more memory: nobody waits for this one.
const MORE_MEMORY: Duration = Duration::from_millis(2);

/// The file is as long as its header says and never shortened. Its header pages have memory before it is published, a
/// slot's pages once [`Mapping::wait_allocated`] says so: an access that asked first can't raise SIGBUS.
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    pub header: ArenaHeader,
    /// Bytes from the start whose page tables this process has filled.
    populated: AtomicU64,
    /// A thread is at that.
    populating: AtomicBool,
}

// SAFETY: the mapping is plain shared memory; header words are only reached as atomics, data only through the types
// of this room, whose slot states decide who may touch it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `file`, which is as long as `header` says.
    pub fn new(file: &File, header: ArenaHeader) -> Result<Arc<Mapping>> {
        let bytes = header.file_bytes() as usize;
        let start = huge::map(file, 0, bytes, MapFlags::SHARED)
            .doing(|| format!("mapping {bytes} bytes of the arena"))?;
        Ok(Arc::new(Mapping {
            start,
            bytes,
            header,
            populated: AtomicU64::new(0),
            populating: AtomicBool::new(false),
        }))
    }

    /// Address of `offset`, of which `bytes` lie in the mapping.
    pub fn at(&self, offset: u64, bytes: u64) -> *mut u8 {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes as u64), "inside the mapping");
        // SAFETY: within the mapping, as just checked.
        unsafe { self.start.as_ptr().add(offset as usize) }
    }

    pub fn slot(&self, slot: u32) -> &SlotHeader {
        assert!(slot < self.header.slots, "slot {slot} of {}", self.header.slots);
        let at = self.at(self.header.slot_header_offset(slot), size_of::<SlotHeader>() as u64);
        // SAFETY: page-aligned, inside the mapping, all fields atomics: any bytes are valid, sharing is allowed.
        unsafe { &*at.cast::<SlotHeader>() }
    }

    pub fn allocation(&self) -> &AllocationWord {
        let at = self.at(ALLOCATION_OFFSET as u64, size_of::<AllocationWord>() as u64);
        // SAFETY: 64-aligned, inside the mapping, an atomic.
        unsafe { &*at.cast::<AllocationWord>() }
    }

    /// Address of a piece of the file that a huge page may hold.
    pub fn piece(&self, offset: u64) -> NonNull<u8> {
        NonNull::new(self.at(offset, HUGE)).expect("inside the mapping")
    }

    /// Offset in the file of an address inside the mapping.
    pub fn offset_of(&self, address: *const u8) -> u64 {
        (address as usize - self.start.as_ptr() as usize) as u64
    }

    /// Address of a slot's data area.
    pub fn data(&self, slot: u32) -> *mut u8 {
        self.at(self.header.slot_offset(slot), self.header.slot_bytes)
    }

    /// Whether this process has touched all of the slot's pages.
    pub fn is_populated(&self, slot: u32) -> bool {
        self.populated.load(Ordering::Relaxed) >= self.header.slot_offset(slot + 1)
    }

    /// Fills this process's page tables on a thread of its own, as the file gets its memory; ends early when the mapping
    /// is dropped. Does nothing where such a thread is at it.
    pub fn populate_in_background(self: &Arc<Mapping>) -> Result<()> {
        let whole = self.bytes as u64;
        if self.populated.load(Ordering::Relaxed) == whole || self.populating.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let mapping = Arc::downgrade(self);
        let work = move || {
            populate(&mapping);
            if let Some(mapping) = mapping.upgrade() {
                mapping.populating.store(false, Ordering::Relaxed);
            }
        };
        std::thread::Builder::new()
            .name("strata-prefault".into())
            .spawn(work)
            .map(drop)
            .inspect_err(|_| self.populating.store(false, Ordering::Relaxed))
            .doing(|| "starting the thread that pre-faults an arena")
    }

    /// Before these bytes are written to: what the thread that pre-faults has not reached takes one call instead of a
    /// fault for each page. Where the kernel refuses they take their faults.
    pub fn before_writing(&self, start: *const u8, bytes: u64) {
        let from = self.offset_of(start);
        if bytes >= WORTH_A_CALL && self.populated.load(Ordering::Relaxed) < from + bytes {
            // SAFETY: inside the mapping, as `at` checks, which is shared and writable.
            let _ = unsafe { tables::fill(self.at(from, bytes), bytes as usize) };
        }
    }

    /// Whether that worked; it does not where somebody cut the file short.
    fn touch(&self, from: u64, bytes: u64) -> bool {
        // SAFETY: inside the mapping, as `at` checks, which is shared and writable.
        match unsafe { tables::fill(self.at(from, bytes), bytes as usize) } {
            Ok(()) => return true,
            // Touch each page with an access that changes nothing.
            Err(Errno::INVAL | Errno::PERM | Errno::NOSYS) => {}
            Err(_) => return false,
        }
        for page in (0..bytes).step_by(4096) {
            // SAFETY: aligned, inside the mapping, and as an atomic beside any other writer.
            write_unchanged(unsafe { &*self.at(from + page, 8).cast::<AtomicU64>() });
        }
        true
    }
}

/// A write access that changes nothing, whoever else writes there: the kernel gives the page its own memory.
///
/// Not `fetch_add(0)`: an optimised build makes no access of it at all (LLVM takes an atomic that adds nothing for a
/// fence, llvm-project #101551), and a page taken for the process's own would go on showing the file.
pub(super) fn write_unchanged(word: &AtomicU64) {
    let seen = word.load(Ordering::Relaxed);
    // Where it fails somebody else has just written.
    let _ = word.compare_exchange(seen, std::hint::black_box(seen), Ordering::Relaxed, Ordering::Relaxed);
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and every pointer into it is held by something that holds this.
        if let Err(errno) = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) } {
            tracing::error!(%errno, bytes = self.bytes, "unmapping an arena");
        }
    }
}

/// Fills this process's page tables, as far as the file gets memory.
pub(super) fn populate(mapping: &Weak<Mapping>) {
    while let Some(mapping) = mapping.upgrade() {
        let from = mapping.populated.load(Ordering::Relaxed);
        let Some(reached) = mapping.allocation().reached(&mapping.header) else { return };
        if from == mapping.bytes as u64 {
            return;
        }
        let bytes = reached.saturating_sub(from).min(POPULATE_STEP);
        if bytes == 0 {
            drop(mapping);
            std::thread::sleep(MORE_MEMORY);
            continue;
        }
        if !mapping.touch(from, bytes) {
            return;
        }
        mapping.populated.fetch_max(from + bytes, Ordering::Relaxed);
    }
}
