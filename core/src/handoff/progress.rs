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

/// For how long its training was held, since it joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// By `save`, by a fence, or by waiting for a step to be staged or committed.
    pub saving: Duration,
    pub restoring: Duration,
}

impl std::ops::Add for Spent {
    type Output = Spent;

    fn add(self, more: Spent) -> Spent {
        Spent { saving: self.saving + more.saving, restoring: self.restoring + more.restoring }
    }
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

/// Encoded: both in nanoseconds.
pub(super) const SPENT_BYTES: usize = 16;

pub(super) fn encode_spent(spent: Spent) -> [u8; SPENT_BYTES] {
    let words = [spent.saving, spent.restoring].map(|time| (time.as_nanos() as u64).to_ne_bytes());
    words.concat().try_into().expect("two words")
}

pub(super) fn decode_spent(bytes: &[u8; SPENT_BYTES]) -> Spent {
    let (saving, restoring) = bytes.split_at(8);
    let time =
        |word: &[u8]| Duration::from_nanos(u64::from_ne_bytes(word.try_into().expect("half of 16 bytes")));
    Spent { saving: time(saving), restoring: time(restoring) }
}
