//! zstd (RFC 8878) as byte planes want it: they hold few repeats and much skew, so what counts is its entropy coder.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, Strategy};

use crate::error::{Error, Result};

/// Matches shorter than this cost more to say than the entropy coder needs for their bytes: on the run of
/// `benches/small` 0.664 of bf16 planes with 7, 0.680 with 4, at the same speed or better.
const SHORTEST_MATCH: u32 = 7;
/// The table of the match finder stays in a core's first cache (16 KiB); a larger one found no more.
const HASH_LOG: u32 = 12;

/// Into `target`; its length. None when it needs more room than there is: then, and whatever else zstd has against these
/// bytes, they are better stored as they are.
pub fn compress(bytes: &[u8], target: &mut [u8]) -> Result<Option<usize>> {
    let failed =
        |error: std::io::Error| Error::internal(format!("compressing {} bytes: {error}", bytes.len()));
    let mut compressor = Compressor::new(1).map_err(failed)?;
    for parameter in [
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::MinMatch(SHORTEST_MATCH),
        CParameter::HashLog(HASH_LOG),
        // The sums guard what is stored.
        CParameter::ChecksumFlag(false),
    ] {
        compressor.set_parameter(parameter).map_err(failed)?;
    }
    Ok(compressor.compress_to_buffer(bytes, target).ok())
}

/// Fills `target`. Corrupt when `bytes` are no frame of that many bytes.
pub fn decompress(bytes: &[u8], target: &mut [u8]) -> Result<()> {
    let damaged = |why: String| Error::corrupt(format!("decompressing {} bytes: {why}", bytes.len()));
    let mut decompressor = Decompressor::new().map_err(|error| Error::internal(error.to_string()))?;
    match decompressor.decompress_to_buffer(bytes, target) {
        Ok(filled) if filled == target.len() => Ok(()),
        Ok(filled) => Err(damaged(format!("they hold {filled} of {} bytes", target.len()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_is_skewed_gets_smaller_and_comes_back_and_noise_does_not_fit() {
        let skewed: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 28) as u8).collect();
        let mut target = vec![0; skewed.len()];
        let length = compress(&skewed, &mut target).unwrap().unwrap();
        assert!(length < skewed.len() * 6 / 10, "{length}");
        let mut back = vec![0; skewed.len()];
        decompress(&target[..length], &mut back).unwrap();
        assert!(back == skewed);
        let mut small = vec![0; length - 1];
        assert_eq!(compress(&skewed, &mut small).unwrap(), None);
    }

    #[test]
    fn nonsense_is_corrupt_and_never_a_panic() {
        let bytes = vec![7; 10_000];
        let mut target = vec![0; 10_000];
        let length = compress(&bytes, &mut target).unwrap().unwrap();
        let whole = target[..length].to_vec();
        for (frame, room) in
            [(&whole[..length - 1], 10_000), (&whole[..], 9_999), (&whole[..], 10_001), (&[][..], 10_000)]
        {
            assert_eq!(decompress(frame, &mut vec![0; room]).unwrap_err().kind, Kind::Corrupt, "{room}");
        }
    }
}
