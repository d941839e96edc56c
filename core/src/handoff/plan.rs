//! Where each tensor lies in a slot. Pure: the same tensors give the same layout everywhere, so that slots, ranks and
//! stored manifests can be compared chunk by chunk.

use crate::format::chunks::{ALIGNMENT, LARGE_TENSOR};

/// Small tensors start on cache lines, so that two copying threads don't share one.
const SMALL_ALIGNMENT: u64 = 64;
/// Room for the index is given in steps of this, twice what it needs now, so that a state whose tree grows by a few
/// digits between steps keeps its arena.
const INDEX_STEP: u64 = 64 << 10;

/// One dense buffer to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub bytes: u64,
    /// Equal on all ranks. Small replicated tensors lie apart from private ones, because they share chunks.
    pub replicated: bool,
}

/// The places, and how long the data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLayout {
    /// In the order of the specs, from the start of the slot's data.
    pub offsets: Vec<u64>,
    /// A multiple of 4096.
    pub data_bytes: u64,
}

impl SlotLayout {
    /// What a slot must hold for this data and an encoded index of `index_bytes`.
    pub fn slot_bytes(&self, index_bytes: u64) -> u64 {
        self.data_bytes + (2 * index_bytes).next_multiple_of(INDEX_STEP)
    }
}

/// Tensors of 64 KiB and more first, each on a page of its own; then the small private ones together, then the small
/// replicated ones. Within a group the order is the caller's.
pub fn layout(tensors: &[TensorSpec]) -> SlotLayout {
    let mut offsets = vec![0; tensors.len()];
    let mut end: u64 = 0;
    for (number, _) in tensors.iter().enumerate().filter(|(_, tensor)| is_large(tensor)) {
        offsets[number] = end;
        end = (end + tensors[number].bytes).next_multiple_of(ALIGNMENT);
    }
    for replicated in [false, true] {
        let small = |tensor: &TensorSpec| !is_large(tensor) && tensor.replicated == replicated;
        for (number, _) in tensors.iter().enumerate().filter(|(_, tensor)| small(tensor)) {
            end = end.next_multiple_of(SMALL_ALIGNMENT);
            offsets[number] = end;
            end += tensors[number].bytes;
        }
        end = end.next_multiple_of(ALIGNMENT);
    }
    SlotLayout { offsets, data_bytes: end }
}

fn is_large(tensor: &TensorSpec) -> bool {
    tensor.bytes >= LARGE_TENSOR
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::chunks;
    use crate::proto::format::Tensor;

    fn specs() -> impl Strategy<Value = Vec<TensorSpec>> {
        let bytes = prop_oneof![Just(0u64), 1..300u64, 60_000..70_000u64, 1..20_000_000u64];
        prop::collection::vec((bytes, any::<bool>()), 0..60).prop_map(|sizes| {
            let spec =
                |(number, (bytes, replicated))| TensorSpec { name: format!("t{number}"), bytes, replicated };
            sizes.into_iter().enumerate().map(spec).collect()
        })
    }

    proptest! {
        #[test]
        fn tensors_never_overlap_and_large_ones_are_page_aligned(specs in specs()) {
            let layout = layout(&specs);
            prop_assert_eq!(layout.data_bytes % ALIGNMENT, 0);
            let mut places: Vec<_> = specs.iter().zip(&layout.offsets).filter(|(spec, _)| spec.bytes > 0).collect();
            places.sort_by_key(|(_, offset)| **offset);
            let mut end = 0;
            for (spec, offset) in places {
                prop_assert!(*offset >= end);
                prop_assert_eq!(offset % if is_large(spec) { ALIGNMENT } else { SMALL_ALIGNMENT }, 0);
                end = offset + spec.bytes;
            }
            prop_assert!(end <= layout.data_bytes);
        }

        #[test]
        fn every_byte_of_a_layout_is_in_one_chunk_run_that_starts_on_a_page(specs in specs()) {
            let layout = layout(&specs);
            let tensors: Vec<Tensor> = specs.iter().zip(&layout.offsets).map(|(spec, offset)| Tensor {
                name: spec.name.clone(), offset: *offset, bytes: spec.bytes, replicated: spec.replicated, staged: true,
                ..Tensor::default()
            }).collect();
            let runs = chunks::runs(&tensors, layout.data_bytes).unwrap();
            let small: usize = runs.iter().filter(|run| specs[run.tensors[0]].bytes < LARGE_TENSOR).count();
            prop_assert!(small <= 2, "{} small runs", small);
            let mut end = 0;
            for run in runs {
                prop_assert_eq!(run.offset, end);
                end = run.offset + run.bytes;
            }
            prop_assert_eq!(end, layout.data_bytes);
        }
    }

    #[test]
    fn a_tree_that_grows_a_little_keeps_its_arena() {
        let layout = SlotLayout { offsets: vec![], data_bytes: 8192 };
        assert_eq!(layout.slot_bytes(1000), layout.slot_bytes(1100));
        assert!(layout.slot_bytes(1000) >= 8192 + 1000);
    }
}
