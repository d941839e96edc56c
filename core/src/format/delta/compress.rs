//! zstd (RFC 8878) as byte planes want it: they hold few repeats and much skew, so what counts is its entropy coder.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, Strategy};

use super::Width;
use crate::error::{Doing, Error, Result};

/// Matches shorter than this cost more to say than the entropy coder needs for their bytes: on the run of
/// `benches/small` 0.664 of bf16 planes with 7, 0.680 with 4, at the same speed or better.
const SHORTEST_MATCH: u32 = 7;
/// The table of the match finder stays in a core's first cache (16 KiB); a larger one found no more.
const HASH_LOG: u32 = 12;

thread_local! {
    /// Making one takes as long as compressing a small chunk.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The planes of elements of `width`, each as a frame of its own, so that each has its own code; into `target`, behind
/// each other. Their length. None when they need more room than there is: then, and whatever else zstd has against these
/// bytes, they are better stored as they are.
pub fn compress(width: Width, planes: &[u8], target: &mut [u8]) -> Result<Option<usize>> {
    COMPRESSOR.with_borrow_mut(|known| {
        let compressor = match known {
            Some(compressor) => compressor,
            None => known.insert(compressor().doing(|| "starting zstd")?),
        };
        let mut end = 0;
        // What is left behind the last whole element goes with the last plane.
        let plane = planes.len() / width.bytes();
        for number in 0..width.bytes() {
            let last = number + 1 == width.bytes();
            let part = &planes[number * plane..if last { planes.len() } else { (number + 1) * plane }];
            match compressor.compress_to_buffer(part, &mut target[end..]) {
                Ok(length) => end += length,
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(end))
    })
}

fn compressor() -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(1)?;
    for parameter in [
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::MinMatch(SHORTEST_MATCH),
        CParameter::HashLog(HASH_LOG),
        // The sums guard what is stored.
        CParameter::ChecksumFlag(false),
    ] {
        compressor.set_parameter(parameter)?;
    }
    Ok(compressor)
}

/// The planes that were compressed, so many bytes. Corrupt when `frames` hold another number of them, or are no frames.
pub fn decompress(frames: &[u8], bytes: usize) -> Result<Vec<u8>> {
    let damaged = |why: String| Error::corrupt(format!("decompressing {} bytes: {why}", frames.len()));
    DECOMPRESSOR.with_borrow_mut(|known| {
        let decompressor = match known {
            Some(decompressor) => decompressor,
            None => known.insert(Decompressor::new().doing(|| "starting zstd")?),
        };
        match decompressor.decompress(frames, bytes) {
            Ok(planes) if planes.len() == bytes => Ok(planes),
            Ok(planes) => Err(damaged(format!("they hold {} of {bytes} bytes", planes.len()))),
            Err(error) => Err(damaged(error.to_string())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_is_skewed_gets_smaller_and_comes_back_and_noise_does_not_fit() {
        let skewed: Vec<u8> =
            (0..(1u32 << 20) + 3).map(|n| (n.wrapping_mul(2_654_435_761) >> 28) as u8).collect();
        for width in [Width::One, Width::Two, Width::Four, Width::Eight] {
            let mut target = vec![0; skewed.len()];
            let length = compress(width, &skewed, &mut target).unwrap().unwrap();
            assert!(length < skewed.len() * 6 / 10, "{length}");
            assert!(decompress(&target[..length], skewed.len()).unwrap() == skewed);
            let mut small = vec![0; length - 1];
            assert_eq!(compress(width, &skewed, &mut small).unwrap(), None);
        }
    }

    #[test]
    fn nonsense_is_corrupt_and_never_a_panic() {
        let bytes = vec![7; 10_000];
        let mut target = vec![0; 10_000];
        let length = compress(Width::Four, &bytes, &mut target).unwrap().unwrap();
        let whole = &target[..length];
        let cases = [(&whole[..length - 1], 10_000), (whole, 9_999), (whole, 10_001), (&[][..], 10_000)];
        for (frames, wanted) in cases {
            assert_eq!(decompress(frames, wanted).unwrap_err().kind, Kind::Corrupt, "{wanted}");
        }
        assert_eq!(decompress(whole, 10_000).unwrap(), bytes, "and the next one is none the worse");
    }
}
