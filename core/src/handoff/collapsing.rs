//! Putting an arena's small pages into huge ones, where there were none at hand when it got its memory.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::huge::{Collapse, HUGE, Patience, Refusal};
use super::mapping::Mapping;
use super::slot::read_word;
use super::state::SlotState;

/// Nobody waits for it, and a forked save or a write to the disk is the cheaper for it each time: 2 s, and what pieces
/// take that are at hand (0.3 ms). An arena that would take more keeps the rest of its small pages.
const PATIENCE: Patience = Patience::new(Duration::from_secs(2), Duration::from_millis(1));
/// It works a quarter of the time, rather than at a low priority: who touches a piece that is being moved waits for the
/// mover, which with the lowest priority may not get a processor for a second.
const REST: u32 = 3;
/// Until a slot may have been filled, or persisted.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Has the pieces `small` of the file put into huge pages, one by one, when nobody writes to their slots or reads
/// them for the disk; ends early with the mapping, when it takes too long, or when the kernel gives none.
pub(super) fn later(mapping: &Weak<Mapping>, small: Vec<u64>, collapse: Collapse) {
    let mut patience = PATIENCE;
    let mut left = VecDeque::from(small);
    let mut busy = 0;
    while let Some(piece) = left.pop_front() {
        let Some(mapping) = mapping.upgrade() else { return };
        if is_busy(&mapping, piece) {
            left.push_back(piece);
            busy += 1;
            if busy >= left.len() {
                busy = 0;
                drop(mapping);
                std::thread::sleep(LOOK_AGAIN);
            }
            continue;
        }
        busy = 0;
        let begun = Instant::now();
        let outcome = collapse(mapping.piece(piece));
        drop(mapping);
        let taken = begun.elapsed();
        if outcome == Err(Refusal::Never) || !patience.spend(taken) {
            tracing::debug!(pieces = left.len(), ?outcome, "the rest of an arena stays in small pages");
            return;
        }
        std::thread::sleep(taken * REST);
    }
}

/// Whether a slot that the piece holds a part of is neither free nor settled.
fn is_busy(mapping: &Mapping, piece: u64) -> bool {
    let header = &mapping.header;
    let overlaps =
        |slot: &u32| header.slot_offset(*slot) < piece + HUGE && header.slot_offset(slot + 1) > piece;
    let is_at_rest = |slot| {
        read_word(mapping.slot(slot))
            .is_ok_and(|word| matches!(word.state, SlotState::Free | SlotState::Clean))
    };
    !(0..header.slots).filter(overlaps).all(is_at_rest)
}
