//! This process's page tables for memory that it shares with others: filled in one call for many pages, before an access
//! to each of them would fault.
//!
//! A fresh mapping, and a forked child, begin with empty ones, though the memory is there. For 1 GB in pages of 4 KiB, on one
//! core of an AMD EPYC (Linux 6.18): a copy's own faults 350 ms, MADV_POPULATE_WRITE 200, MADV_POPULATE_READ 85: for a read the
//! kernel maps the 16 pages around at once, and maps them writable, as the mapping is. That works for pages with contents alone;
//! where the file has yet to be given any (zeroes), WRITE takes 280 and READ 400. Huge pages take 1 ms either way.

use rustix::io::Errno;

const PAGE: usize = 4096;

/// Fills the page tables for these bytes, in whole pages; no byte changes. Makes system calls and nothing else, so a
/// forked child may call it. INVAL, NOSYS or PERM where the kernel can't (before Linux 5.14; a seccomp filter); another
/// error where the file was cut short or memory ran out.
///
/// # Safety
/// The bytes are mapped, shared and writable.
pub(super) unsafe fn fill(start: *mut u8, bytes: usize) -> Result<(), Errno> {
    let from = start as usize & !(PAGE - 1);
    let to = (start as usize + bytes).next_multiple_of(PAGE);
    if from == to {
        return Ok(());
    }
    // Contents come in ascending order: what the last page has, all have. Where that is wrong it takes longer, no more.
    let advice = if has_contents(to - PAGE) { libc::MADV_POPULATE_READ } else { libc::MADV_POPULATE_WRITE };
    // SAFETY: populating changes no byte of mapped memory.
    match unsafe { libc::syscall(libc::SYS_madvise, from, to - from, advice) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// Whether the file has bytes for this page: those of memory that was allocated and never touched are yet to be zeroed.
fn has_contents(page: usize) -> bool {
    let mut found = 0u8;
    // SAFETY: the call writes one byte for the one page.
    let outcome = unsafe { libc::syscall(libc::SYS_mincore, page, PAGE, &raw mut found) };
    outcome == 0 && found & 1 == 1
}

fn last_error() -> Errno {
    // SAFETY: reads this thread's own word.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::mm::{MapFlags, munmap};

    use super::super::huge;
    use super::super::tests::minor_faults;
    use super::*;

    const PAGES: usize = 2048;
    const BYTES: usize = PAGES * PAGE;

    /// Memory without contents.
    fn allocated() -> File {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, BYTES as u64).unwrap();
        file
    }

    /// What it gives, and the page faults that it took, with a fresh mapping; its address and length.
    fn with_fresh_mapping<T>(file: &File, work: impl FnOnce(*mut u8) -> T) -> (T, u64) {
        let start = huge::map(file, 0, BYTES, MapFlags::SHARED).unwrap();
        let before = minor_faults();
        let given = work(start.as_ptr());
        let faults = minor_faults() - before;
        // SAFETY: mapped above, and nobody has kept its address.
        unsafe { munmap(start.as_ptr().cast(), BYTES).unwrap() };
        (given, faults)
    }

    fn write_to_all(start: *mut u8) {
        for page in 0..PAGES {
            // SAFETY: inside the mapping.
            unsafe { start.add(page * PAGE).write_volatile(1) };
        }
    }

    #[test]
    fn pages_are_there_for_writing_afterwards_with_contents_and_without() {
        let file = allocated();
        for contents in [false, true] {
            let work = |start: *mut u8| {
                assert_eq!(has_contents(start as usize + BYTES - PAGE), contents);
                // SAFETY: the mapping's bytes, which are shared and writable.
                unsafe { fill(start.add(5), BYTES - 5).unwrap() };
                let filled = minor_faults();
                write_to_all(start);
                minor_faults() - filled
            };
            let (by_writing, _) = with_fresh_mapping(&file, work);
            // The test's own memory may take a few.
            assert!(by_writing < 64, "{by_writing} faults by writing to {PAGES} pages, contents: {contents}");
        }
    }

    #[test]
    fn pages_with_contents_take_fewer_faults_than_pages() {
        let file = allocated();
        let ((), by_touching) = with_fresh_mapping(&file, write_to_all);
        if by_touching < PAGES as u64 {
            return println!("skipped: this machine's tmpfs has larger pages ({by_touching} faults)");
        }
        // SAFETY: the mapping's bytes.
        let (filled, by_filling) = with_fresh_mapping(&file, |start| unsafe { fill(start, BYTES) });
        filled.unwrap();
        assert!(by_filling < PAGES as u64 / 4, "{by_filling} faults for {PAGES} pages");
    }

    #[test]
    fn no_byte_changes_and_a_file_that_was_cut_short_is_an_error() {
        let file = allocated();
        file.write_all_at(&[7; 3 * PAGE], PAGE as u64).unwrap();
        let work = |start: *mut u8| {
            // SAFETY: the mapping's bytes; those that are read lie in the file.
            unsafe {
                fill(start, BYTES).unwrap();
                assert_eq!([0, 1, 3, 4].map(|page| start.add(page * PAGE).read()), [0, 7, 7, 0]);
                file.set_len(PAGE as u64).unwrap();
                assert!(fill(start, BYTES).is_err());
                fill(start, 0).unwrap();
            }
        };
        with_fresh_mapping(&file, work);
    }
}
