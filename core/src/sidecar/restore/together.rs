//! Falling back together: when one rank finds its part of a step damaged, all ranks take an earlier one. After each try
//! all ranks meet; whatever was found damaged has been told by then, so all are named the same next step.

use super::super::barrier;
use super::{Fetched, Resolved, Restore};
use crate::error::Result;
use crate::ids::Step;

/// No user's barrier is called so.
const MEETING: &str = "\u{1}restore";
/// Tries of one round; a meeting is a round of its own at the barrier.
const TRIES: u64 = 1 << 16;

impl Restore {
    /// What all ranks have alike; None: another try is needed. Without `fall_back` each rank speaks for itself.
    pub(super) async fn agreed(
        &self,
        attempt: u64,
        resolved: &Resolved,
        fetched: Option<Fetched>,
        damaged: &mut Vec<(Step, String)>,
    ) -> Result<Option<Fetched>> {
        if !self.request.fall_back {
            return Ok(fetched);
        }
        let outcome = self.meet(attempt, resolved, fetched.is_none(), damaged).await;
        match (outcome, fetched) {
            (Ok(true), Some(fetched)) => Ok(Some(fetched)),
            (outcome, _) => outcome.map(|_| None),
        }
    }

    /// Whether the step stands for all.
    async fn meet(
        &self,
        attempt: u64,
        resolved: &Resolved,
        is_damaged: bool,
        damaged: &mut Vec<(Step, String)>,
    ) -> Result<bool> {
        let told: Vec<u64> = damaged.iter().map(|(step, _)| step.0).collect();
        if is_damaged {
            self.resolve(&told).await?;
        }
        let round = self.request.round * TRIES + attempt + 1;
        barrier::wait(&self.node, self.session, MEETING, round, self.deadline).await?;
        let now = self.resolve(&told).await?;
        let stands = now.as_ref().is_some_and(|now| now.step == resolved.step);
        if !stands && !is_damaged {
            let text = format!("step {}: another rank found its part damaged", resolved.step);
            damaged.push((resolved.step, text));
        }
        Ok(stands)
    }
}
