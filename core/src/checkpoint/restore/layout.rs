//! Where each chunk goes in the slot. Pure.
//!
//! A whole state from one manifest keeps the places it was saved with, so that the slot is also the base of the next
//! INCREMENTAL save. Anything else is packed: chunks that lay together stay together, from a page's start on.

use std::collections::{BTreeMap, BTreeSet};

use super::Read;
use super::sources::Found;
use crate::format::chunks::ALIGNMENT;
use crate::proto::format::{Manifest, Tensor};

pub struct Layout {
    /// All tensors of the first manifest; `staged` where they are in the slot.
    pub tensors: Vec<Tensor>,
    pub slot_bytes: u64,
    pub reads: Vec<Read>,
}

/// `found`: of the first manifest's tensors, those wanted; `whole`: that is all of them.
pub fn lay_out(manifests: &[Manifest], found: &[Found], whole: bool) -> Layout {
    if whole && found.iter().all(|found| found.manifest == 0) {
        return keep_places(manifests, found);
    }
    let mut tensors = manifests[0].tensors.clone();
    for tensor in &mut tensors {
        (tensor.staged, tensor.offset) = (false, 0);
    }
    let places = Places::of(manifests, found);
    for found in found {
        let there = &manifests[found.manifest].tensors[found.there];
        let tensor = &mut tensors[found.tensor];
        tensor.staged = true;
        if !found.chunks.is_empty() {
            tensor.offset = places.target(manifests, found.manifest, found.chunks.start, there.offset);
        }
    }
    let mut reads: Vec<Read> = places
        .targets
        .iter()
        .map(|(&(manifest, chunk), &target)| read(manifests, manifest, chunk, target))
        .collect();
    reads.sort_by_key(|read| read.target);
    Layout { tensors, slot_bytes: places.end, reads }
}

fn keep_places(manifests: &[Manifest], found: &[Found]) -> Layout {
    let manifest = &manifests[0];
    let mut tensors = manifest.tensors.clone();
    found.iter().for_each(|found| tensors[found.tensor].staged = true);
    let reads = (0..manifest.chunks.len()).map(|at| read(manifests, 0, at, manifest.chunks[at].slot_offset));
    Layout { tensors, slot_bytes: manifest.slot_bytes, reads: reads.collect() }
}

fn read(manifests: &[Manifest], manifest: usize, chunk: usize, target: u64) -> Read {
    Read { manifest, chunk, bytes: manifests[manifest].chunks[chunk].bytes, target }
}

/// Where each wanted chunk goes, by manifest and number: chunks that lay together, and only those, lie together again,
/// so that every tensor stays in one piece. Each stretch starts on a page.
struct Places {
    targets: BTreeMap<(usize, usize), u64>,
    end: u64,
}

impl Places {
    fn of(manifests: &[Manifest], found: &[Found]) -> Places {
        let mut places = Places { targets: BTreeMap::new(), end: 0 };
        let wanted: BTreeSet<(usize, usize)> = found
            .iter()
            .flat_map(|found| found.chunks.clone().map(|chunk| (found.manifest, chunk)))
            .collect();
        // Manifest and saved end of the chunk before.
        let mut before = None;
        for (manifest, number) in wanted {
            let chunk = &manifests[manifest].chunks[number];
            if before != Some((manifest, chunk.slot_offset)) {
                places.end = places.end.next_multiple_of(ALIGNMENT);
            }
            places.targets.insert((manifest, number), places.end);
            places.end += chunk.bytes;
            before = Some((manifest, chunk.slot_offset + chunk.bytes));
        }
        places.end = places.end.next_multiple_of(ALIGNMENT);
        places
    }

    /// Where the byte at `offset` of a saved slot comes to lie, which is in this chunk.
    fn target(&self, manifests: &[Manifest], manifest: usize, chunk: usize, offset: u64) -> u64 {
        self.targets[&(manifest, chunk)] + (offset - manifests[manifest].chunks[chunk].slot_offset)
    }
}
