//! What a chunk's planes would take if they were stored, and what each of them wants done, as the entropy of samples says
//! (Shannon, A Mathematical Theory of Communication, 1948). Compressing the samples says the same at ten times the cost.

use super::{Width, planes};

/// Samples of a chunk, spread evenly: up to 64 KiB, of a small one a sixteenth, but enough that the entropy of a sample is
/// that of its plane (with 1024 bytes of each plane it is 2 % of them too low at most; Miller, 1955).
const SAMPLES: usize = 4;
const SAMPLE: usize = 16 << 10;
const SMALLEST_SAMPLE: usize = 2 << 10;
/// Of so many bits a byte up to eight, this is not worth the entropy coder's time: at 1.2 GB/s it would save less than
/// an eighth of the plane.
const NOISE_FROM: f64 = 7.0;
/// One byte value makes nearly all of the plane. Then runs of it say more than any code of whole bits: the fourth planes of
/// differences, 98 % zeros, take 0.03 with matches and 0.13 without (`benches/small`).
const RUNS_FROM: f64 = 0.9;

/// How a plane is compressed. GB/s of one core on planes of `benches/small`: 1.2 (skewed), 1.4 (runs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coder {
    /// As it is, but for repeats: rows of zeros.
    Noise,
    /// The Huffman coder alone. Matches of seven bytes took three times as long on exponents, and made them 5 % larger
    /// (weights) to 3 % smaller (first moments).
    Skewed,
    /// Matches, and the Huffman coder for what they leave.
    Runs,
}

/// What a sample says of each plane of elements of some width, the lowest byte's first.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    pub(super) coders: [Coder; 8],
    /// Of the planes' bytes, what would be stored: 0 to 1.
    pub part: f64,
}

/// Of a chunk's own planes, or of those of its difference to a base as long.
pub fn estimate(width: Width, bytes: &[u8], base: Option<&[u8]>) -> Estimate {
    let length = (bytes.len() / (16 * SAMPLES)).clamp(SMALLEST_SAMPLE, SAMPLE).min(bytes.len()) / 8 * 8;
    let mut sampled = vec![0; SAMPLES * length];
    for (number, planes) in sampled.chunks_exact_mut(length.max(1)).enumerate() {
        let at = (bytes.len() - length) * number / (SAMPLES - 1) / 8 * 8;
        let part = &bytes[at..at + length];
        match base {
            Some(base) => planes::split_difference(width, part, &base[at..at + length], planes),
            None => planes::split(width, part, planes),
        }
    }
    of_planes(width, sampled.chunks_exact(length.max(1)))
}

/// From the planes of several samples of one chunk, all as long.
pub(super) fn of_planes<'a>(width: Width, samples: impl Iterator<Item = &'a [u8]>) -> Estimate {
    let mut counts = [[0u32; 256]; 8];
    for planes in samples {
        let plane = planes.len() / width.bytes();
        for (counts, plane) in counts.iter_mut().zip(planes.chunks_exact(plane.max(1))).take(width.bytes()) {
            plane.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        }
    }
    let (mut coders, mut bits) = ([Coder::Noise; 8], 0.0);
    for (coder, counts) in coders.iter_mut().zip(&counts).take(width.bytes()) {
        let (found, entropy) = plane(counts);
        *coder = found;
        bits += entropy;
    }
    Estimate { coders, part: bits / (8 * width.bytes()) as f64 }
}

/// A plane's coder, and the bits that a byte of it will take.
fn plane(counts: &[u32; 256]) -> (Coder, f64) {
    let all: u32 = counts.iter().sum();
    let most = counts.iter().max().copied().unwrap_or(0);
    let share = |count: u32| f64::from(count) / f64::from(all.max(1));
    let of = |count: &u32| -share(*count) * share(*count).log2();
    let entropy: f64 = counts.iter().filter(|count| **count > 0).map(of).sum();
    match entropy {
        _ if share(most) >= RUNS_FROM => (Coder::Runs, entropy),
        entropy if entropy < NOISE_FROM => (Coder::Skewed, entropy),
        _ => (Coder::Noise, 8.0),
    }
}
