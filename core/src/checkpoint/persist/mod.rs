//! Making sealed slots durable: cut into chunks, refer to equal bytes where there are some, make the rest small
//! where that pays and write it into packs, then write one manifest per rank.
//!
//! Who stores replicated tensors: over all nodes each of them is stored by one ([`NodeShare`](super::NodeShare)), from
//! the slot of a rank that staged it. A manifest lists a rank's whole state, and chunks only for what its node stored
//! from that rank's slot. A reader that finds no chunks for a replicated tensor takes them from the manifest of another
//! rank of the same COMMIT, which lists the tensor by the same name.

mod bases;
mod dedupe;
mod encode;
mod manifests;
mod masters;
mod packs;
mod plan;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::bases::{Bases, OldPack};
use self::dedupe::{Met, Originals};
use self::encode::{Encoded, Encoder, Reads};
use self::packs::PackSet;
use self::plan::{Work, check, plan};
use super::parallel::each_at;
use super::store::Place;
use super::{Durable, PersistRequest};
use crate::error::{Doing, Error, Result};
use crate::format::encoding::{Encoding, Stored, Whole};
use crate::format::{chunks, paths};
use crate::pace::Pace;
use crate::proto::format::{Manifest, Pack};
use crate::storage::{Piece, crc32c};

/// What a writer may hold for bytes that do not lie as the device wants them.
const WRITER_BYTES: u64 = 1 << 20;

/// A pack, while the new ones have no length yet.
#[derive(Clone, Debug)]
enum InPack {
    /// By its number among the new ones.
    New(usize),
    Old(OldPack),
}

/// Where a chunk's bytes are.
#[derive(Clone, Debug)]
enum At {
    /// Written by this persist, so many bytes of a pack.
    Stored(Encoding<InPack>, u64),
    /// In packs of an older step, or in other chunks of the same slot.
    Known(Encoding<InPack>),
    /// The same as the chunk of this number.
    Same(usize),
}

pub fn persist(
    place: &Place,
    request: &PersistRequest,
    pace: &Pace,
    stop: &AtomicBool,
) -> Result<Vec<Durable>> {
    let lowest = check(request)?;
    let work = plan(request)?;
    let nonce: u32 = rand::random();
    let at_most = work.iter().map(|work| work.span.bytes.next_multiple_of(chunks::ALIGNMENT)).sum();
    let packs = PackSet::new(place, |number| paths::pack(&request.attempt, lowest, nonce, number), at_most);
    let persisting = Persisting {
        place,
        request,
        bases: Bases::load(place, request)?,
        originals: Originals::default(),
        encoder: Encoder::new(&place.buffers),
        reads: request.ranks.iter().map(|slot| Reads::of(slot.data.len() as u64)).collect(),
        packs: &packs,
    };
    let numbered = work.iter().enumerate().collect();
    let placed: Vec<(u32, At)> = each_at(pace, place.threads, numbered, |(number, work)| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::cancelled("nobody waits for it any more"));
        }
        persisting.chunk(number, work)
    })
    .doing(|| format!("rank {lowest} and those with it"))?;
    drop(persisting);
    let packs = packs.finish()?;
    let durable = manifests::write(place, request, nonce, &work, &placed, &packs);
    if durable.is_err() {
        take_back(place, request, nonce, &packs);
    }
    durable
}

/// What the threads of one persist share.
struct Persisting<'a, F> {
    place: &'a Place,
    request: &'a PersistRequest,
    bases: Bases,
    originals: Originals,
    encoder: Option<Encoder>,
    /// Of each rank's slot.
    reads: Vec<Reads>,
    packs: &'a PackSet<'a, F>,
}

impl<F: Fn(u32) -> String + Sync> Persisting<'_, F> {
    /// The chunk's sum, and where it is.
    fn chunk(&self, number: usize, work: &Work) -> Result<(u32, At)> {
        let slot = &self.request.ranks[work.slot];
        let bytes = slot.data.slice(work.span.offset as usize..(work.span.offset + work.span.bytes) as usize);
        let sum = slot.sums.of(work.span, &slot.data)?;
        let reads = &self.reads[work.slot];
        if let Some(source) = &work.source {
            let masters = &slot.data[source.start as usize..source.end as usize];
            if masters::is_rounded(masters, &bytes) {
                reads.note(work.span.bytes, 0);
                return Ok((sum, At::Known(Encoding::Rounded { source: source.clone() })));
            }
        }
        if let Some(found) = self.bases.find(self.place, slot, &bytes, sum)? {
            reads.note(work.span.bytes, found.read_bytes());
            return Ok((sum, At::Known(found.map(InPack::Old))));
        }
        if let Met::Before(original) = self.originals.meet(sum, number, &bytes) {
            return Ok((sum, At::Same(original)));
        }
        if let Some(encoder) = self.encoder.as_ref().filter(|_| slot.base.is_some()) {
            let name = &slot.index.tensors[work.first].name;
            let base = || self.bases.base_of(slot, name, work);
            if let Some(encoded) = encoder.encode(&bytes, work.width, base, reads)? {
                // Whoever writes it sees only the frame.
                if crc32c(&bytes) != sum {
                    return Err(Error::corrupt(format!(
                        "encoding {name:?}: its bytes were changed in memory"
                    )));
                }
                return Ok((sum, self.store_encoded(encoded, sum)?));
            }
        }
        let _room = self.place.buffers.take(WRITER_BYTES);
        let bytes_in_pack = bytes.len() as u64;
        let (pack, offset) = self.packs.append(Piece { bytes, crc32c: sum })?;
        let stored = Stored { pack: InPack::New(pack), offset, bytes: bytes_in_pack, crc32c: sum };
        let whole = Whole { stored, planes: None, crc32c: sum };
        Ok((sum, At::Stored(Encoding::Whole(whole), bytes_in_pack)))
    }

    fn store_encoded(&self, encoded: Encoded, sum: u32) -> Result<At> {
        let Encoded { frame, width, base } = encoded;
        let (bytes, crc32c) = (frame.len() as u64, crc32c(&frame));
        let (pack, offset) = self.packs.append(Piece { bytes: frame, crc32c })?;
        let stored = Stored { pack: InPack::New(pack), offset, bytes, crc32c };
        let encoding = match base {
            Some(base) => Encoding::Difference { stored, width, base: base.map(&mut InPack::Old) },
            None => Encoding::Whole(Whole { stored, planes: Some(width), crc32c: sum }),
        };
        Ok(At::Stored(encoding, bytes))
    }
}

/// Names of a manifest's packs, to be shared by all chunks that refer to them.
fn pack_table(manifest: &Manifest) -> Vec<Arc<str>> {
    manifest.packs.iter().map(|pack| pack.path.as_str().into()).collect()
}

/// What nobody will ever name: a disk without room for the manifests would otherwise fill up with packs, one try after
/// the other. What can't be deleted now goes with the attempt's folder.
fn take_back(place: &Place, request: &PersistRequest, nonce: u32, packs: &[Pack]) {
    let manifests = request.ranks.iter().map(|slot| paths::manifest(&request.attempt, slot.rank, nonce));
    let written: Vec<String> = packs.iter().map(|pack| pack.path.clone()).chain(manifests).collect();
    if let Err(error) = place.objects.delete(&written) {
        tracing::warn!(%error, attempt = %request.attempt, "leaving objects of a failed persist behind");
    }
}
