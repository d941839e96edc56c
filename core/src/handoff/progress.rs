//! The progress line: a rank's step and phase, beside its life line and readable when the rank itself is stopped or dead.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::ids::Step;
use crate::proto::v1::RankPhase;

/// What a rank last wrote about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub step: Step,
    pub phase: RankPhase,
    /// Since it was written.
    pub age: Duration,
}

/// Encoded: when it was written (CLOCK_MONOTONIC in nanoseconds; 0 before the first time), the step, the phase.
pub(super) const BYTES: usize = 24;

/// CLOCK_MONOTONIC is one clock for all processes of the machine.
fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// As of now.
pub(super) fn encode(step: Step, phase: RankPhase) -> [u8; BYTES] {
    let words = [monotonic().as_nanos() as u64, step.0, phase as u64].map(u64::to_ne_bytes);
    words.concat().try_into().expect("three words")
}

pub(super) fn decode(bytes: &[u8; BYTES]) -> Option<Progress> {
    let word =
        |number: usize| u64::from_ne_bytes(bytes[8 * number..8 * (number + 1)].try_into().expect("8 bytes"));
    (word(0) != 0).then(|| Progress {
        step: Step(word(1)),
        phase: i32::try_from(word(2)).ok().and_then(|phase| phase.try_into().ok()).unwrap_or_default(),
        age: monotonic().saturating_sub(Duration::from_nanos(word(0))),
    })
}
