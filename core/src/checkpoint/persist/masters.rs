//! Which bf16 tensors may be fp32 masters rounded: found by their size, a sample of their elements, and the names where
//! several fit. Only a guess: each chunk is compared in full before it is stored as that.

use std::collections::HashMap;
use std::ops::Range;

use super::super::RankSlot;
use crate::format::Run;
use crate::format::chunks::LARGE_TENSOR;
use crate::format::delta;
use crate::proto::format::Tensor;

/// Weights compared, in so many places, before a pair is believed in: enough that moments, which have the masters'
/// shapes, never come through; few enough that a state of thousands of tensors is paired in milliseconds.
const PLACES: u64 = 16;
const WEIGHTS: u64 = 4;

/// For each run of a slot the tensor whose elements its own may be, rounded. `runs` are those that the manifest will hold
/// chunks of.
pub fn pair(slot: &RankSlot, runs: &[&Run]) -> Vec<Option<usize>> {
    let tensors = &slot.index.tensors;
    let alone = |run: &&&Run| run.tensors.len() == 1 && tensors[run.tensors[0]].bytes >= LARGE_TENSOR;
    let mut masters: HashMap<u64, Vec<usize>> = HashMap::new();
    for run in runs.iter().filter(alone) {
        let tensor = &tensors[run.tensors[0]];
        if tensor.dtype == "float32" {
            masters.entry(tensor.bytes).or_default().push(run.tensors[0]);
        }
    }
    let pair = |run: &&Run| {
        let weights = Some(run).filter(alone).map(|run| &tensors[run.tensors[0]])?;
        let fitting = masters.get(&(2 * weights.bytes)).filter(|_| weights.dtype == "bfloat16")?;
        let mut fitting = fitting.clone();
        fitting.sort_by_key(|&master| std::cmp::Reverse(common_end(&weights.name, &tensors[master].name)));
        fitting.into_iter().find(|&master| looks_rounded(&slot.data, weights, &tensors[master]))
    };
    runs.iter().map(pair).collect()
}

/// Where the masters of a chunk's weights lie in the slot; None for a chunk that holds no weight.
pub fn source(weights: &Tensor, masters: &Tensor, chunk: Range<u64>) -> Option<Range<u64>> {
    let start = chunk.start - weights.offset;
    let end = (chunk.end - weights.offset).min(weights.bytes);
    (start < end && start.is_multiple_of(2)).then(|| masters.offset + 2 * start..masters.offset + 2 * end)
}

/// Whether a chunk is nothing but masters rounded, and zeros behind them.
pub fn is_rounded(masters: &[u8], chunk: &[u8]) -> bool {
    let (weights, rest) = chunk.split_at(masters.len() / 2);
    rest.iter().all(|byte| *byte == 0) && delta::is_rounded(masters, weights)
}

fn looks_rounded(data: &[u8], weights: &Tensor, masters: &Tensor) -> bool {
    let elements = weights.bytes / 2;
    (0..PLACES).all(|place| {
        let first = (elements - WEIGHTS) * place / (PLACES - 1);
        let of = |tensor: &Tensor, width: u64| {
            let start = (tensor.offset + width * first) as usize;
            &data[start..start + (width * WEIGHTS) as usize]
        };
        delta::is_rounded(of(masters, 4), of(weights, 2))
    })
}

fn common_end(a: &str, b: &str) -> usize {
    a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count()
}
