//! Chunks that lie together in a pack of an object store are brought together, by requests as long as the store likes them:
//! for one of 4 MiB the way there and back takes as long as the bytes.

use std::collections::HashMap;

use super::super::decode::encoding;
use super::super::objects::Sum;
use super::{RankRestore, Read};
use crate::error::Result;
use crate::format::chunks::{ALIGNMENT, CHUNK_BYTES};
use crate::format::encoding::{Encoding, Whole};
use crate::proto::format::Pack;

/// A read, and where its bytes go.
pub type Piece<'r, 'a> = (&'r Read, &'a mut [u8]);

/// What one thread reads at a time.
pub enum Gathered<'r, 'a> {
    Alone(Piece<'r, 'a>),
    /// RAW chunks of one pack, by ascending offset.
    Together {
        pack: &'r Pack,
        pieces: Vec<Piece<'r, 'a>>,
        sums: Vec<Sum>,
        bytes: u64,
    },
}

impl RankRestore {
    /// Chunks of a pack that follow on one another, as many as its store likes and leave every thread some; the others alone,
    /// in the order of the slot.
    pub(super) fn gather<'r, 'a>(&'r self, pieces: Vec<Piece<'r, 'a>>) -> Result<Vec<Gathered<'r, 'a>>> {
        let total: u64 = pieces.iter().map(|(read, _)| read.bytes).sum();
        let threads = self.place.threads as u64;
        let fair = (total / threads).max(CHUNK_BYTES);
        let mut gathered = Vec::with_capacity(pieces.len());
        let mut raw = Vec::new();
        for piece in pieces {
            match self.raw(piece.0)? {
                Some((pack, sum, most)) => raw.push((pack, sum, most.min(fair), piece)),
                None => gathered.push(Gathered::Alone(piece)),
            }
        }
        raw.sort_by(|a, b| (&a.0.path, a.1.offset).cmp(&(&b.0.path, b.1.offset)));
        for (pack, sum, most, piece) in raw {
            let length = piece.0.bytes;
            match gathered.last_mut() {
                Some(Gathered::Together { pack: last, pieces, sums, bytes })
                    if last.path == pack.path
                        && sums.last().is_some_and(|before| follows(before, pieces, sum))
                        && *bytes + length.next_multiple_of(ALIGNMENT) <= most =>
                {
                    *bytes += length.next_multiple_of(ALIGNMENT);
                    pieces.push(piece);
                    sums.push(sum);
                }
                _ => gathered.push(Gathered::Together {
                    pack,
                    pieces: vec![piece],
                    sums: vec![sum],
                    bytes: length.next_multiple_of(ALIGNMENT),
                }),
            }
        }
        Ok(gathered)
    }

    /// Pack, place and sum of a chunk that is stored as it is, in a store that brings several at once; None for others.
    fn raw(&self, read: &Read) -> Result<Option<(&Pack, Sum, u64)>> {
        let manifest = &self.manifests[read.manifest];
        let Encoding::Whole(Whole { stored, planes: None, .. }) = encoding(&manifest.chunks[read.chunk])?
        else {
            return Ok(None);
        };
        let Some(pack) = manifest.packs.get(stored.pack as usize) else { return Ok(None) };
        let most = self.packs.together(pack)?;
        let sum = Sum { offset: stored.offset, crc32c: stored.crc32c };
        Ok((most > 0).then_some((pack, sum, most)))
    }
}

/// Whether a chunk lies right behind the last of these, padding apart.
fn follows(before: &Sum, pieces: &[Piece<'_, '_>], next: Sum) -> bool {
    let length = pieces.last().map_or(0, |(read, _)| read.bytes);
    next.offset == before.offset + length.next_multiple_of(ALIGNMENT)
}

impl<'r, 'a> Gathered<'r, 'a> {
    /// Every byte is checked when this returns.
    pub fn read(self, plan: &RankRestore) -> Result<Vec<Piece<'r, 'a>>> {
        match self {
            Gathered::Alone((read, target)) => {
                plan.read_piece(read, &HashMap::new(), target)?;
                Ok(vec![(read, target)])
            }
            Gathered::Together { pack, mut pieces, sums, .. } => {
                let mut chunks: Vec<(Sum, &mut [u8])> = sums
                    .into_iter()
                    .zip(&mut pieces)
                    .map(|(sum, (_, target))| (sum, &mut **target))
                    .collect();
                plan.packs.read_together(pack, &mut chunks)?;
                Ok(pieces)
            }
        }
    }
}
