//! What an INCREMENTAL save may be told by: the chunks of its base step. One is referred to only when the bytes compare
//! equal with the base's slot, or with what the store gives back; a difference is taken to the whole chunk that the base
//! holds at the same place of the same tensor, or that it differs from itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::super::decode::{encoding, read_chunk, read_whole, room};
use super::super::objects::{Packs, read_manifest};
use super::super::store::Place;
use super::super::{BaseSlot, PersistRequest, RankSlot, commits};
use super::{Work, pack_table};
use crate::error::{Doing, Kind, Result};
use crate::format::encoding::{Encoding, Whole};
use crate::format::{Span, chunks};
use crate::ids::{Rank, Step};
use crate::proto::format::Manifest;
use crate::storage::{Aligned, crc32c};

/// The chunks of base steps.
pub struct Bases {
    parts: Vec<Part>,
    /// By step, sum and length: in which part, and its number there.
    by_sum: HashMap<(Step, u32, u64), Vec<(usize, usize)>>,
    packs: Packs,
}

/// A rank's part of a base step.
struct Part {
    step: Step,
    rank: Rank,
    manifest: Manifest,
    table: Vec<Arc<str>>,
    /// The slot's bytes, while it is there.
    slot: Option<Bytes>,
    /// Chunks by where they lie: the first tensor of the run, from its start on.
    places: HashMap<(String, u64, u64), usize>,
}

/// A whole chunk of an older step, and its bytes.
pub struct Base {
    pub whole: Whole<OldPack>,
    pub bytes: Bytes,
}

/// A pack of an older step: its path and length.
pub type OldPack = (Arc<str>, u64);

impl Bases {
    /// Reads the base steps' COMMITs, and the manifests of this node's ranks.
    pub fn load(place: &Place, request: &PersistRequest) -> Result<Bases> {
        let mut bases =
            Bases { parts: Vec::new(), by_sum: HashMap::new(), packs: Packs::new(&place.objects) };
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
                bases.add(step, slot.rank, manifest, slot.base.as_ref()).doing(doing)?;
            }
        }
        Ok(bases)
    }

    fn add(&mut self, step: Step, rank: Rank, manifest: Manifest, base: Option<&BaseSlot>) -> Result<()> {
        // A slot that was restored may be laid out differently: then the store is asked.
        let slot = base.and_then(|base| base.slot.as_ref()).filter(|(data, index)| {
            index.tensors == manifest.tensors && data.len() as u64 == manifest.slot_bytes
        });
        let part = self.parts.len();
        let mut numbers = HashMap::new();
        for (number, chunk) in manifest.chunks.iter().enumerate() {
            numbers.insert(Span { offset: chunk.slot_offset, bytes: chunk.bytes }, number);
            if !matches!(encoding(chunk)?, Encoding::Rounded { .. }) {
                self.by_sum.entry((step, chunk.crc32c, chunk.bytes)).or_default().push((part, number));
            }
        }
        let mut places = HashMap::new();
        for run in chunks::runs(&manifest.tensors, manifest.slot_bytes)? {
            for span in run.spans() {
                if let Some(number) = numbers.get(&span) {
                    let name = manifest.tensors[run.tensors[0]].name.clone();
                    places.insert((name, span.offset - run.offset, span.bytes), *number);
                }
            }
        }
        let table = pack_table(&manifest);
        let slot = slot.map(|(data, _)| data.clone());
        self.parts.push(Part { step, rank, manifest, table, slot, places });
        Ok(())
    }

    /// Where the base holds the same bytes, if it does.
    pub fn find(
        &self,
        place: &Place,
        slot: &RankSlot,
        bytes: &Bytes,
        sum: u32,
    ) -> Result<Option<Encoding<OldPack>>> {
        let Some(base) = &slot.base else { return Ok(None) };
        let candidates = self.by_sum.get(&(base.step, sum, bytes.len() as u64));
        for &(part, number) in candidates.into_iter().flatten() {
            let part = &self.parts[part];
            if self.is_equal(place, part, number, bytes)? {
                let found = encoding(&part.manifest.chunks[number])?;
                return Ok(Some(found.map(|pack| part.old(pack))));
            }
        }
        Ok(None)
    }

    fn is_equal(&self, place: &Place, part: &Part, number: usize, bytes: &Bytes) -> Result<bool> {
        let chunk = &part.manifest.chunks[number];
        if let Some(slot) = &part.slot {
            let (start, end) = (chunk.slot_offset as usize, (chunk.slot_offset + chunk.bytes) as usize);
            return Ok(slot[start..end] == bytes[..]);
        }
        let length = bytes.len() as u64;
        let _room = place.buffers.take(length + room(&encoding(chunk)?, length));
        let mut found = Aligned::new(bytes.len());
        let read = read_chunk(&self.packs, &part.manifest, number, &|_| None, found.get());
        Ok(unless_damaged(read)?.is_some() && *found.bytes() == bytes[..])
    }

    /// What a chunk may be told as the difference to. The caller holds room for three times its bytes: the base, and to
    /// read one that is encoded its frame and planes.
    pub fn base_of(&self, slot: &RankSlot, name: &str, work: &Work) -> Result<Option<Base>> {
        let step = slot.base.as_ref().map(|base| base.step);
        let Some(part) = self.parts.iter().find(|part| Some(part.step) == step && part.rank == slot.rank)
        else {
            return Ok(None);
        };
        let Some(&number) = part.places.get(&(name.to_owned(), work.from_run, work.span.bytes)) else {
            return Ok(None);
        };
        let chunk = &part.manifest.chunks[number];
        let (whole, in_slot) = match encoding(chunk)? {
            Encoding::Whole(whole) => (whole, true),
            Encoding::Difference { base, .. } => (base, false),
            Encoding::Rounded { .. } => return Ok(None),
        };
        let old = |whole: Whole<u32>| whole.map(&mut |pack| part.old(pack));
        let held =
            part.slot.as_ref().filter(|_| in_slot).map(|slot| {
                slot.slice(chunk.slot_offset as usize..(chunk.slot_offset + chunk.bytes) as usize)
            });
        // What lies in memory may have been damaged there: then the store is asked.
        if let Some(bytes) = held.filter(|bytes| crc32c(bytes) == whole.crc32c) {
            return Ok(Some(Base { whole: old(whole), bytes }));
        }
        let mut bytes = Aligned::new(chunk.bytes as usize);
        let read = read_whole(&self.packs, &part.manifest.packs, &whole, bytes.get());
        Ok(unless_damaged(read)?.map(|()| Base { whole: old(whole), bytes: Bytes::from_owner(bytes) }))
    }
}

impl Part {
    fn old(&self, pack: u32) -> OldPack {
        (Arc::clone(&self.table[pack as usize]), self.manifest.packs[pack as usize].bytes)
    }
}

/// A damaged base is nothing to refer to: the chunk is stored anew.
fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind == Kind::Corrupt => {
            tracing::warn!(%error, "a chunk of the base step is damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
