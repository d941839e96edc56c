//! CRC32C of a slot's chunks, each taken once after the seal: by whoever needs it first. What is stored, and what is
//! restored from memory, is compared with it.

use std::sync::OnceLock;

use super::each_at;
use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::format::chunks;
use crate::format::{Run, Span};
use crate::pace::Pace;
use crate::proto::format::SlotIndex;

/// Of one filling of one slot. Shared by its threads and tasks, none of which waits for another: two that take the same sum
/// at once go by the one that was noted first.
pub struct SlotSums {
    /// By ascending offset.
    spans: Vec<Span>,
    taken: Vec<OnceLock<u32>>,
}

impl SlotSums {
    /// Of a slot that was just sealed: nothing is taken yet. Invalid when its tensors break the layout.
    pub fn untaken(index: &SlotIndex, slot_bytes: u64) -> Result<SlotSums> {
        let runs = chunks::runs(&index.tensors, slot_bytes)?;
        let spans: Vec<Span> = runs.iter().flat_map(Run::spans).collect();
        let taken = spans.iter().map(|_| OnceLock::new()).collect();
        Ok(SlotSums { spans, taken })
    }

    /// Taken earlier, in the order of the slot. Corrupt when these are not as many as it has chunks.
    pub fn known(index: &SlotIndex, slot_bytes: u64, sums: &[u32]) -> Result<SlotSums> {
        let known = SlotSums::untaken(index, slot_bytes)?;
        if known.spans.len() != sums.len() {
            let (found, wanted) = (sums.len(), known.spans.len());
            return Err(Error::corrupt(format!("{found} checksums for a slot of {wanted} chunks")));
        }
        Ok(SlotSums { taken: sums.iter().copied().map(OnceLock::from).collect(), ..known })
    }

    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Of the chunk at `span`, taken now if nobody has. `slot`: all bytes of it.
    pub fn of(&self, span: Span, slot: &[u8]) -> Result<u32> {
        let number = self.spans.binary_search_by_key(&span.offset, |other| other.offset);
        let number = number.ok().filter(|&number| self.spans[number] == span);
        let number =
            number.ok_or_else(|| Error::internal(format!("no chunk of the slot lies at {span:?}")))?;
        Ok(self.at(number, slot))
    }

    /// All of them, in the order of the slot, at a pace. Begins at the end: who writes the chunks comes from the other.
    pub fn take_all(&self, slot: &[u8], pace: &Pace) -> Result<Vec<u32>> {
        // One thread: it is done long before the disk has the bytes.
        let backwards =
            each_at(pace, 1, (0..self.spans.len()).rev().collect(), |number| Ok(self.at(number, slot)));
        backwards.map(|sums| sums.into_iter().rev().collect())
    }

    /// Whether chunk `number` still has the sum that was taken.
    pub fn is_unchanged(&self, number: usize, slot: &[u8]) -> bool {
        self.taken[number].get().is_none_or(|taken| *taken == sum(self.spans[number], slot))
    }

    fn at(&self, number: usize, slot: &[u8]) -> u32 {
        if let Some(taken) = self.taken[number].get() {
            return *taken;
        }
        let found = sum(self.spans[number], slot);
        // Not get_or_init: a thread that yields to training would hold up one that must not.
        let _ = self.taken[number].set(found);
        *self.taken[number].get().expect("it is set now")
    }
}

fn sum(span: Span, slot: &[u8]) -> u32 {
    crc32c(&slot[span.offset as usize..(span.offset + span.bytes) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::proto::format::Tensor;

    /// Two large tensors, one of them of two chunks, and the slot's bytes.
    fn sealed() -> (SlotIndex, Vec<u8>) {
        let tensor = |name: &str, offset, bytes| Tensor {
            name: name.to_owned(),
            offset,
            bytes,
            staged: true,
            ..Tensor::default()
        };
        let second = chunks::CHUNK_BYTES + 8192;
        let tensors = vec![tensor("a", 0, second), tensor("b", second, 100_000)];
        let data = crate::storage::conformance::noise(5, (second + 102_400) as usize);
        (SlotIndex { tensors, ..SlotIndex::default() }, data)
    }

    #[test]
    fn a_sum_is_taken_once_whoever_asks() {
        let (index, mut data) = sealed();
        let sums = SlotSums::untaken(&index, data.len() as u64).unwrap();
        let spans = sums.spans().to_vec();
        assert_eq!(spans.len(), 3);
        let last = sums.of(spans[2], &data).unwrap();
        let end = data.len() - 1;
        data[end] ^= 1;
        let all = sums.take_all(&data, &Pace::hurried()).unwrap();
        assert_eq!(all[2], last, "what came later counts for nothing");
        assert_eq!(
            (0..3).map(|number| sums.is_unchanged(number, &data)).collect::<Vec<_>>(),
            [true, true, false]
        );
        let known = SlotSums::known(&index, data.len() as u64, &all).unwrap();
        assert!(known.is_unchanged(1, &data) && !known.is_unchanged(2, &data));
    }

    #[test]
    fn sums_of_another_layout_are_told_apart() {
        let (index, data) = sealed();
        let error = SlotSums::known(&index, data.len() as u64, &[1, 2]).err().unwrap();
        assert_eq!(error.kind, Kind::Corrupt);
        let sums = SlotSums::untaken(&index, data.len() as u64).unwrap();
        assert_eq!(sums.of(Span { offset: 0, bytes: 5 }, &data).unwrap_err().kind, Kind::Internal);
    }
}
