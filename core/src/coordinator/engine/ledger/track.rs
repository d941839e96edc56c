//! One job's time as it passes. Pure: told what happened, and when. A stretch is settled by what ends it: a step, a
//! loss, a start; until then nobody knows whether it was work or a stall.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::coordinator::state::Use;
use crate::ids::{Rank, Step};

/// A step that takes so many times the usual stalls.
const STALLS: u32 = 3;
/// And by so much: frames tell of steps four times a second, and a compiler or a page cache may take one.
const STALLS_BY: Duration = Duration::from_secs(1);
/// The usual step is the median of so many.
const REMEMBERED: usize = 65;

/// What a rank says of itself. Its times are sums since it joined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// None before it has named one.
    pub step: Option<Step>,
    pub saving: Duration,
    pub restoring: Duration,
}

/// Sums; a track's are settled, and not yet logged.
#[derive(Debug, Default)]
pub struct Settled {
    pub spent: BTreeMap<Use, Duration>,
    pub losses: u64,
    pub saves: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nobody has joined, or all have left.
    Closed,
    /// The first has joined, and not all.
    Joining(Use),
    Open {
        /// What the time before its first step is.
        warming: Use,
    },
    /// A rank was lost; the last of the others was seen then.
    Lost { lingered: Duration },
}

pub struct Track {
    phase: Phase,
    /// All time up to here is settled.
    until: Duration,
    /// Time of before this coordinator began, which belongs to the first stretch.
    before: Duration,
    ranks: HashMap<Rank, Member>,
    /// How many ranks are at which step. (A frame tells of every rank four times a second.)
    at_steps: BTreeMap<Step, u32>,
    /// The step that all ranks had reached when the last stretch was settled.
    at: Option<Step>,
    /// The highest that any rank had reached in generations before this one.
    reached_before: Option<Step>,
    pace: Pace,
    pub settled: Settled,
}

#[derive(Default)]
struct Member {
    now: Seen,
    settled: Seen,
}

impl Track {
    /// Of a job that nobody has joined.
    pub fn new(reached: Option<Step>) -> Track {
        Track {
            phase: Phase::Closed,
            until: Duration::ZERO,
            before: Duration::ZERO,
            ranks: HashMap::new(),
            at_steps: BTreeMap::new(),
            at: None,
            reached_before: reached,
            pace: Pace::default(),
            settled: Settled::default(),
        }
    }

    /// Of a job whose generation is open since before this coordinator began; `before` is not accounted for.
    pub fn resumed_open(now: Duration, before: Duration, reached: Option<Step>) -> Track {
        let phase = Phase::Open { warming: Use::Productive };
        Track { phase, until: now, before, ..Track::new(reached) }
    }

    /// The same of one that had lost a rank.
    pub fn resumed_lost(now: Duration, before: Duration, reached: Option<Step>) -> Track {
        Track { phase: Phase::Lost { lingered: now }, until: now, before, ..Track::new(reached) }
    }

    pub fn registered(&mut self, now: Duration) {
        match self.phase {
            Phase::Closed => {
                self.until = now;
                self.phase = Phase::Joining(Use::Start);
            }
            Phase::Lost { lingered } => {
                self.book(lingered, Use::Fencing);
                self.book(now, Use::Restart);
                self.phase = Phase::Joining(Use::Reassignment);
            }
            Phase::Joining(_) | Phase::Open { .. } => {}
        }
    }

    pub fn opened(&mut self, now: Duration) {
        self.registered(now);
        if let Phase::Joining(what) = self.phase {
            self.book(now, what);
            let warming = if what == Use::Start { Use::Start } else { Use::Restart };
            self.phase = Phase::Open { warming };
            self.forget_ranks();
        }
    }

    /// A member says where it is.
    pub fn seen(&mut self, now: Duration, rank: Rank, seen: Seen) {
        if !matches!(self.phase, Phase::Open { .. }) {
            return;
        }
        let before = std::mem::replace(&mut self.ranks.entry(rank).or_default().now, seen).step;
        if before != seen.step {
            self.moved(before, seen.step);
        }
        if self.at_step() > self.at {
            self.settle(now);
        }
    }

    /// A member of the generation that ended has yet to end.
    pub fn lingers(&mut self, now: Duration) {
        if let Phase::Lost { lingered } = &mut self.phase {
            *lingered = now;
        }
    }

    /// A rank was lost, and had been silent for so long.
    pub fn lost(&mut self, now: Duration, silent: Duration) {
        if matches!(self.phase, Phase::Open { .. }) {
            let known = self.until.max(now.saturating_sub(silent));
            self.finish(known, Use::Replay);
            self.book(now, Use::Detection);
            self.settled.losses += 1;
            self.phase = Phase::Lost { lingered: now };
        }
    }

    /// All ranks left, or nobody is there any more who had joined.
    pub fn closed(&mut self, now: Duration) {
        match self.phase {
            Phase::Open { .. } => self.finish(now, Use::Productive),
            Phase::Joining(what) => self.book(now, what),
            Phase::Lost { lingered } => {
                self.book(lingered, Use::Fencing);
                self.book(now, Use::Restart);
            }
            Phase::Closed => {}
        }
        self.phase = Phase::Closed;
    }

    pub fn reached(&self) -> Option<Step> {
        self.reached_before
    }

    /// What the time since is, as far as it can be told before its stretch ends.
    pub fn unsettled(&self, now: Duration) -> Option<(Use, Duration)> {
        let what = match self.phase {
            Phase::Closed => return None,
            Phase::Joining(what) => what,
            Phase::Lost { lingered } if lingered == now => Use::Fencing,
            Phase::Lost { .. } => Use::Restart,
            Phase::Open { warming } if self.at.is_none() => warming,
            Phase::Open { .. } => {
                let spent = now.saturating_sub(self.until);
                let stalls = self.pace.usual().is_some_and(|usual| spent > usual * STALLS + STALLS_BY);
                if stalls { Use::Stall } else { Use::Productive }
            }
        };
        Some((what, now.saturating_sub(self.until) + self.before))
    }

    /// The generation ends: what was begun is `unfinished`.
    fn finish(&mut self, now: Duration, unfinished: Use) {
        if self.at_step() > self.at {
            self.settle(now);
        } else {
            let mut left = self.take(now);
            self.take_told(&mut left);
            let stalled = match self.at {
                Some(_) => self.pace.excess(left, 1),
                None => Duration::ZERO,
            };
            self.add(Use::Stall, stalled);
            // A job that never names a step trains all the same.
            let what = if self.at_steps.is_empty() { Use::Productive } else { unfinished };
            self.add(what, left - stalled);
        }
        let highest = self.at_steps.last_key_value().map(|(step, _)| *step);
        self.reached_before = self.reached_before.max(highest);
        self.forget_ranks();
    }

    fn moved(&mut self, from: Option<Step>, to: Option<Step>) {
        if let Some(count) = from.and_then(|step| self.at_steps.get_mut(&step)) {
            *count -= 1;
        }
        if let Some(to) = to {
            *self.at_steps.entry(to).or_default() += 1;
        }
        if let Some(from) = from
            && self.at_steps.get(&from) == Some(&0)
        {
            self.at_steps.remove(&from);
        }
    }

    /// The lowest step of those who name one.
    fn at_step(&self) -> Option<Step> {
        self.at_steps.first_key_value().map(|(step, _)| *step)
    }

    fn forget_ranks(&mut self) {
        self.ranks.clear();
        self.at_steps.clear();
        self.at = None;
    }

    /// All ranks have made a step.
    fn settle(&mut self, now: Duration) {
        let mut left = self.take(now);
        self.take_told(&mut left);
        let Some(to) = self.at_step() else { return };
        let (from, steps) = match self.at {
            Some(from) => (from, to.0 - from.0),
            None => (Step(to.0.saturating_sub(1)), 1),
        };
        match (self.at, self.phase) {
            (None, Phase::Open { warming }) => {
                // Where no step is known its time is part of the warming up.
                let work = left.min(self.pace.usual().unwrap_or_default());
                self.add(warming, left - work);
                left = work;
            }
            _ => {
                let stalled = self.pace.excess(left, steps);
                self.add(Use::Stall, stalled);
                left -= stalled;
                if stalled.is_zero() {
                    self.pace.learn(left / u32::try_from(steps).unwrap_or(u32::MAX));
                }
            }
        }
        let again = self.reached_before.map_or(0, |high| high.0.min(to.0).saturating_sub(from.0));
        let replayed = left.mul_f64(again as f64 / steps as f64);
        self.add(Use::Replay, replayed);
        self.add(Use::Productive, left.saturating_sub(replayed));
        self.at = Some(to);
    }

    /// The time since the last stretch.
    fn take(&mut self, now: Duration) -> Duration {
        let taken = now.saturating_sub(self.until) + std::mem::take(&mut self.before);
        self.until = self.until.max(now);
        taken
    }

    /// What ranks have counted themselves. They wait for each other, so the longest counts.
    fn take_told(&mut self, left: &mut Duration) {
        for (what, of) in [(Use::Save, saving as fn(&Seen) -> Duration), (Use::Restore, restoring)] {
            let ranks = self.ranks.values();
            let longest = ranks.map(|rank| of(&rank.now).saturating_sub(of(&rank.settled))).max();
            let told = longest.unwrap_or_default().min(*left);
            self.add(what, told);
            *left -= told;
        }
        for rank in self.ranks.values_mut() {
            rank.settled = rank.now;
        }
    }

    fn book(&mut self, now: Duration, what: Use) {
        let taken = self.take(now);
        self.add(what, taken);
    }

    fn add(&mut self, what: Use, time: Duration) {
        if !time.is_zero() {
            *self.settled.spent.entry(what).or_default() += time;
        }
    }
}

fn saving(seen: &Seen) -> Duration {
    seen.saving
}

fn restoring(seen: &Seen) -> Duration {
    seen.restoring
}

/// How long a step takes.
#[derive(Default)]
struct Pace(VecDeque<Duration>);

impl Pace {
    fn learn(&mut self, step: Duration) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(step);
    }

    fn usual(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    /// What of `time` so many steps don't account for.
    fn excess(&self, time: Duration, steps: u64) -> Duration {
        let Some(usual) = self.usual() else { return Duration::ZERO };
        let usual = usual * u32::try_from(steps).unwrap_or(u32::MAX);
        if time > usual * STALLS + STALLS_BY { time - usual } else { Duration::ZERO }
    }
}

#[cfg(test)]
#[path = "track_tests.rs"]
mod tests;
