//! Copying many runs of memory with several threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::stream;

/// Large enough that a piece is copied past the caches, small enough that threads finish together.
const PIECE: u64 = 8 << 20;
/// Below this a second thread costs more than it saves (a thread starts in about 30 µs, in which one copies ~300 KB).
const WORTH_A_THREAD: u64 = 1 << 20;

/// One run; neither side overlaps another run's target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub source: *const u8,
    pub target: *mut u8,
    pub bytes: u64,
}

// SAFETY: a run is two addresses; whoever calls `copy` vouches for them on any thread.
unsafe impl Send for Run {}
// SAFETY: as above.
unsafe impl Sync for Run {}

/// Copying threads where the caller names none: two, or fewer cores. More than that only takes cores from training.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(2)
}

/// Copies all runs, in their order, with at most `threads` threads, the caller's included; returns when every byte is
/// copied, or false when `ready`, asked before each piece with its runs, said no. It may wait.
///
/// # Safety
/// Each source is readable and each target writable for its bytes until this returns; targets overlap nothing.
pub(super) unsafe fn copy(runs: &[Run], threads: usize, ready: &(dyn Fn(&[Run]) -> bool + Sync)) -> bool {
    let pieces = pieces(runs);
    let total: u64 = runs.iter().map(|run| run.bytes).sum();
    let threads = threads.clamp(1, (total / WORTH_A_THREAD).max(1) as usize).min(pieces.len().max(1));
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(batch) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !ready(batch) {
                return false;
            }
            for run in batch {
                // SAFETY: within a run that the caller vouches for.
                unsafe { stream::copy(run.source, run.target, run.bytes as usize) };
            }
        }
        true
    };
    std::thread::scope(|scope| {
        let mut others = Vec::with_capacity(threads - 1);
        for _ in 1..threads {
            // No thread to be had (a pids limit): this one copies everything.
            match std::thread::Builder::new().name("strata-copy".into()).spawn_scoped(scope, work) {
                Ok(other) => others.push(other),
                Err(_) => break,
            }
        }
        let mine = work();
        others.into_iter().all(|other| other.join().expect("copying does not panic")) && mine
    })
}

/// Batches of about [`PIECE`] bytes: large runs cut, small ones gathered.
fn pieces(runs: &[Run]) -> Vec<Vec<Run>> {
    let mut batches: Vec<Vec<Run>> = Vec::new();
    let mut room = 0;
    for run in runs {
        let mut done = 0;
        while done < run.bytes {
            if room == 0 {
                batches.push(Vec::new());
                room = PIECE;
            }
            let bytes = room.min(run.bytes - done);
            // SAFETY: `done` is below the run's length.
            let (source, target) = unsafe { (run.source.add(done as usize), run.target.add(done as usize)) };
            batches.last_mut().expect("just pushed").push(Run { source, target, bytes });
            done += bytes;
            room -= bytes;
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_whatever_the_sizes_and_threads() {
        let sizes = [0usize, 1, 63, 4096, 3 << 20, (8 << 20) + 1, 17 << 20];
        let sources: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(n, &size)| (0..size).map(|i| (i * 31 + n) as u8).collect())
            .collect();
        for threads in 1..5 {
            let mut targets: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![0; size]).collect();
            let runs: Vec<Run> = sources
                .iter()
                .zip(&mut targets)
                .map(|(s, t)| Run { source: s.as_ptr(), target: t.as_mut_ptr(), bytes: s.len() as u64 })
                .collect();
            // SAFETY: both vectors outlive the call.
            assert!(unsafe { copy(&runs, threads, &|_| true) });
            assert!(sources == targets, "{threads} threads");
        }
    }
}
