//! The packs that one persist writes.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::store::Place;
use crate::error::Result;
use crate::format::chunks::ALIGNMENT;
use crate::proto::format::Pack;
use crate::storage::{Piece, Store, Writer};

/// Far below what any store takes as one object (S3: 5 TiB), few enough objects for a state of terabytes.
const PACK_BYTES: u64 = 64 << 30;

pub struct PackSet<'a, F> {
    objects: &'a Arc<dyn Store>,
    name: F,
    open: Mutex<Open>,
}

struct Open {
    /// With their paths; chunks go to the last one.
    packs: Vec<(String, Arc<dyn Writer>)>,
    in_last: u64,
    /// Not yet appended, at most.
    left: u64,
}

impl<'a, F: Fn(u32) -> String> PackSet<'a, F> {
    /// Nothing is written before the first append.
    pub fn new(place: &'a Place, name: F, at_most: u64) -> PackSet<'a, F> {
        let open = Open { packs: Vec::new(), in_last: 0, left: at_most };
        PackSet { objects: &place.objects, name, open: Mutex::new(open) }
    }

    /// Number of the pack, and the offset in it.
    pub fn append(&self, piece: Piece) -> Result<(usize, u64)> {
        let (number, writer) = self.next(piece.bytes.len() as u64)?;
        Ok((number, writer.append(piece)?))
    }

    fn next(&self, bytes: u64) -> Result<(usize, Arc<dyn Writer>)> {
        let bytes = bytes.next_multiple_of(ALIGNMENT);
        let mut open = self.open.lock();
        if open.packs.is_empty() || open.in_last + bytes > PACK_BYTES {
            let path = (self.name)(open.packs.len() as u32);
            let writer = self.objects.writer(&path, open.left.min(PACK_BYTES))?;
            open.packs.push((path, writer.into()));
            open.in_last = 0;
        }
        open.in_last += bytes;
        open.left = open.left.saturating_sub(bytes);
        let number = open.packs.len() - 1;
        Ok((number, Arc::clone(&open.packs[number].1)))
    }

    /// All of them, durable. On an error none is there any more, as far as the store lets them go.
    pub fn finish(self) -> Result<Vec<Pack>> {
        let mut packs: Vec<Pack> = Vec::new();
        for (path, writer) in self.open.into_inner().packs {
            match writer.finish() {
                Ok(bytes) => packs.push(Pack { path, bytes }),
                Err(error) => {
                    packs.push(Pack { path, bytes: 0 });
                    let written: Vec<String> = packs.into_iter().map(|pack| pack.path).collect();
                    if let Err(kept) = self.objects.delete(&written) {
                        tracing::warn!(error = %kept, "leaving packs of a failed persist behind");
                    }
                    return Err(error);
                }
            }
        }
        Ok(packs)
    }
}
