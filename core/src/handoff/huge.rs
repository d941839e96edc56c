//! Huge pages: 2 MiB that the kernel keeps, maps and copies as one page instead of 512.
//!
//! Asked for by MADV_COLLAPSE (Linux 6.1), which gives them whatever `/sys/kernel/mm/transparent_hugepage` says of
//! ordinary memory, and in a tmpfs mounted without `huge=`. Everything works the same without them.

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Of x86-64, and of arm64 with pages of 4 KiB. Where they are larger a piece of this size is refused.
pub(super) const HUGE: u64 = 2 << 20;

/// Why a piece stays in small pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not of this kernel, not in this process (PR_SET_THP_DISABLE), or not for such memory.
    Never,
    /// No huge page is at hand, or somebody else is at the piece.
    NotNow,
}

/// [`collapse`], but for tests.
pub(super) type Collapse = fn(NonNull<u8>) -> Result<(), Refusal>;

/// Has the kernel put the 2 MiB at `piece`, a multiple of that, into one huge page.
///
/// Safe for any address: no byte of the memory changes, whatever lies there, and nothing happens where nothing does. What
/// is missing of the piece is filled with zeroes, as a first touch would.
pub(super) fn collapse(piece: NonNull<u8>) -> Result<(), Refusal> {
    // SAFETY: this advice changes no byte of memory, as the kernel sees to with its own locks, whoever uses it meanwhile.
    let outcome = unsafe { libc::madvise(piece.as_ptr().cast(), HUGE as usize, libc::MADV_COLLAPSE) };
    match outcome {
        0 => Ok(()),
        _ => match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::ENOMEM | libc::EAGAIN | libc::EBUSY | libc::EINTR) => Err(Refusal::NotNow),
            _ => Err(Refusal::Never),
        },
    }
}

/// The whole pieces in a range, by their first bytes.
pub(super) fn pieces(range: Range<u64>) -> impl Iterator<Item = u64> {
    let first = range.start.next_multiple_of(HUGE);
    (first..).step_by(HUGE as usize).take_while(move |piece| piece + HUGE <= range.end)
}

/// Maps `bytes` at `offset` of a file, writable, at an address that differs from the offset by a multiple of 2 MiB: at others
/// the kernel maps a file's huge pages 4 KiB by 4 KiB.
pub(super) fn map(
    file: impl AsFd,
    offset: u64,
    bytes: usize,
    sharing: MapFlags,
) -> Result<NonNull<u8>, Errno> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let huge = HUGE as usize;
    let reserved = bytes.checked_add(huge).ok_or(Errno::NOMEM)?;
    let nowhere = std::ptr::null_mut();
    // SAFETY: a new reservation at an address of the kernel's choice; nothing else refers to it.
    let start = unsafe {
        mmap_anonymous(nowhere, reserved, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)
    }?
    .cast::<u8>();
    let skip = (offset as usize).wrapping_sub(start as usize) % huge;
    let used = bytes.next_multiple_of(super::header::PAGE as usize);
    let end = reserved.next_multiple_of(super::header::PAGE as usize);
    // SAFETY: `skip` is below the 2 MiB that were reserved beyond `bytes`, and nobody knows of the reservation: what the
    // mapping replaces is nobody's, and so is what is given back. When the mapping fails nothing is: the kernel may have
    // taken its place away already, and another thread have got it. What is left then is address space alone.
    unsafe {
        let place = start.add(skip);
        mmap(place.cast(), bytes, access, sharing | MapFlags::FIXED, file, offset)?;
        if skip > 0 {
            munmap(start.cast::<c_void>(), skip)?;
        }
        munmap(place.add(used).cast::<c_void>(), end - skip - used)?;
        Ok(NonNull::new(place).expect("mmap gives an address or an error"))
    }
}

/// How long huge pages are asked for: the kernel may have to empty 2 MiB for each, of a memory that is full of page cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    left: Duration,
    /// What each piece adds.
    for_each: Duration,
}

impl Patience {
    pub const fn new(at_first: Duration, for_each: Duration) -> Patience {
        Patience { left: at_first, for_each }
    }

    /// A piece took that long; false when it is over.
    pub fn spend(&mut self, taken: Duration) -> bool {
        self.left = (self.left + self.for_each).saturating_sub(taken);
        !self.left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole_ones() {
        let found = |range| pieces(range).collect::<Vec<_>>();
        assert_eq!(found(0..2 * HUGE), [0, HUGE]);
        assert_eq!(found(1..3 * HUGE + 5), [HUGE, 2 * HUGE]);
        assert!(found(HUGE + 1..3 * HUGE - 1).is_empty());
    }

    #[test]
    fn patience_ends_where_pieces_take_long_and_lasts_where_they_do_not() {
        let ms = Duration::from_millis;
        let mut patience = Patience::new(ms(10), ms(1));
        assert!((0..1000).all(|_| patience.spend(ms(1))));
        assert!(patience.spend(ms(10)));
        assert!(!patience.spend(ms(2)));
    }

    #[test]
    fn mapping_lies_where_the_kernel_can_map_huge_pages_and_leaves_nothing_behind() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(3 * HUGE).unwrap();
        for (offset, bytes) in [(0, 3 * HUGE), (4096, 2 * HUGE - 5), (HUGE + 8192, 4096)] {
            let lines = || std::fs::read_to_string("/proc/self/maps").unwrap();
            let start = map(&file, offset, bytes as usize, MapFlags::SHARED).unwrap();
            let address = start.as_ptr() as u64;
            assert_eq!(address % HUGE, offset % HUGE, "{bytes} bytes at {offset}");
            let end = address + bytes.next_multiple_of(4096);
            assert!(lines().contains(&format!("{address:x}-{end:x} rw-s")), "{bytes} bytes at {offset}");
            // SAFETY: mapped above.
            unsafe { munmap(start.as_ptr().cast(), bytes as usize).unwrap() };
        }
        assert!(map(&file, 100, 4096, MapFlags::SHARED).is_err(), "no page starts there");
    }
}
