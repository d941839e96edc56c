//! What a tensor looks like in a few places: a cheap test whether somebody wrote to it while it waited to be copied.

use super::writer::FillPlan;

/// Of each this many bytes one line is looked at: a write to a run of twice as many is found for certain, and 1 GB costs
/// 4,096 lines, less than a millisecond.
const STRIDE: u64 = 256 << 10;
/// A cache line.
const LINE: u64 = 64;

/// Lines of some tensors as they were at one moment.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    run: usize,
    offset: u64,
    bytes: Vec<u8>,
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
                // SAFETY: inside the run, which is readable as the caller vouches.
                let bytes = unsafe { read(self.run(run).source, offset, length) };
                lines.push(Line { run, offset, bytes });
                from += stride;
            }
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
            let length = line.bytes.len() as u64;
            // SAFETY: inside the run on both sides; the target has memory, since it was copied to.
            unsafe {
                read(run.source, line.offset, length) != line.bytes
                    || read(run.target, line.offset, length) != line.bytes
            }
        };
        samples.lines.iter().find(is_changed).map(|line| line.run)
    }
}

/// # Safety
/// `length` bytes at `offset` are readable.
unsafe fn read(start: *const u8, offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    // SAFETY: as the caller vouches; a copy, since somebody may be writing there.
    unsafe { std::ptr::copy_nonoverlapping(start.add(offset as usize), bytes.as_mut_ptr(), bytes.len()) };
    bytes
}

/// A number that differs from save to save, so that no place is overlooked every time.
fn place(seed: u64, run: u64, from: u64) -> u64 {
    let mut words = [0; 24];
    for (word, number) in words.chunks_exact_mut(8).zip([seed, run, from]) {
        word.copy_from_slice(&number.to_le_bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&words)
}
