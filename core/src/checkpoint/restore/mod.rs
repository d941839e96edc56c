//! What one rank gets of a committed step: which ranks' manifests to read, where each tensor will lie, and the verified
//! reading itself.

mod gather;
mod layout;
mod read;
mod sources;
mod world;

use std::sync::Arc;

use self::layout::Layout;
use self::sources::Sources;
pub(super) use self::sources::{check_whole, covering};
use super::objects::Packs;
use super::store::Place;
use super::{Commit, commits, glob};
use crate::error::Result;
use crate::ids::{Rank, Step, WorldSize};
use crate::proto::format::{Manifest, SlotIndex};

/// A plan to bring a rank's part of a step into a slot. Where `only` names no tensor it is the tree alone: what of that it
/// names, and whether anything, its reader says.
pub struct RankRestore {
    place: Arc<Place>,
    commit: Commit,
    index: SlotIndex,
    slot_bytes: u64,
    /// By ascending place in the slot.
    reads: Vec<Read>,
    manifests: Vec<Manifest>,
    packs: Packs,
}

/// One chunk's way to the slot: which one of which manifest.
#[derive(Clone, Copy, Debug)]
struct Read {
    manifest: usize,
    chunk: usize,
    bytes: u64,
    target: u64,
}

pub fn open(
    place: &Arc<Place>,
    step: Step,
    rank: Rank,
    world_size: WorldSize,
    only: &str,
) -> Result<RankRestore> {
    let commit = commits::commit(place, step)?;
    let from = world::source_of(&commit.record, rank, world_size);
    let mut sources = Sources::open(place, &commit.record, from.rank)?;
    let own = sources.primary();
    let selected: Vec<usize> = (0..own.tensors.len())
        .filter(|&number| only.is_empty() || glob::matches_any(only, &own.tensors[number].name))
        .collect();
    world::check(&commit.record, from, own, &selected, world_size)?;
    let found = sources.locate(&selected)?;
    let Layout { tensors, slot_bytes, reads } = layout::lay_out(sources.manifests(), &found, only.is_empty());
    let index = SlotIndex {
        step: step.0,
        rank: rank.0,
        world_size: world_size.0,
        kind: sources.primary().kind,
        tree: sources.primary().tree.clone(),
        tensors,
        begun: Vec::new(),
    };
    let (manifests, packs) = (sources.into_manifests(), Packs::new(&place.objects));
    Ok(RankRestore { place: Arc::clone(place), commit, index, slot_bytes, reads, manifests, packs })
}

impl RankRestore {
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Of data, without the index.
    pub fn slot_bytes(&self) -> u64 {
        self.slot_bytes
    }

    /// As the slot will hold it: tensors that were not asked for are not `staged`.
    pub fn index(&self) -> &SlotIndex {
        &self.index
    }
}
