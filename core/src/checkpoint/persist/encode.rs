//! How a chunk of an INCREMENTAL step is stored: as it is, as byte planes, or as the difference to its base; decided by
//! what samples of it gain, and only where that is worth the decoding.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;

use super::bases::{Base, OldPack};
use crate::error::Result;
use crate::format::chunks::{ALIGNMENT, LARGE_TENSOR};
use crate::format::delta::{self, Estimate, Width};
use crate::format::encoding::Whole;
use crate::storage::{BufferBudget, Promised};

/// A sixteenth of a chunk's bytes must go, or it is not worth the time of whoever reads it; a difference must be so much
/// smaller than the chunk alone. As the base grows older the difference grows, until it is not: then the chunk is stored
/// without one, and is the base of those to come.
const WORTH: u64 = 16;
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
        let Some((base, estimate)) = choose(bytes, width, base, reads) else { return Ok(None) };
        let mut planes = vec![0; bytes.len()];
        match &base {
            Some(base) => delta::split_difference(width, bytes, &base.bytes, &mut planes),
            None => delta::split(width, bytes, &mut planes),
        }
        let mut frame = vec![0; worth(length) as usize];
        let stored = delta::compress(width, &planes, &estimate, &mut frame)?;
        let Some(stored) = stored else { return Ok(None) };
        drop(planes);
        frame.truncate(stored);
        frame.shrink_to_fit();
        let base = base.map(|base| base.whole);
        room.shrink_to(frame.capacity() as u64);
        // Counts against the limit for as long as a writer has it.
        Ok(Some(Encoded { frame: room.around(frame), width, base }))
    }
}

/// The most that may be stored of so many bytes.
fn worth(bytes: u64) -> u64 {
    (bytes - bytes / WORTH) / ALIGNMENT * ALIGNMENT
}

/// With the base or without, as samples say, and how; None: as it is.
fn choose(bytes: &[u8], width: Width, base: Option<Base>, reads: &Reads) -> Option<(Option<Base>, Estimate)> {
    let length = bytes.len() as u64;
    let stored = |estimate: &Estimate| (length as f64 * estimate.part) as u64;
    let alone = delta::estimate(width, bytes, None);
    if let Some(base) = base {
        let difference = delta::estimate(width, bytes, Some(&base.bytes));
        let bytes = stored(&difference);
        let is_worth_it = bytes <= worth(length) && bytes + length / WORTH <= stored(&alone);
        if is_worth_it && reads.allow(length, bytes + base.whole.stored.bytes) {
            return Some((Some(base), difference));
        }
    }
    if stored(&alone) > worth(length) {
        return None;
    }
    // At once, not when it is stored: what this saves is there for the chunks that other threads decide on meanwhile.
    reads.note(length, stored(&alone));
    Some((None, alone))
}
