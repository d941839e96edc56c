//! Putting the memory that a forked child has copied back into huge pages, so that the next fork is cheap.
//!
//! A fork copies the page tables of all private memory: 16 to 20 ms for a GB in pages of 4 KiB, 1.8 in huge ones. What is written
//! to while a child lives is split into small pages, whatever it was before (Linux 5.8 and later copy no whole huge page),
//! so this is done again after each child: 200 to 250 ms of one core's time for 1.3 GB where huge pages are at hand, with which
//! the first writes beside the next child take 740 ms instead of 1200. On a busy virtual machine whose host takes free
//! memory back a piece took about 10 ms instead: half a second of a core for each turn, and not all was in after ten saves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::copy::Run;
use super::forkable;
use super::huge::{self, Collapse, HUGE, Patience, Refusal};
use crate::error::{Doing, Result};

/// A piece takes 0.3 ms, at first 4 on a virtual machine whose host has yet to find the memory.
const PATIENCE: Patience = Patience::new(Duration::from_secs(1), Duration::from_micros(500));
/// It works a quarter of the time, rather than at a low priority: the kernel holds the lock of the process's mappings
/// while it fills a huge page, and who allocates memory meanwhile would wait until that thread got a processor.
const REST: u32 = 3;
/// Of a piece, to be worth it.
const MOST: u64 = HUGE / 4 * 3;
/// So many turns that took too long: memory is too full for it to pay.
const GIVEN_UP: u32 = 4;

/// Of this process. In a forked child of it nothing of this is ever called for: sessions are its parent's.
static OURS: Rejoining = Rejoining::new();

/// Who is at it, and whether it is worth it.
struct Rejoining {
    /// The number of the newest turn. A thread whose turn is over ends.
    turn: AtomicU64,
    /// The kernel has refused every piece of a turn for good, and has given none before.
    unsupported: AtomicBool,
    /// Whether it has ever given one.
    given: AtomicBool,
    /// Turns in a row that took too long.
    slow: AtomicU32,
}

/// Before a fork: ends the turn that may still go on. What a child shares would be copied once more.
pub(super) fn stop() {
    OURS.next_turn();
}

/// After a child has ended: begins a turn for the sources of `runs`, on a thread of its own.
pub(super) fn in_background<'a>(runs: impl Iterator<Item = &'a Run>) -> Result<()> {
    if OURS.is_given_up() {
        return Ok(());
    }
    let covered = mostly_covered(runs);
    let turn = OURS.next_turn();
    std::thread::Builder::new()
        .name("strata-rejoin".into())
        .spawn(move || match own_pieces(&covered).doing(|| "looking for memory to put into huge pages") {
            Ok(pieces) => OURS.take_turn(&pieces, turn, huge::collapse),
            Err(error) => tracing::warn!("{error}"),
        })
        .map(drop)
        .doing(|| "starting the thread that puts memory into huge pages")
}

impl Rejoining {
    const fn new() -> Rejoining {
        Rejoining {
            turn: AtomicU64::new(0),
            unsupported: AtomicBool::new(false),
            given: AtomicBool::new(false),
            slow: AtomicU32::new(0),
        }
    }

    fn is_given_up(&self) -> bool {
        self.unsupported.load(Ordering::Relaxed) || self.slow.load(Ordering::Relaxed) >= GIVEN_UP
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Piece by piece, until all are done, the turn is somebody else's, or it takes too long.
    ///
    /// The memory may be freed meanwhile, and its address be something else's: advice for what is mapped there then
    /// changes no byte of it, and where nothing is it is refused (ENOMEM).
    fn take_turn(&self, pieces: &[u64], turn: u64, collapse: Collapse) {
        let mut patience = PATIENCE;
        let mut refused = 0;
        for (done, piece) in pieces.iter().enumerate() {
            if self.turn.load(Ordering::Relaxed) != turn {
                return;
            }
            let Some(address) = NonNull::new(*piece as *mut u8) else { continue };
            let begun = Instant::now();
            match collapse(address) {
                Ok(()) => self.given.store(true, Ordering::Relaxed),
                // Of one piece it may mean that something else lies there by now.
                Err(Refusal::Never) => refused += 1,
                Err(Refusal::NotNow) => {}
            }
            let taken = begun.elapsed();
            if !patience.spend(taken) {
                self.slow.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(done, of = pieces.len(), "putting memory into huge pages takes long");
                return;
            }
            std::thread::sleep(taken * REST);
        }
        self.slow.store(0, Ordering::Relaxed);
        if refused > 0 && refused == pieces.len() && !self.given.load(Ordering::Relaxed) {
            self.unsupported.store(true, Ordering::Relaxed);
        }
    }
}

/// The pieces of which most is saved, ascending. What else lies in them takes memory from now on even if the process has
/// not touched it: a third of the state at most, less than what a forked save asks to be free.
fn mostly_covered<'a>(runs: impl Iterator<Item = &'a Run>) -> Vec<u64> {
    let mut covered: BTreeMap<u64, u64> = BTreeMap::new();
    for run in runs.filter(|run| run.bytes > 0) {
        let (start, end) = (run.source as u64, run.source as u64 + run.bytes);
        let mut piece = start / HUGE * HUGE;
        while piece < end {
            *covered.entry(piece).or_default() += end.min(piece + HUGE) - start.max(piece);
            piece += HUGE;
        }
    }
    covered.into_iter().filter(|(_, bytes)| *bytes >= MOST).map(|(piece, _)| piece).collect()
}

/// Those that lie in memory of this process alone that is nobody's file.
fn own_pieces(covered: &[u64]) -> std::io::Result<Vec<u64>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut found: Vec<u64> = Vec::with_capacity(covered.len());
    for map in maps.lines().filter_map(private_memory) {
        let from = covered.partition_point(|piece| *piece < map.start);
        let inside = covered[from..].iter().take_while(|piece| *piece + HUGE <= map.end);
        found.extend(inside);
    }
    Ok(found)
}

/// The range of a line of proc_pid_maps(5), if that is private, writable memory without a file.
fn private_memory(line: &str) -> Option<Range<u64>> {
    let mut fields = line.split_ascii_whitespace();
    let (range, flags, inode) = (fields.next()?, fields.next()?, fields.nth(2)?);
    let is_ours = flags.starts_with("rw") && flags.ends_with('p') && inode == "0";
    // A stack grows, and is none of a tensor's places.
    let is_stack = fields.next().is_some_and(|name| name.starts_with("[stack"));
    (is_ours && !is_stack).then(|| forkable::range(range)).flatten()
}

#[cfg(test)]
mod tests {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    use super::*;

    fn run(source: u64, bytes: u64) -> Run {
        Run { source: source as *const u8, target: std::ptr::null_mut(), bytes }
    }

    #[test]
    fn pieces_that_are_mostly_saved_are_meant() {
        let runs = [
            run(HUGE + 5, HUGE), // all but 5 bytes of the first, 5 of the second
            run(4 * HUGE, HUGE / 2),
            run(4 * HUGE + HUGE / 4 * 3, HUGE / 4), // three quarters of it, together
            run(8 * HUGE + 1, MOST - 1),
            run(10 * HUGE, 0),
        ];
        assert_eq!(mostly_covered(runs.iter()), [HUGE, 4 * HUGE]);
    }

    #[test]
    fn memory_of_a_file_or_of_others_is_let_alone() {
        assert_eq!(private_memory("1000-3000 rw-p 00000000 00:00 0 "), Some(0x1000..0x3000));
        assert_eq!(private_memory("1000-3000 rw-p 00000000 00:00 0    [heap]"), Some(0x1000..0x3000));
        for other in [
            "1000-3000 rw-p 00001000 00:1b 77     /dev/shm/strata-0/run.rank-0.0.arena",
            "1000-3000 rw-s 00000000 00:01 12     /dev/zero (deleted)",
            "1000-3000 r--p 00000000 00:00 0",
            "1000-3000 rw-p 00000000 00:00 0      [stack]",
            "1000",
        ] {
            assert_eq!(private_memory(other), None, "{other}");
        }
    }

    /// 8 MiB of small pages, of which three pieces at least are whole.
    struct Memory(*mut u8);

    const BYTES: usize = 8 << 20;

    impl Memory {
        fn new() -> Memory {
            let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
            // SAFETY: new memory at an address of the kernel's choice, filled within its bounds.
            unsafe {
                let start = mmap_anonymous(std::ptr::null_mut(), BYTES, access, flags).unwrap().cast::<u8>();
                (0..BYTES).for_each(|at| start.add(at).write((at % 251) as u8));
                Memory(start)
            }
        }

        fn pieces(&self) -> Vec<u64> {
            own_pieces(&mostly_covered([run(self.0 as u64, BYTES as u64)].iter())).unwrap()
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`.
            unsafe { munmap(self.0.cast(), BYTES).unwrap() };
        }
    }

    #[test]
    fn memory_is_in_huge_pages_after_a_turn_and_as_it_was() {
        let memory = Memory::new();
        let pieces = memory.pieces();
        assert!(pieces.len() >= 3, "{pieces:?}");
        if let Err(refusal) = huge::collapse(NonNull::new(pieces[0] as *mut u8).unwrap()) {
            return println!("skipped: no huge pages on this machine ({refusal:?})");
        }
        let rejoining = Rejoining::new();
        rejoining.take_turn(&pieces, rejoining.next_turn(), huge::collapse);
        let huge = super::super::tests::in_smaps(memory.0 as u64, "AnonHugePages:");
        assert!(huge >= HUGE, "{huge} bytes");
        // SAFETY: within the memory, which nobody writes to.
        assert!((0..BYTES).all(|at| unsafe { memory.0.add(at).read() } == (at % 251) as u8));
        drop(memory);
        // What is not there any more is nobody's loss.
        rejoining.take_turn(&pieces, rejoining.next_turn(), huge::collapse);
    }

    #[test]
    fn turn_ends_with_the_next_fork_and_for_good_where_the_kernel_has_none() {
        let memory = Memory::new();
        let rejoining = Rejoining::new();
        let turn = rejoining.next_turn();
        rejoining.next_turn();
        rejoining.take_turn(&memory.pieces(), turn, |_| panic!("the turn is over"));
        assert!(!rejoining.is_given_up());
        rejoining.take_turn(&memory.pieces(), rejoining.next_turn(), |_| Err(Refusal::NotNow));
        assert!(!rejoining.is_given_up(), "none was at hand");
        let first = memory.pieces()[0];
        static FREED: AtomicU64 = AtomicU64::new(0);
        FREED.store(first, Ordering::Relaxed);
        let all_but_one = |piece: NonNull<u8>| match piece.as_ptr() as u64 == FREED.load(Ordering::Relaxed) {
            true => Err(Refusal::Never),
            false => Err(Refusal::NotNow),
        };
        rejoining.take_turn(&memory.pieces(), rejoining.next_turn(), all_but_one);
        assert!(!rejoining.is_given_up(), "the first was freed, and something else lies there");
        rejoining.take_turn(&memory.pieces(), rejoining.next_turn(), |_| Err(Refusal::Never));
        assert!(rejoining.is_given_up());
    }
}
