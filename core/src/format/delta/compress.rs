//! zstd (RFC 8878) as byte planes want it. They hold few repeats and much skew or much noise, so what counts is its entropy
//! coder, and not to look for what is not there. Each plane has a coder of its own; any zstd reads what they write.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{
    CParameter, ParamSwitch, Strategy, find_frame_compressed_size, get_frame_content_size,
};

use super::estimate::{Coder, Estimate};
use super::{Width, planes};
use crate::error::{Doing, Error, Result};

/// Matches shorter than this cost more to say than the entropy coder needs for their bytes: on the run of
/// `benches/small` 0.664 of bf16 planes with 7, 0.680 with 4, at the same speed or better.
const SHORTEST_MATCH: u32 = 7;
/// The table of the match finder stays in a core's first cache (16 KiB); a larger one found no more.
const HASH_LOG: u32 = 12;
/// The step of the match finder, if it shall find none: the largest there is (ZSTD_TARGETLENGTH_MAX, a whole block).
const NO_MATCHES: u32 = 128 << 10;
/// Bytes of a plane in one frame, which is one block then (Block_Maximum_Size): so many elements are decoded and put together
/// while they are in a core's second cache.
const FRAME: usize = 128 << 10;

thread_local! {
    /// Making one takes as long as compressing a small chunk.
    static COMPRESSORS: RefCell<[Option<Compressor<'static>>; 3]> = const { RefCell::new([None, None, None]) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    /// Planes of as many elements as a frame holds bytes.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The planes of elements of `width`, each in frames of its own, into `target`, behind each other. Their length. None when
/// they need more room than there is: then, and whatever else zstd has against these bytes, they are better stored as they
/// are.
pub fn compress(
    width: Width,
    planes: &[u8],
    estimate: &Estimate,
    target: &mut [u8],
) -> Result<Option<usize>> {
    COMPRESSORS.with_borrow_mut(|known| {
        let mut end = 0;
        // What is left behind the last whole element goes with the last plane.
        let plane = planes.len() / width.bytes();
        for (number, coder) in estimate.coders.into_iter().take(width.bytes()).enumerate() {
            let compressor = match &mut known[coder as usize] {
                Some(compressor) => compressor,
                none => none.insert(compressor(coder).doing(|| "starting zstd")?),
            };
            let last = number + 1 == width.bytes();
            let part = &planes[number * plane..if last { planes.len() } else { (number + 1) * plane }];
            for part in part.chunks(FRAME) {
                match compressor.compress_to_buffer(part, &mut target[end..]) {
                    Ok(length) => end += length,
                    Err(_) => return Ok(None),
                }
            }
        }
        Ok(Some(end))
    })
}

fn compressor(coder: Coder) -> std::io::Result<Compressor<'static>> {
    let literals = if coder == Coder::Noise { ParamSwitch::Disable } else { ParamSwitch::Enable };
    let mut compressor = Compressor::new(1)?;
    for parameter in [
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::MinMatch(SHORTEST_MATCH),
        CParameter::HashLog(HASH_LOG),
        CParameter::TargetLength(if coder == Coder::Skewed { NO_MATCHES } else { 0 }),
        CParameter::LiteralCompressionMode(literals),
        // The sums guard what is stored.
        CParameter::ChecksumFlag(false),
    ] {
        compressor.set_parameter(parameter)?;
    }
    Ok(compressor)
}

/// What the planes in the frames are joined to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// They are those of the elements themselves.
    Nothing,
    /// They are those of a difference, and what they are joined into is the base.
    Base,
}

/// The elements whose planes these frames hold, into `target`. Corrupt when they hold another number of bytes, or are no
/// frames.
pub fn decompress(width: Width, frames: &[u8], onto: Onto, target: &mut [u8]) -> Result<()> {
    let damaged = |why: String| Error::corrupt(format!("decompressing {} bytes: {why}", frames.len()));
    DECOMPRESSOR.with_borrow_mut(|known| {
        let decompressor = match known {
            Some(decompressor) => decompressor,
            None => known.insert(Decompressor::new().doing(|| "starting zstd")?),
        };
        match blocks(width, frames, target.len()) {
            Some(blocks) => BLOCK.with_borrow_mut(|planes| {
                planes.resize(FRAME * width.bytes(), 0);
                by_blocks(decompressor, width, &blocks, onto, planes, target).map_err(damaged)
            }),
            None => whole(decompressor, width, frames, onto, target).map_err(damaged),
        }
    })
}

/// The frames, when each holds as much of one plane as `compress` puts into it: so many for the first plane, then as many for
/// each of the others. None for what older versions have written, a frame for a plane, and for a rest of an element.
fn blocks(width: Width, frames: &[u8], bytes: usize) -> Option<Vec<&[u8]>> {
    let plane = bytes / width.bytes();
    if !bytes.is_multiple_of(width.bytes()) || plane == 0 {
        return None;
    }
    let (mut found, mut rest) = (Vec::with_capacity(plane.div_ceil(FRAME) * width.bytes()), frames);
    for _ in 0..width.bytes() {
        for start in (0..plane).step_by(FRAME) {
            let length = find_frame_compressed_size(rest).ok()?;
            let (frame, behind) = rest.split_at_checked(length)?;
            let holds = get_frame_content_size(frame).ok()??;
            if holds != FRAME.min(plane - start) as u64 {
                return None;
            }
            found.push(frame);
            rest = behind;
        }
    }
    rest.is_empty().then_some(found)
}

fn by_blocks(
    decompressor: &mut Decompressor<'static>,
    width: Width,
    frames: &[&[u8]],
    onto: Onto,
    planes: &mut [u8],
    target: &mut [u8],
) -> std::result::Result<(), String> {
    let a_plane = frames.len() / width.bytes();
    for (number, part) in target.chunks_mut(FRAME * width.bytes()).enumerate() {
        let planes = &mut planes[..part.len()];
        for (plane, target) in planes.chunks_exact_mut(part.len() / width.bytes()).enumerate() {
            let frame = frames[plane * a_plane + number];
            let found =
                decompressor.decompress_to_buffer(frame, target).map_err(|error| error.to_string())?;
            if found != target.len() {
                return Err(format!("a frame holds {found} of {} bytes", target.len()));
            }
        }
        join(width, onto, planes, part);
    }
    Ok(())
}

fn whole(
    decompressor: &mut Decompressor<'static>,
    width: Width,
    frames: &[u8],
    onto: Onto,
    target: &mut [u8],
) -> std::result::Result<(), String> {
    let planes = decompressor.decompress(frames, target.len()).map_err(|error| error.to_string())?;
    if planes.len() != target.len() {
        return Err(format!("they hold {} of {} bytes", planes.len(), target.len()));
    }
    join(width, onto, &planes, target);
    Ok(())
}

fn join(width: Width, onto: Onto, planes: &[u8], target: &mut [u8]) {
    match onto {
        Onto::Nothing => planes::join(width, planes, target),
        Onto::Base => planes::join_difference(width, planes, target),
    }
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
