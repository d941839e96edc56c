//! A slot that the sidecar fills itself, with a step restored from the store.

use super::slot::{Slot, write_seal};
use super::state::SlotState;
use crate::error::{Doing, Error, Result};
use crate::proto::format::SlotIndex;

/// The right to write one slot. Dropped before `finish`, the slot is Free again.
pub struct SlotLoad {
    slot: Slot,
    fill: u64,
    finished: bool,
}

impl SlotLoad {
    pub(super) fn new(slot: Slot, fill: u64) -> SlotLoad {
        SlotLoad { slot, fill, finished: false }
    }

    pub fn fill(&self) -> u64 {
        self.fill
    }

    /// The first `bytes` of the slot's data area, once it has its memory; Invalid when it holds less.
    pub fn data(&mut self, bytes: u64) -> Result<&mut [u8]> {
        let room = self.slot.arena().slot_bytes();
        if bytes > room {
            return Err(Error::invalid(format!("loading {bytes} bytes into {}: it holds {room}", self.slot)));
        }
        let mapping = &self.slot.arena.shared.mapping;
        mapping.wait_slot(self.slot.number).doing(|| format!("loading into {}", self.slot))?;
        let start = mapping.data(self.slot.number);
        // SAFETY: inside the mapping; the slot is Filling under this value's own fill, which no trainer knows, and
        // `&mut self` keeps the slice alone.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, bytes as usize) })
    }

    /// Filling → Clean, with the index and the length of the data.
    pub fn finish(mut self, index: &SlotIndex, data_bytes: u64) -> Result<Slot> {
        let mapping = &self.slot.arena.shared.mapping;
        write_seal(mapping, self.slot.number, self.fill, index, data_bytes)
            .doing(|| format!("finishing the load of {}", self.slot))?;
        self.slot.step_to(SlotState::Filling, SlotState::Clean, self.fill, "finishing the load of")?;
        self.finished = true;
        Ok(self.slot.clone())
    }
}

impl Drop for SlotLoad {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.slot.free(self.fill)
        {
            tracing::error!(%error, "giving up a restored slot");
        }
    }
}
