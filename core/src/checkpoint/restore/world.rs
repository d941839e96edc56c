//! Whose state a rank gets. Pure.

use crate::error::{Error, Result};
use crate::format::CommitRecord;
use crate::ids::{Rank, WorldSize};
use crate::proto::format::Manifest;

/// The saved rank whose state is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub rank: Rank,
    /// At this world size the state is that of another rank, unless it is replicated.
    pub foreign: bool,
}

/// The rank's own state where it saved one at this world size. A step that only some ranks of it saved (`ranks=`) gives
/// the others the lowest one's; saved by one rank alone, it is one state for all, at any world size.
pub fn source_of(record: &CommitRecord, rank: Rank, world_size: WorldSize) -> Source {
    let saved = |rank: Rank| record.ranks.iter().any(|manifest| manifest.rank == rank);
    let lowest = record.ranks[0].rank;
    let one_for_all = record.ranks.len() == 1 && record.world_size.0 > 1;
    let rank = if saved(rank) && !one_for_all { rank } else { lowest };
    Source { rank, foreign: record.world_size != world_size && !one_for_all }
}

/// Invalid, naming both world sizes, when a tensor asked for is not one that every rank has.
pub fn check(
    record: &CommitRecord,
    from: Source,
    manifest: &Manifest,
    selected: &[usize],
    world_size: WorldSize,
) -> Result<()> {
    if !from.foreign {
        return Ok(());
    }
    let private = selected.iter().map(|&number| &manifest.tensors[number]).find(|tensor| !tensor.replicated);
    let what = match private {
        Some(tensor) => format!("tensor {:?} is rank {}'s alone", tensor.name, from.rank),
        None if selected.is_empty() => "none of its values is replicated".to_owned(),
        None => return Ok(()),
    };
    Err(Error::invalid(format!(
        "it was saved by {} ranks and is restored by {world_size}, and without a layout {what}",
        record.world_size
    ))
    .hint(
        "restore at the saved world size; or save with replicated=True what is equal on all ranks, and restore it with only=",
    ))
}
