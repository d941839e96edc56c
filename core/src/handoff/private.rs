//! A slot's bytes as this process's own memory: a private mapping of its part of the arena's file. Nothing is copied to
//! make it; a page is copied when it is first written to, or by [`PrivateMapping::own_next`], and is the process's own from
//! then on. Pages that are not show the file: the slot's lease must last until all are.

use std::cell::RefCell;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use rustix::mm::{MapFlags, munmap};

use super::header::PAGE;
use super::huge;
use super::mapping::write_unchanged;
use crate::error::{Doing, Error, Result};

/// Bytes made the process's own by one call: a few milliseconds, so that whoever calls can look up in between.
const PIECE: u64 = 2 << 20;

/// The mapping, and which of its bytes are used.
pub struct PrivateMapping {
    start: NonNull<u8>,
    bytes: usize,
    /// Whole pages, ascending, none twice: those that somebody will look at.
    used: Vec<Range<u64>>,
    /// How much of `used`, in its order, is the process's own.
    owned: AtomicU64,
}

// SAFETY: plain memory of this process; this type itself only ever adds zero to it, atomically.
unsafe impl Send for PrivateMapping {}
// SAFETY: as above.
unsafe impl Sync for PrivateMapping {}

impl PrivateMapping {
    /// Maps `bytes` at `offset` of `file`, of which the ranges in `used` will be looked at. Invalid when one lies outside;
    /// the kernel's refusal otherwise (an offset that is no multiple of its page size).
    pub(super) fn new(
        file: impl AsFd,
        offset: u64,
        bytes: u64,
        used: &[Range<u64>],
    ) -> Result<PrivateMapping> {
        let used = pages(used);
        if used.last().is_some_and(|last| last.end > bytes.next_multiple_of(PAGE)) {
            return Err(Error::invalid(format!("mapping a slot: bytes beyond its {bytes} are asked for")));
        }
        let length = bytes.next_multiple_of(PAGE) as usize;
        let start = huge::map(file, offset, length, MapFlags::PRIVATE)
            .doing(|| format!("mapping {bytes} bytes of a slot for this process alone"))?;
        Ok(PrivateMapping { start, bytes: length, used, owned: AtomicU64::new(0) })
    }

    /// Of the slot's first byte; valid, and writable, as long as this value lives.
    pub fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// What the process will own in the end: its memory grows by that.
    pub fn used_bytes(&self) -> u64 {
        self.used.iter().map(|range| range.end - range.start).sum()
    }

    /// Makes the next few pages the process's own; true once all are. Any number of threads may call it, beside others
    /// that read and write the memory.
    ///
    /// Page by page, with an access that changes nothing: MADV_POPULATE_WRITE is no quicker (1.0 to 1.9 s for 1.08 GB,
    /// this 0.9 to 2.0, two busy cores), and holds the lock that an allocation anywhere in the process waits for, for as
    /// long as a thread of low priority takes.
    pub fn own_next(&self) -> bool {
        let from = self.owned.load(Ordering::Relaxed);
        let mut skip = from;
        for range in &self.used {
            let length = range.end - range.start;
            if skip >= length {
                skip -= length;
                continue;
            }
            let start = range.start + skip;
            let end = range.end.min(start + PIECE);
            for page in (start..end).step_by(PAGE as usize) {
                // SAFETY: inside the mapping, aligned, and as an atomic beside any other writer.
                let word = unsafe { &*self.start.as_ptr().add(page as usize).cast::<AtomicU64>() };
                write_unchanged(word);
            }
            self.owned.fetch_max(from + (end - start), Ordering::Relaxed);
            break;
        }
        self.owned.load(Ordering::Relaxed) >= self.used_bytes()
    }
}

impl Drop for PrivateMapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; whoever has its address keeps this value.
        if let Err(errno) = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) } {
            tracing::error!(%errno, bytes = self.bytes, "unmapping a slot");
        }
    }
}

/// The mappings of this process. A child of a fork sees the file through pages that are not its parent's own yet, and has
/// no lease: so all are, before any fork that the C library knows of. (Our own, for saving, goes past it: that child ends
/// before the next save, which waits for it, could fill the slot.)
/// The standard library's lock: a child may unlock it, since nothing of it lies outside of these words.
static MAPPED: Mutex<Mapped> = Mutex::new(Vec::new());

type Mapped = Vec<Weak<PrivateMapping>>;

thread_local! {
    /// From before a fork to behind it.
    static FORKING: RefCell<Option<MutexGuard<'static, Mapped>>> = const { RefCell::new(None) };
}

fn mapped() -> MutexGuard<'static, Mapped> {
    MAPPED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sees to it that no forked child of this process looks at a page of the file.
pub fn own_before_forks(mapping: PrivateMapping) -> Arc<PrivateMapping> {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // SAFETY: functions that live as long as the process and do not unwind.
        unsafe { libc::pthread_atfork(Some(own_all), Some(after_fork), Some(after_fork)) };
    });
    let mapping = Arc::new(mapping);
    let mut mapped = mapped();
    mapped.retain(|known| known.strong_count() > 0);
    mapped.push(Arc::downgrade(&mapping));
    mapping
}

extern "C" fn own_all() {
    let mapped = mapped();
    for mapping in mapped.iter().filter_map(Weak::upgrade) {
        while !mapping.own_next() {}
    }
    // Nothing is mapped until the child exists.
    FORKING.set(Some(mapped));
}

extern "C" fn after_fork() {
    // In the child this thread is a copy of the one that `own_all` ran on.
    drop(FORKING.take());
}

/// The pages that the ranges touch.
fn pages(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let whole = |range: &Range<u64>| range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE);
    let mut found: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).map(whole).collect();
    found.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(found.len());
    for range in found {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::unix::fs::FileExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Pages 1 and on of a file, page n full of the byte n.
    fn numbered(pages: u64) -> std::fs::File {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.seek(std::io::SeekFrom::Start(PAGE)).unwrap();
        for page in 0..pages {
            file.write_all(&[page as u8; PAGE as usize]).unwrap();
        }
        file
    }

    fn byte(mapping: &PrivateMapping, at: u64) -> u8 {
        // SAFETY: inside the mapping.
        unsafe { mapping.address().add(at as usize).read_volatile() }
    }

    #[test]
    fn writes_are_the_process_own_and_the_file_stays_as_it_was() {
        let file = numbered(4);
        let mapping =
            PrivateMapping::new(&file, PAGE, 4 * PAGE, std::slice::from_ref(&(0..4 * PAGE))).unwrap();
        // SAFETY: inside the mapping.
        unsafe { mapping.address().add(2 * PAGE as usize).write_volatile(99) };
        let mut found = [0];
        file.read_exact_at(&mut found, 3 * PAGE).unwrap();
        assert_eq!((byte(&mapping, 2 * PAGE), found), (99, [2]));
    }

    #[test]
    fn what_is_owned_does_not_change_with_the_file_and_writes_survive_it() {
        let pages = 3 * MIB / PAGE;
        let file = numbered(pages);
        let (first, second) = (5..2 * MIB + 1, 3 * MIB - 10..3 * MIB);
        let mapping = PrivateMapping::new(&file, PAGE, 3 * MIB, &[second.clone(), first.clone()]).unwrap();
        assert_eq!(mapping.used_bytes(), 2 * MIB + PAGE + PAGE);
        // SAFETY: inside the mapping.
        unsafe { mapping.address().add(MIB as usize).write_volatile(77) };
        while !mapping.own_next() {}
        assert!(mapping.own_next(), "and once more");
        file.write_all_at(&vec![255; 3 * MIB as usize], PAGE).unwrap();
        for at in (first.start..first.end).step_by(999).chain(second) {
            let wanted = if at == MIB { 77 } else { (at / PAGE) as u8 };
            assert_eq!(byte(&mapping, at), wanted, "byte {at}");
        }
        assert_eq!(byte(&mapping, MIB), 77);
        assert_eq!(byte(&mapping, 2 * MIB + 2 * PAGE), 255, "nobody asked for this page");
    }

    #[test]
    fn nothing_used_is_owned_at_once_and_what_lies_outside_is_refused() {
        let file = numbered(1);
        assert!(PrivateMapping::new(&file, PAGE, PAGE, &[]).unwrap().own_next());
        assert!(PrivateMapping::new(&file, PAGE, PAGE, std::slice::from_ref(&(0..PAGE + 1))).is_err());
        assert!(
            PrivateMapping::new(&file, 100, PAGE, std::slice::from_ref(&(0..PAGE))).is_err(),
            "no page starts there"
        );
    }

    #[test]
    fn other_threads_write_while_the_pages_become_the_process_own() {
        let file = numbered(2 * MIB / PAGE);
        let mapping = PrivateMapping::new(&file, PAGE, 2 * MIB, std::slice::from_ref(&(0..2 * MIB))).unwrap();
        let count = |at: u64| {
            for round in 1..=255u8 {
                for at in (at..2 * MIB).step_by(64) {
                    // SAFETY: inside the mapping; each thread has bytes of its own.
                    unsafe { mapping.address().add(at as usize).write_volatile(round) };
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| while !mapping.own_next() {});
            scope.spawn(|| while !mapping.own_next() {});
            scope.spawn(|| count(0));
            scope.spawn(|| count(8));
        });
        for at in (0..2 * MIB).step_by(64) {
            assert_eq!((byte(&mapping, at), byte(&mapping, at + 8)), (255, 255), "byte {at}");
        }
    }
}
