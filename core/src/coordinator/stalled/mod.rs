//! Which ranks hold up their job: told from their progress lines, and from how long the job's steps take. Pure: what time it
//! is comes from outside.
//!
//! When one rank of a synchronous job hangs, all of them stop within a step, so silence alone names nobody. Named are
//! those that are furthest behind: the others wait for them. Ranks at the same step are named together.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{Rank, Step};
use crate::proto::v1::RankPhase;

/// A rank may stand still for so many of its job's usual steps.
const STEPS: u32 = 10;
/// And for so many times the longest that a rank stood still and went on by itself: an evaluation, a wait for data.
const LONGEST: u32 = 2;
/// While nobody knows how long a step takes (compilation in the first one, the first save of a job that tells of nothing
/// else) the floor counts so many times.
const UNKNOWN: u32 = 10;
/// From so many steps on their length is known.
const LEARNT: usize = 3;
/// The first steps of a rank hold what is done once: they are not what a long step is measured by.
const WARMING: u32 = 2;
/// Lengths that the usual one is the median of.
const KEPT: usize = 64;
/// Ranks that stopped together reach the limit one after the other, as their frames come in: of the limit, how much they
/// may lack to be named together.
const TOGETHER: u32 = 10;

/// A rank's progress line as it was followed.
#[derive(Clone, Debug, Default)]
pub struct Line {
    at: Option<(Step, RankPhase)>,
    /// When it was last written.
    moved: Duration,
    /// When the step that it names was begun, since which nothing but steps was done.
    stepped: Option<Duration>,
    steps: u32,
}

/// From one step to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTime {
    pub length: Duration,
    /// Among the rank's first ones.
    pub is_first: bool,
}

impl Line {
    /// Takes note of what the line says now; the time of a step that it completes. `age`: since it was written; None where
    /// that can't be told, so that only a change is a sign.
    pub fn read(
        &mut self,
        now: Duration,
        step: Step,
        phase: RankPhase,
        age: Option<Duration>,
    ) -> Option<StepTime> {
        let before = self.at.replace((step, phase));
        match age {
            Some(age) => self.moved = now.saturating_sub(age),
            None if before != self.at => self.moved = now,
            None => {}
        }
        if !matches!(phase, RankPhase::Training | RankPhase::Checkpointing | RankPhase::Waiting) {
            self.stepped = None;
            return None;
        }
        if self.stepped.is_some() && before.is_some_and(|(known, _)| known == step) {
            return None;
        }
        let begun = self.stepped.replace(self.moved);
        // Back at an earlier step: it begins anew.
        before.filter(|(known, _)| *known < step)?;
        let length = self.moved.saturating_sub(begun?);
        self.steps += 1;
        Some(StepTime { length, is_first: self.steps <= WARMING })
    }

    /// When it was last written; None before that.
    pub fn moved(&self) -> Option<Duration> {
        self.at.filter(|(_, phase)| *phase != RankPhase::Unspecified).map(|_| self.moved)
    }
}

/// How long a job's steps take, over all its ranks.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    recent: VecDeque<Duration>,
    longest: Duration,
}

impl Pace {
    pub fn learn(&mut self, time: StepTime) {
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(time.length);
        if !time.is_first {
            self.longest = self.longest.max(time.length);
        }
    }

    /// The usual length of a step; None before that is known.
    pub fn usual(&self) -> Option<Duration> {
        let mut lengths: Vec<Duration> = self.recent.iter().copied().collect();
        lengths.sort_unstable();
        (lengths.len() >= LEARNT).then(|| lengths[lengths.len() / 2])
    }

    /// How long a rank may stand still; `floor` at least.
    pub fn patience(&self, floor: Duration) -> Duration {
        match self.usual() {
            Some(usual) => {
                let usual = usual.saturating_mul(STEPS);
                floor.max(usual).max(self.longest.saturating_mul(LONGEST))
            }
            None => floor.saturating_mul(UNKNOWN),
        }
    }
}

/// Where a rank stands that was heard of just now.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub rank: Rank,
    pub step: Step,
    pub phase: RankPhase,
    /// For how long.
    pub still: Duration,
    /// Others save a step that it is to save too, and it has not begun.
    pub owes: bool,
}

/// The ranks that hold up their job; empty while it goes on. Who waits at a barrier is not among them. While a rank as far
/// behind saves, loads or restores, the rest may be waiting for it: then only those are whose part of a save it may be
/// waiting for itself.
pub fn stalled(ranks: &[Standing], patience: Duration) -> Vec<Rank> {
    let training = || ranks.iter().filter(|rank| rank.phase == RankPhase::Training);
    if !training().any(|rank| rank.still >= patience) {
        return Vec::new();
    }
    let quiet = || training().filter(|rank| rank.still >= patience - patience / TOGETHER);
    let Some(behind) = quiet().map(|rank| rank.step).min() else { return Vec::new() };
    let is_busy = |rank: &Standing| {
        matches!(rank.phase, RankPhase::Checkpointing | RankPhase::Restoring | RankPhase::Loading)
    };
    let may_wait = ranks.iter().any(|rank| is_busy(rank) && rank.step <= behind);
    let holds_up = |rank: &&Standing| rank.step == behind && (rank.owes || !may_wait);
    quiet().filter(holds_up).map(|rank| rank.rank).collect()
}

#[cfg(test)]
mod tests;
