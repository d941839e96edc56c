//! The state of a slot and the fill number it belongs to, packed into one word so that every transition, sealing
//! included, is one compare-and-swap.

use std::fmt;

/// Free → Filling → Sealed → Persisting → Clean → Filling …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Holds nothing.
    Free,
    /// A trainer copies a step into it, or the sidecar a restored one.
    Filling,
    /// Complete: survives the trainer.
    Sealed,
    /// The sidecar reads it for the store.
    Persisting,
    /// Its step is settled in the store; kept for restores and as a base until the slot is needed.
    Clean,
}

impl SlotState {
    const ALL: [SlotState; 5] =
        [SlotState::Free, SlotState::Filling, SlotState::Sealed, SlotState::Persisting, SlotState::Clean];
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `fill << 8 | state`. The fill number grows with every filling of the slot, so a trainer that was stopped and wakes
/// up compares against a word that can't come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub state: SlotState,
    pub fill: u64,
}

impl Word {
    pub fn pack(self) -> u64 {
        (self.fill << 8) | self.state as u64
    }

    /// None when the state is none of ours: the header is damaged.
    pub fn unpack(word: u64) -> Option<Word> {
        let state = SlotState::ALL.into_iter().find(|state| *state as u64 == word & 0xff)?;
        Some(Word { state, fill: word >> 8 })
    }
}
