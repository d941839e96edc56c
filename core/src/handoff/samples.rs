//! What a tensor looks like in a few places: a cheap test whether somebody wrote to it while it waited to be copied.

use super::writer::FillPlan;

/// Of each this many bytes one line is looked at: a write to a run of twice as many is found for certain, and 1 GB costs
/// 4,096 lines, less than a millisecond.
const STRIDE: u64 = 256 << 10;
/// A cache line.
const LINE: u64 = 64;
/// Lines that are fetched at once.
const AHEAD: usize = 24;

/// Lines of some tensors as they were at one moment.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    run: usize,
    offset: u64,
    length: usize,
    bytes: [u8; LINE as usize],
}

impl FillPlan {
    /// Looks at one line of every [`STRIDE`] bytes of the runs `which`, at places that follow from `seed`.
    ///
    /// # Safety
    /// The sources of these runs are readable.
    pub unsafe fn sample(&self, which: &[usize], seed: u64) -> Samples {
        let mut lines = Vec::new();
        for &run in which {
            let bytes = self.run(run).bytes;
            let mut from = 0;
            while from < bytes {
                let stride = STRIDE.min(bytes - from);
                let length = LINE.min(stride);
                let offset = from + place(seed, run as u64, from) % (stride - length + 1);
                lines.push(Line { run, offset, length: length as usize, bytes: [0; LINE as usize] });
                from += stride;
            }
        }
        let address = |line: &Line| self.run(line.run).source.wrapping_add(line.offset as usize);
        for at in 0..lines.len() {
            if let Some(ahead) = lines.get(at + AHEAD) {
                prefetch(address(ahead));
            }
            let from = address(&lines[at]);
            // SAFETY: inside the run, which is readable as the caller vouches.
            unsafe { read(from, &mut lines[at]) };
        }
        Samples { lines }
    }

    /// The first run whose source, or whose copy in the slot, is no longer as it was sampled.
    ///
    /// # Safety
    /// As for [`FillPlan::sample`], and the runs are copied.
    pub unsafe fn first_changed(&self, samples: &Samples) -> Option<usize> {
        let is_changed = |line: &&Line| {
            let run = self.run(line.run);
            [run.source, run.target.cast_const()].into_iter().any(|start| {
                let mut now = Line { bytes: [0; LINE as usize], ..(*line).clone() };
                // SAFETY: inside the run on both sides; the target has memory, since it was copied to.
                unsafe { read(start.wrapping_add(line.offset as usize), &mut now) };
                now.bytes != line.bytes
            })
        };
        samples.lines.iter().find(is_changed).map(|line| line.run)
    }
}

/// # Safety
/// The line's bytes are readable at `from`.
unsafe fn read(from: *const u8, line: &mut Line) {
    // SAFETY: as the caller vouches; a copy, since somebody may be writing there.
    unsafe { std::ptr::copy_nonoverlapping(from, line.bytes.as_mut_ptr(), line.length) };
}

/// Begins to fetch a line: each lies on a page of its own, of which the processor knows nothing yet, and waiting for
/// one after the other took 1.2 ms for 1.1 GB.
fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: no address faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// A number that differs from save to save, so that no place is overlooked every time.
fn place(seed: u64, run: u64, from: u64) -> u64 {
    let mut words = [0; 24];
    for (word, number) in words.chunks_exact_mut(8).zip([seed, run, from]) {
        word.copy_from_slice(&number.to_le_bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&words)
}
