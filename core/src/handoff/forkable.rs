//! Whether a forked child sees this process's memory as it was at the fork.

use std::ops::Range;

use super::copy::Run;
use crate::error::{Doing, Result};

/// Flags in `VmFlags:` (proc_pid_smaps(5)) of memory that it does not see so, and what a user knows it as.
const UNFIT: [(&str, &str); 3] = [
    ("sh", "memory that is shared with other processes, which may write to it meanwhile"),
    ("dc", "memory that is withheld from forked children (MADV_DONTFORK)"),
    ("wf", "memory that forked children see as zeroes (MADV_WIPEONFORK)"),
];

/// The first of `runs`, by number, whose source the child of a fork does not see as it was at that moment, and why.
///
/// Takes the kernel some ms per GB of a process, in which that can map and unmap nothing, so it is asked of the child,
/// and of this process only where the child's memory leaves a doubt or the child has ended.
pub(super) fn first_unfit<'a>(
    child: u32,
    runs: impl Iterator<Item = (usize, &'a Run)> + Clone,
) -> Result<Option<(usize, &'static str)>> {
    let of_child = std::fs::read_to_string(format!("/proc/{child}/smaps"));
    if of_child.is_ok_and(|maps| are_fit(&maps, runs.clone())) {
        return Ok(None);
    }
    let path = "/proc/self/smaps";
    let maps = std::fs::read_to_string(path).doing(|| format!("reading {path}"))?;
    let unfit: Vec<(Range<u64>, &str)> = unfit(&maps).collect();
    Ok(find(&unfit, runs))
}

/// Whether all of the runs lie in memory that the child has, as it was. A file that ends early, with the child, is no.
fn are_fit<'a>(maps: &str, mut runs: impl Iterator<Item = (usize, &'a Run)>) -> bool {
    let unfit: Vec<Range<u64>> = unfit(maps).map(|(range, _)| range).collect();
    let fit: Vec<Range<u64>> =
        maps.lines().filter_map(range).filter(|range| !unfit.contains(range)).collect();
    runs.all(|(_, run)| {
        let (mut at, end) = (run.source as u64, run.source as u64 + run.bytes);
        for map in &fit {
            if map.contains(&at) {
                at = map.end;
            }
        }
        at >= end
    })
}

fn find<'a>(
    unfit: &[(Range<u64>, &'static str)],
    runs: impl Iterator<Item = (usize, &'a Run)>,
) -> Option<(usize, &'static str)> {
    for (number, run) in runs {
        let source = run.source as u64..run.source as u64 + run.bytes;
        let overlaps = |map: &&(Range<u64>, &str)| map.0.start < source.end && source.start < map.0.end;
        if let Some((_, why)) = unfit.iter().find(overlaps) {
            return Some((number, why));
        }
    }
    None
}

/// Each mapping of which `maps` says so, and why.
fn unfit(maps: &str) -> impl Iterator<Item = (Range<u64>, &'static str)> {
    let mut current = 0..0;
    maps.lines().filter_map(move |line| {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let why = UNFIT.iter().find(|(flag, _)| flags.split(' ').any(|word| word == *flag));
            return why.map(|(_, why)| (current.clone(), *why));
        }
        if let Some(range) = range(line) {
            current = range;
        }
        None
    })
}

/// `7f0c4000-7f0c8000 rw-p …`
pub(super) fn range(line: &str) -> Option<Range<u64>> {
    let (low, high) = line.split(' ').next()?.split_once('-')?;
    Some(u64::from_str_radix(low, 16).ok()?..u64::from_str_radix(high, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::*;

    fn found(flags: MapFlags, advice: Option<Advice>) -> Option<(usize, &'static str)> {
        const BYTES: usize = 1 << 20;
        // SAFETY: fresh memory of our own, unmapped below and used by nobody else.
        let start: *mut c_void = unsafe {
            mmap_anonymous(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, flags).unwrap()
        };
        if let Some(advice) = advice {
            // SAFETY: as above; the advice changes what a child sees.
            unsafe { madvise(start, BYTES, advice).unwrap() };
        }
        let ordinary = [0u8; 64];
        let run = |source: *const u8| Run { source, target: std::ptr::null_mut(), bytes: 64 };
        let runs = [run(ordinary.as_ptr()), run(start.cast_const().cast())];
        // No process has this number: as if the child had ended.
        let found = first_unfit(u32::MAX, runs.iter().enumerate()).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert_eq!(are_fit(&maps, runs.iter().enumerate()), found.is_none());
        // SAFETY: mapped above.
        unsafe { munmap(start, BYTES).unwrap() };
        found
    }

    #[test]
    fn memory_that_a_child_does_not_have_is_not_taken_for_fit() {
        let maps = "1000-3000 rw-p 0\nVmFlags: rd wr\n3000-5000 rw-p 0\nVmFlags: rd wr\n6000-7000 rw-p 0\nVmFlags: rd wr wf\n";
        let fits = |source: u64, bytes| {
            let run = Run { source: source as *const u8, target: std::ptr::null_mut(), bytes };
            are_fit(maps, [(0, &run)].into_iter())
        };
        assert!(fits(0x1000, 0x4000), "two mappings that touch");
        assert!(fits(0x2fff, 2) && fits(0x9000, 0));
        assert!(!fits(0x4fff, 2), "the end is missing");
        assert!(!fits(0xfff, 2), "the beginning is missing");
        assert!(!fits(0x6000, 1), "a child sees zeroes there");
        assert!(!fits(0x8000, 1), "as of a file that was cut short");
    }

    #[test]
    fn memory_that_a_child_would_would_see_otherwise_is_found() {
        assert_eq!(found(MapFlags::PRIVATE, None), None);
        assert!(matches!(found(MapFlags::SHARED, None), Some((1, why)) if why.contains("other processes")));
        let withheld = found(MapFlags::PRIVATE, Some(Advice::LinuxDontFork));
        assert!(matches!(withheld, Some((1, why)) if why.contains("DONTFORK")));
        let wiped = found(MapFlags::PRIVATE, Some(Advice::LinuxWipeOnFork));
        assert!(matches!(wiped, Some((1, why)) if why.contains("WIPEONFORK")));
    }
}
