//! Reading into a slot: ranged, by several threads, each chunk straight to its place and verified there. Weights that
//! are rounded masters come last, when their masters are there.

use std::collections::HashMap;

use super::super::decode::{encoding, read_chunk, room};
use super::super::parallel::each;
use super::{RankRestore, Read};
use crate::error::{Doing, Error, Result};
use crate::format::chunks::ALIGNMENT;
use crate::proto::format::ChunkEncoding;

impl RankRestore {
    /// Reads into a slot's data of at least `slot_bytes`; every byte is verified when this returns Ok, none may be used
    /// otherwise. Blocks: call it on a thread that may (`spawn_blocking`). Corrupt, naming step and object, when bytes
    /// are not what was written; Invalid when the slot is too small.
    pub fn read_into(&self, slot: &mut [u8]) -> Result<()> {
        let doing = || format!("restoring step {} for rank {}", self.index.step, self.index.rank);
        let room = slot.len() as u64;
        let Some(slot) = slot.get_mut(..self.slot_bytes as usize) else {
            return Err(Error::invalid(format!("the slot holds {room} of {} bytes", self.slot_bytes)))
                .doing(doing);
        };
        let pieces = self.cut(slot).doing(doing)?;
        // A thread of its own: the caller's goes on with its own rights.
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| self.place.assume_user().and_then(|()| self.read_pieces(pieces)));
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        read.doing(doing)
    }

    fn read_pieces(&self, pieces: Vec<(&Read, &mut [u8])>) -> Result<()> {
        let is_rounded = |read: &Read| {
            let chunk = &self.manifests[read.manifest].chunks[read.chunk];
            chunk.encoding == i32::from(ChunkEncoding::Rounded)
        };
        let (rounded, stored): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|(read, _)| is_rounded(read));
        let done = each(self.place.threads, self.gather(stored)?, |gathered| {
            let read = gathered.read(self)?;
            Ok(read
                .into_iter()
                .map(|(read, target)| ((read.manifest, read.chunk), &*target))
                .collect::<Vec<_>>())
        })?;
        let done: HashMap<(usize, usize), &[u8]> = done.into_iter().flatten().collect();
        each(self.place.threads, rounded, |(read, target)| self.read_piece(read, &done, target)).map(drop)
    }

    pub(super) fn read_piece(
        &self,
        read: &Read,
        done: &HashMap<(usize, usize), &[u8]>,
        target: &mut [u8],
    ) -> Result<()> {
        let manifest = &self.manifests[read.manifest];
        let _room = self.place.buffers.take(room(&encoding(&manifest.chunks[read.chunk])?, read.bytes));
        let known = |chunk| done.get(&(read.manifest, chunk)).copied();
        read_chunk(&self.packs, manifest, read.chunk, &known, target)
    }

    /// The slot in pieces, one a read, and zeros in the gaps between, so that equal states give equal slots. Gaps of a
    /// page and more are left as they are: no chunk ever holds them.
    fn cut<'a>(&self, mut slot: &'a mut [u8]) -> Result<Vec<(&Read, &'a mut [u8])>> {
        let mut pieces = Vec::with_capacity(self.reads.len());
        let mut end = 0;
        for read in &self.reads {
            let Some(gap) = read.target.checked_sub(end).filter(|gap| gap + read.bytes <= slot.len() as u64)
            else {
                return Err(Error::corrupt(format!("the chunk at {} overlaps another", read.target)));
            };
            let (before, rest) = slot.split_at_mut(gap as usize);
            zero(before);
            let (target, rest) = rest.split_at_mut(read.bytes as usize);
            pieces.push((read, target));
            slot = rest;
            end = read.target + read.bytes;
        }
        zero(slot);
        Ok(pieces)
    }
}

fn zero(gap: &mut [u8]) {
    if (gap.len() as u64) < ALIGNMENT {
        gap.fill(0);
    }
}
