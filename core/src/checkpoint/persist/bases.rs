//! What an INCREMENTAL save may refer to: the chunks of its base step, found by their sum and length, taken only when
//! the bytes compare equal with the base's slot, or with what the store gives back.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::super::commits;
use super::super::objects::{Packs, Sum, read_manifest};
use super::super::store::Place;
use super::super::{BaseSlot, PersistRequest, RankSlot};
use crate::error::{Doing, Kind, Result};
use crate::ids::Step;
use crate::proto::format::{Chunk, Manifest, Pack};

/// Chunks of base steps by step, sum and length.
pub struct Bases {
    chunks: HashMap<(Step, u32, u64), Vec<Candidate>>,
    packs: Packs,
}

struct Candidate {
    pack: Pack,
    chunk: Chunk,
    /// Its bytes, while the base's slot is there.
    bytes: Option<Bytes>,
}

impl Bases {
    /// Reads the base steps' COMMITs, and the manifests of this node's ranks.
    pub fn load(place: &Place, request: &PersistRequest) -> Result<Bases> {
        let mut bases = Bases { chunks: HashMap::new(), packs: Packs::new(&place.objects) };
        let mut steps: BTreeMap<Step, Vec<&RankSlot>> = BTreeMap::new();
        for slot in &request.ranks {
            if let Some(base) = &slot.base {
                steps.entry(base.step).or_default().push(slot);
            }
        }
        for (step, slots) in steps {
            let doing = || format!("reading its base, step {step}");
            let record = commits::commit(place, step).doing(doing)?.record;
            for slot in slots {
                // A rank that did not save the base stores everything.
                let Some(named) = record.ranks.iter().find(|named| named.rank == slot.rank) else { continue };
                let manifest = read_manifest(place, &record, named).doing(doing)?;
                bases.add(step, &manifest, slot.base.as_ref());
            }
        }
        Ok(bases)
    }

    fn add(&mut self, step: Step, manifest: &Manifest, base: Option<&BaseSlot>) {
        // A slot that was restored may be laid out differently: then the store is asked.
        let slot = base.and_then(|base| base.slot.as_ref()).filter(|(data, index)| {
            index.tensors == manifest.tensors && data.len() as u64 == manifest.slot_bytes
        });
        for chunk in &manifest.chunks {
            let range = chunk.slot_offset as usize..(chunk.slot_offset + chunk.bytes) as usize;
            self.chunks.entry((step, chunk.crc32c, chunk.bytes)).or_default().push(Candidate {
                pack: manifest.packs[chunk.pack as usize].clone(),
                chunk: *chunk,
                bytes: slot.map(|(data, _)| data.slice(range)),
            });
        }
    }

    /// Where the base holds the same bytes, if it does.
    pub fn find(
        &self,
        place: &Place,
        slot: &RankSlot,
        bytes: &Bytes,
        sum: u32,
    ) -> Result<Option<(Pack, u64)>> {
        let Some(base) = &slot.base else { return Ok(None) };
        let candidates = self.chunks.get(&(base.step, sum, bytes.len() as u64));
        for candidate in candidates.into_iter().flatten() {
            if self.is_equal(place, candidate, bytes)? {
                return Ok(Some((candidate.pack.clone(), candidate.chunk.pack_offset)));
            }
        }
        Ok(None)
    }

    fn is_equal(&self, place: &Place, candidate: &Candidate, bytes: &Bytes) -> Result<bool> {
        if let Some(base) = &candidate.bytes {
            return Ok(base == bytes);
        }
        let _room = place.buffers.take(2 * bytes.len() as u64);
        let mut found = vec![0; bytes.len()];
        let sum = Sum { offset: candidate.chunk.pack_offset, crc32c: candidate.chunk.crc32c };
        match self.packs.read(&candidate.pack, sum, &mut found) {
            Ok(()) => Ok(found == *bytes),
            // A damaged base is nothing to refer to: the chunk is stored anew.
            Err(error) if error.kind == Kind::Corrupt => {
                tracing::warn!(%error, "a chunk of the base step is damaged");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
