//! Where a slot's bytes are cut into chunks: a pure function of its layout. The same cut everywhere makes comparing
//! with a base slot, with another rank's slot and with a stored manifest one and the same operation.
//!
//! A *run* is one large tensor, or small tensors that lie together. A run starts where its first tensor does and is
//! cut every [`CHUNK_BYTES`] from there, so equal runs give equal chunks wherever they lie in their slots.

use crate::error::{Error, Result};
use crate::proto::format::Tensor;

/// Large enough that a write of one chunk keeps a disk busy, small enough that an unchanged one is often found.
pub const CHUNK_BYTES: u64 = 4 << 20;
/// Packs are written with O_DIRECT, whose memory, offsets and lengths are multiples of this.
pub const ALIGNMENT: u64 = 4096;
/// From this size a tensor is a run of its own (and `handoff::plan` aligns it).
pub const LARGE_TENSOR: u64 = 64 << 10;

/// A stretch of a slot that is cut as one. Padding up to the next multiple of 4096 belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub offset: u64,
    pub bytes: u64,
    pub replicated: bool,
    /// Numbers of its tensors in the index, by ascending offset; never empty.
    pub tensors: Vec<usize>,
}

/// One chunk's place in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub offset: u64,
    pub bytes: u64,
}

impl Run {
    pub fn spans(&self) -> impl Iterator<Item = Span> + use<> {
        let (offset, bytes) = (self.offset, self.bytes);
        (0..bytes.div_ceil(CHUNK_BYTES)).map(move |number| {
            let start = number * CHUNK_BYTES;
            Span { offset: offset + start, bytes: CHUNK_BYTES.min(bytes - start) }
        })
    }
}

/// The runs of a slot of `slot_bytes`, by ascending offset: staged tensors only, empty ones left out.
/// Invalid when tensors overlap or lie outside of the slot.
pub fn runs(tensors: &[Tensor], slot_bytes: u64) -> Result<Vec<Run>> {
    let mut order: Vec<usize> =
        (0..tensors.len()).filter(|&number| tensors[number].staged && tensors[number].bytes > 0).collect();
    order.sort_by_key(|&number| tensors[number].offset);
    let mut runs: Vec<Run> = Vec::new();
    let mut end = 0;
    for number in order {
        let tensor = &tensors[number];
        let tensor_end = tensor.offset.checked_add(tensor.bytes).filter(|end| *end <= slot_bytes);
        let Some(tensor_end) = tensor_end.filter(|_| tensor.offset >= end) else {
            return Err(Error::invalid(format!(
                "cutting a slot of {slot_bytes} bytes into chunks: tensor {:?} at {} with {} bytes overlaps another or \
                 lies outside",
                tensor.name, tensor.offset, tensor.bytes
            )));
        };
        match runs.last_mut() {
            Some(run) if joins(run, tensors, tensor, end) => {
                run.tensors.push(number);
                run.bytes = tensor_end - run.offset;
            }
            _ => runs.push(Run {
                offset: tensor.offset,
                bytes: tensor.bytes,
                replicated: tensor.replicated,
                tensors: vec![number],
            }),
        }
        end = tensor_end;
    }
    for number in 0..runs.len() {
        let limit = runs.get(number + 1).map_or(slot_bytes, |next| next.offset);
        let run = &mut runs[number];
        run.bytes = (run.offset + run.bytes).next_multiple_of(ALIGNMENT).min(limit) - run.offset;
    }
    Ok(runs)
}

/// Small neighbours of one kind share a run; `end` is where the run's last tensor ends.
fn joins(run: &Run, tensors: &[Tensor], next: &Tensor, end: u64) -> bool {
    let small = |tensor: &Tensor| tensor.bytes < LARGE_TENSOR;
    run.replicated == next.replicated
        && small(next)
        && small(&tensors[run.tensors[0]])
        && next.offset - end < ALIGNMENT
}
