//! What one rank gets of a committed step.

use super::Commit;
use crate::error::Result;
use crate::proto::format::SlotIndex;

/// A plan to bring a rank's part of a step into a slot.
pub struct RankRestore {
    commit: Commit,
    index: SlotIndex,
    slot_bytes: u64,
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

    /// Reads into a slot's data of at least `slot_bytes`; every byte is verified when this returns. Blocks: call it on
    /// a blocking thread (`spawn_blocking`). Corrupt, naming step and object, when bytes are not what was written.
    pub fn read_into(&self, _slot: &mut [u8]) -> Result<()> {
        todo!()
    }
}
