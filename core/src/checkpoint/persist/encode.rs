//! How a chunk of an INCREMENTAL step is stored: as it is, as byte planes, or as the difference to its base; decided by
//! what samples of it gain, and only where that is worth the decoding.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;

use super::bases::{Base, OldPack};
use crate::error::Result;
use crate::format::chunks::{ALIGNMENT, LARGE_TENSOR};
use crate::format::delta::{self, Width};
use crate::format::encoding::Whole;
use crate::storage::{BufferBudget, Held, Promised};

/// A sixteenth of a chunk's bytes must go, or it is not worth the time of whoever reads it; a difference must be so much
/// smaller than the chunk alone. As the base grows older the difference grows, until it is not: then the chunk is stored
/// without one, and is the base of those to come.
const WORTH: u64 = 16;
/// Samples of a chunk, spread evenly: a sixteenth of it, but enough of each that its code is not most of it.
const SAMPLES: usize = 4;
const SAMPLE: usize = 16 << 10;
/// What the end of a chain may have a restore read beyond the state's own bytes: percent of them. A FULL step's restore
/// reads its bytes, and 1.3 of its time is promised. The last difference may go beyond it by its own.
const MORE_READS: u64 = 30;
/// Encoded chunks that wait in a writer for more of them: one part of an upload.
const WAITING: u64 = 20 << 20;

/// How much more than the state's bytes a restore of it may still read.
pub struct Reads {
    left: AtomicI64,
}

impl Reads {
    pub fn of(state_bytes: u64) -> Reads {
        Reads { left: AtomicI64::new((state_bytes * MORE_READS / 100) as i64) }
    }

    /// A chunk of `bytes` is restored by reading `read`.
    pub fn note(&self, bytes: u64, read: u64) {
        self.left.fetch_add(bytes as i64 - read as i64, Ordering::Relaxed);
    }

    /// Notes it if there is room for it.
    fn allow(&self, bytes: u64, read: u64) -> bool {
        let after = |left: i64| (left > 0).then_some(left + bytes as i64 - read as i64);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }
}

/// What is stored of a chunk.
pub struct Encoded {
    pub frame: Bytes,
    pub width: Width,
    /// None: the planes of the chunk itself.
    pub base: Option<Whole<OldPack>>,
}

/// The memory that encoding may use, while this lives.
pub struct Encoder {
    buffers: BufferBudget,
    _waiting: Promised,
}

impl Encoder {
    /// None where the limit on memory has no room for it: then chunks are stored as they are.
    pub fn new(buffers: &BufferBudget) -> Option<Encoder> {
        let waiting = buffers.promise(WAITING)?;
        Some(Encoder { buffers: buffers.clone(), _waiting: waiting })
    }

    /// None where the chunk is better stored as it is. `base` is asked with the room taken that reading it needs. Calls
    /// `reads` to account for what it chose.
    pub fn encode(
        &self,
        bytes: &[u8],
        width: Width,
        base: impl FnOnce() -> Result<Option<Base>>,
        reads: &Reads,
    ) -> Result<Option<Encoded>> {
        let length = bytes.len() as u64;
        if length < LARGE_TENSOR {
            return Ok(None);
        }
        // The base, and to read it its planes and their frame; or the base, the planes and the frame of this chunk.
        let mut room = self.buffers.take(3 * length + ALIGNMENT);
        let base = base()?;
        let Some(base) = choose(bytes, width, base, reads)? else { return Ok(None) };
        let mut planes = vec![0; bytes.len()];
        match &base {
            Some(base) => delta::split_difference(width, bytes, &base.bytes, &mut planes),
            None => delta::split(width, bytes, &mut planes),
        }
        let mut frame = vec![0; worth(length) as usize];
        let Some(stored) = delta::compress(width, &planes, &mut frame)? else { return Ok(None) };
        drop(planes);
        frame.truncate(stored);
        frame.shrink_to_fit();
        let base = base.map(|base| base.whole);
        room.shrink_to(frame.capacity() as u64);
        let frame = Bytes::from_owner(Frame { bytes: frame, _room: room });
        Ok(Some(Encoded { frame, width, base }))
    }
}

/// Counts against the limit for as long as a writer has it.
struct Frame {
    bytes: Vec<u8>,
    _room: Held,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The most that may be stored of so many bytes.
fn worth(bytes: u64) -> u64 {
    (bytes - bytes / WORTH) / ALIGNMENT * ALIGNMENT
}

/// With the base or without, as samples say; None: as it is.
fn choose(bytes: &[u8], width: Width, base: Option<Base>, reads: &Reads) -> Result<Option<Option<Base>>> {
    let length = bytes.len() as u64;
    let alone = sample(bytes, width, None)?;
    if let Some(base) = base {
        let difference = sample(bytes, width, Some(&base.bytes))?;
        let is_worth_it = difference <= worth(length) && difference + length / WORTH <= alone;
        if is_worth_it && reads.allow(length, difference + base.whole.stored.bytes) {
            return Ok(Some(Some(base)));
        }
    }
    if alone > worth(length) {
        return Ok(None);
    }
    // At once, not when it is stored: what this saves is there for the chunks that other threads decide on meanwhile.
    reads.note(length, alone);
    Ok(Some(None))
}

/// What would be stored of the chunk, as samples of it say.
fn sample(bytes: &[u8], width: Width, base: Option<&Bytes>) -> Result<u64> {
    let length = (bytes.len() / (16 * SAMPLES)).max(SAMPLE) / 8 * 8;
    let (mut planes, mut frame) = (vec![0; length], vec![0; length]);
    let mut stored = 0;
    for number in 0..SAMPLES {
        let at = (bytes.len() - length) * number / (SAMPLES - 1) / 8 * 8;
        let part = &bytes[at..at + length];
        match base {
            Some(base) => delta::split_difference(width, part, &base[at..at + length], &mut planes),
            None => delta::split(width, part, &mut planes),
        }
        stored += delta::compress(width, &planes, &mut frame)?.unwrap_or(length);
    }
    Ok((stored * bytes.len() / (SAMPLES * length)) as u64)
}
