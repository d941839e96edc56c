//! A rank's manifest: magic, version, protobuf `format.v1.Manifest`, BLAKE3 of all that.

use std::ops::Range;

use prost::Message;

use super::encoding::Stored;
use super::{Encoding, paths};
use crate::error::{Error, Result};
use crate::proto::format::{Chunk, ChunkEncoding, Manifest, SlotIndex};

const MAGIC: &[u8; 8] = b"STRATAMF";
/// Chunks as they are in their slots.
const RAW: u32 = 1;
/// Encoded ones, which a reader of the first version would take for damaged.
const ENCODED: u32 = 2;
const HEAD: usize = MAGIC.len() + size_of::<u32>();

/// A manifest as it lies in the store, and the hash that COMMIT names it by.
pub struct Encoded {
    pub bytes: Vec<u8>,
    pub blake3: String,
}

pub fn encode(manifest: &Manifest) -> Encoded {
    let mut bytes = Vec::with_capacity(HEAD + manifest.encoded_len() + blake3::OUT_LEN);
    bytes.extend_from_slice(MAGIC);
    let is_raw = manifest.chunks.iter().all(|chunk| chunk.encoding == i32::from(ChunkEncoding::Raw));
    let version = if is_raw { RAW } else { ENCODED };
    bytes.extend_from_slice(&version.to_le_bytes());
    manifest.encode(&mut bytes).expect("a Vec grows as needed");
    let seal = blake3::hash(&bytes);
    bytes.extend_from_slice(seal.as_bytes());
    Encoded { blake3: hash(&bytes), bytes }
}

/// The hash by which COMMIT names an object.
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Corrupt on any damage or nonsense; Invalid when a newer version wrote it. `what` names the object in messages.
pub fn decode(bytes: &[u8], what: &str) -> Result<Manifest> {
    let damaged = |why: &str| Error::corrupt(format!("reading {what}: {why}"));
    if bytes.len() < HEAD + blake3::OUT_LEN {
        return Err(damaged("it is truncated"));
    }
    let (body, seal) = bytes.split_at(bytes.len() - blake3::OUT_LEN);
    if !body.starts_with(MAGIC) || blake3::hash(body).as_bytes() != seal {
        return Err(damaged("its bytes are not what was written (BLAKE3 does not match)"));
    }
    let (head, message) = body.split_at(HEAD);
    let version = u32::from_le_bytes(head[MAGIC.len()..].try_into().expect("four bytes behind the magic"));
    if version > ENCODED {
        let message = format!("reading {what}: it has version {version}, this build reads up to {ENCODED}");
        return Err(Error::invalid(message).hint("read it with the newer version of Strata that wrote it"));
    }
    let manifest = Manifest::decode(message).map_err(|error| damaged(&error.to_string()))?;
    check(&manifest, what)?;
    Ok(manifest)
}

/// What every reader relies on; a manifest that breaks it was never written by us.
fn check(manifest: &Manifest, what: &str) -> Result<()> {
    let wrong = |why: String| Err(Error::corrupt(format!("reading {what}: {why}")));
    for pack in &manifest.packs {
        paths::check_data_path(&pack.path, what)?;
    }
    let mut end = 0;
    for chunk in &manifest.chunks {
        let in_slot = chunk.slot_offset.checked_add(chunk.bytes).filter(|end| *end <= manifest.slot_bytes);
        let Some(chunk_end) = in_slot.filter(|_| chunk.bytes > 0 && chunk.slot_offset >= end) else {
            return wrong(format!("its chunk at {} lies outside of its slot", chunk.slot_offset));
        };
        end = chunk_end;
        let encoding = Encoding::of(chunk).and_then(|encoding| match is_there(manifest, &encoding) {
            true => Ok(()),
            false => Err("it lies outside of its pack, or is made of what is not there".to_owned()),
        });
        if let Err(why) = encoding {
            return wrong(format!("its chunk at {}: {why}", chunk.slot_offset));
        }
    }
    for tensor in manifest.tensors.iter().filter(|tensor| tensor.staged) {
        if tensor.offset.checked_add(tensor.bytes).is_none_or(|end| end > manifest.slot_bytes) {
            return wrong(format!("tensor {:?} lies outside of its slot", tensor.name));
        }
    }
    Ok(())
}

/// Whether what a chunk is made of lies in packs of this manifest, or in other chunks of it.
fn is_there(manifest: &Manifest, encoding: &Encoding<u32>) -> bool {
    let in_pack = |stored: &Stored<u32>| {
        let end = stored.offset.checked_add(stored.bytes).filter(|_| stored.bytes > 0);
        let pack = manifest.packs.get(stored.pack as usize);
        pack.is_some_and(|pack| end.is_some_and(|end| end <= pack.bytes))
    };
    match encoding {
        Encoding::Whole(whole) => in_pack(&whole.stored),
        Encoding::Difference { stored, base, .. } => in_pack(stored) && in_pack(&base.stored),
        Encoding::Rounded { source } => covering(manifest, source).is_some_and(|chunks| {
            let is_rounded = |chunk: &Chunk| chunk.encoding == i32::from(ChunkEncoding::Rounded);
            !manifest.chunks[chunks].iter().any(is_rounded)
        }),
    }
}

/// The chunks that hold all of a part of the slot, without a gap; None when they are not all there.
pub fn covering(manifest: &Manifest, part: &Range<u64>) -> Option<Range<usize>> {
    let ends_before = |chunk: &Chunk| chunk.slot_offset.saturating_add(chunk.bytes) <= part.start;
    let first = manifest.chunks.partition_point(ends_before);
    let mut held = part.start;
    for (number, chunk) in manifest.chunks.iter().enumerate().skip(first) {
        if chunk.slot_offset > held {
            return None;
        }
        held = chunk.slot_offset + chunk.bytes;
        if held >= part.end {
            return Some(first..number + 1);
        }
    }
    None
}

/// The slot index that this manifest was made from, without what only the sidecar needed.
pub fn slot_index(manifest: &Manifest) -> SlotIndex {
    SlotIndex {
        step: manifest.step,
        rank: manifest.rank,
        world_size: manifest.world_size,
        kind: manifest.kind,
        tree: manifest.tree.clone(),
        tensors: manifest.tensors.clone(),
        begun: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
