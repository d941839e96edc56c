//! The progress line: a rank's step and phase, readable when the rank itself is stopped or dead.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::header::ProgressLine;
use crate::ids::Step;
use crate::proto::v1::RankPhase;

/// What a rank last wrote about itself. The fields are written one after another, without a lock: a reader may see a
/// new step with the old phase for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// As the trainer's own pid namespace numbers it.
    pub pid: u32,
    pub step: Step,
    pub phase: RankPhase,
    /// Since it was written.
    pub age: Duration,
}

/// CLOCK_MONOTONIC is one clock for all processes of the machine.
fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

impl Progress {
    pub(super) fn read(line: &ProgressLine) -> Option<Progress> {
        let written = line.written.load(Ordering::Acquire);
        (written != 0).then(|| Progress {
            pid: line.pid.load(Ordering::Relaxed),
            step: Step(line.step.load(Ordering::Relaxed)),
            phase: RankPhase::try_from(line.phase.load(Ordering::Relaxed) as i32)
                .unwrap_or(RankPhase::Unspecified),
            age: monotonic().saturating_sub(Duration::from_nanos(written)),
        })
    }

    pub(super) fn write(line: &ProgressLine, step: Step, phase: RankPhase) {
        line.pid.store(std::process::id(), Ordering::Relaxed);
        line.step.store(step.0, Ordering::Relaxed);
        line.phase.store(phase as u32, Ordering::Relaxed);
        line.written.store(monotonic().as_nanos() as u64, Ordering::Release);
    }
}
