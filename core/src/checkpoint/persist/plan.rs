//! What one persist has to store: the chunks of all its slots. Pure.

use std::ops::Range;

use super::masters;
use crate::checkpoint::PersistRequest;
use crate::error::{Doing, Error, Result};
use crate::format::delta::Width;
use crate::format::{Run, Span, chunks};
use crate::ids::Rank;
use crate::proto::format::Tensor;

/// A chunk of one rank's slot, by the rank's place in the request.
#[derive(Clone, Debug)]
pub struct Work {
    pub slot: usize,
    pub span: Span,
    /// The first tensor of its run, and how far from the run's start it lies.
    pub first: usize,
    pub from_run: u64,
    /// Of the run's largest tensor.
    pub width: Width,
    /// fp32 masters in the same slot that may be all there is to it.
    pub source: Option<Range<u64>>,
}

/// The lowest rank. Internal for a slot that holds something else than the attempt says.
pub fn check(request: &PersistRequest) -> Result<Rank> {
    for slot in &request.ranks {
        if slot.index.rank != slot.rank.0 || slot.index.step != request.attempt.step.0 {
            return Err(Error::internal(format!(
                "the slot given for rank {} holds step {} of rank {}",
                slot.rank, slot.index.step, slot.index.rank
            )));
        }
    }
    let lowest = request.ranks.iter().map(|slot| slot.rank).min();
    lowest.ok_or_else(|| Error::internal("no rank was given"))
}

/// The chunks of all slots that this node stores. Invalid for slots that break the layout; Internal when this node
/// should store a replicated tensor that no rank of it staged: its bytes would be nowhere.
pub fn plan(request: &PersistRequest) -> Result<Vec<Work>> {
    let mut work = Vec::new();
    for (number, slot) in request.ranks.iter().enumerate() {
        let tensors = &slot.index.tensors;
        let mine = request.replicated.of(tensors);
        let runs = chunks::runs(tensors, slot.data.len() as u64)
            .doing(|| format!("reading the layout of rank {}", slot.rank))?;
        let runs: Vec<&Run> = runs.iter().filter(|run| !run.replicated || mine[run.tensors[0]]).collect();
        for (run, master) in runs.iter().zip(masters::pair(slot, &runs)) {
            let (first, width) = (run.tensors[0], width(tensors, run));
            work.extend(run.spans().map(|span| {
                let range = span.offset..span.offset + span.bytes;
                let source =
                    master.and_then(|master| masters::source(&tensors[first], &tensors[master], range));
                Work { slot: number, span, first, from_run: span.offset - run.offset, width, source }
            }));
        }
        let lost = (0..mine.len()).find(|&number| mine[number] && !is_staged(request, &tensors[number]));
        if let Some(lost) = lost {
            return Err(Error::internal(format!(
                "the replicated tensor {:?} is this node's to store, and no rank of it holds its bytes",
                tensors[lost].name
            )));
        }
    }
    Ok(work)
}

fn width(tensors: &[Tensor], run: &Run) -> Width {
    let largest = run.tensors.iter().max_by_key(|&&number| tensors[number].bytes);
    largest.map_or(Width::One, |&number| Width::of(&tensors[number].dtype))
}

fn is_staged(request: &PersistRequest, tensor: &Tensor) -> bool {
    let same = |other: &Tensor| other.staged && other.replicated && other.name == tensor.name;
    tensor.staged || tensor.bytes == 0 || request.ranks.iter().any(|slot| slot.index.tensors.iter().any(same))
}
