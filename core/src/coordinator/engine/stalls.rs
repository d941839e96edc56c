//! Ranks that live and stand still: found from their progress lines, told once, shown until they move. Ends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use humantime::format_duration;

use super::super::stalled::{self, Pace, Standing};
use super::super::state::AttemptId;
use super::leases::Lease;
use super::{Engine, convert};
use crate::ids::{JobName, Rank, Step};
use crate::proto::v1;

/// How often lines are compared: a tenth of the shortest `stall_after` that makes sense.
const LOOK: Duration = Duration::from_millis(500);
/// Ranks that are asked for their stacks when they stall together: those of the others say the same, mostly, and can be
/// asked for.
const ASKED: usize = 8;

#[derive(Default)]
pub struct Stalls {
    /// Of the open generation.
    paces: BTreeMap<JobName, Pace>,
    looked: Duration,
    /// No line was written longer ago: while that is no stall, nobody has to be looked at.
    earliest: Duration,
    /// Ranks that were found to stand still, and have yet to be seen moving.
    known: usize,
}

/// A rank that stands still.
pub struct Stall {
    /// The warning that named it.
    told: String,
    /// What it was doing, once it has answered.
    pub stack: Option<v1::RankStack>,
}

/// What has changed of a job since it was looked at last.
#[derive(Default)]
struct Changes {
    stalled: BTreeMap<Rank, Who>,
    moving: BTreeMap<Rank, Who>,
    /// That stand still now.
    count: usize,
}

struct Who {
    incarnation: String,
    host: String,
    step: Step,
    still: Duration,
}

impl Stalls {
    /// Takes note of what a rank's line says.
    pub(super) fn follow(
        &mut self,
        lease: &mut Lease,
        progress: &v1::Progress,
        age: Option<Duration>,
        now: Duration,
    ) {
        let time = lease.line.read(now, Step(progress.step), progress.phase(), age);
        self.earliest = lease.line.moved().map_or(self.earliest, |moved| self.earliest.min(moved));
        if let Some(time) = time {
            match self.paces.get_mut(&lease.job) {
                Some(pace) => pace.learn(time),
                None => self.paces.entry(lease.job.clone()).or_default().learn(time),
            }
        }
    }

    /// Its generation has ended: the next one may be of another size, on other machines.
    pub(super) fn forget(&mut self, job: &JobName) {
        self.paces.remove(job);
    }
}

impl Engine {
    pub(super) fn check_stalls(&mut self) {
        let (now, floor) = (self.now(), self.settings.timings.stall_after);
        if floor.is_zero() || now.saturating_sub(self.stalls.looked) < LOOK {
            return;
        }
        self.stalls.looked = now;
        let open = self.state.jobs.iter().filter(|(_, known)| known.open.is_some());
        let jobs: Vec<JobName> = open.map(|(job, _)| job.clone()).collect();
        let of_job = |job: JobName| {
            let patience = self
                .stalls
                .paces
                .get(&job)
                .map_or_else(|| Pace::default().patience(floor), |pace| pace.patience(floor));
            (job, patience)
        };
        let jobs: Vec<(JobName, Duration)> = jobs.into_iter().map(of_job).collect();
        let may_stall =
            |(_, patience): &(JobName, Duration)| now.saturating_sub(self.stalls.earliest) >= *patience;
        if self.stalls.known == 0 && !jobs.iter().any(may_stall) {
            return;
        }
        let mut count = 0;
        for (job, patience) in jobs {
            let changes = self.compare(&job, patience, now);
            count += changes.count;
            self.tell_stalled(&job, changes.stalled);
            self.tell_moving(&job, changes.moving);
        }
        self.metrics.ranks_stalled.set(count as i64);
        let leases = || self.leases.by_member.values();
        self.stalls.earliest = leases().filter_map(|lease| lease.line.moved()).min().unwrap_or(now);
        self.stalls.known = leases().filter(|lease| lease.stall.is_some()).count();
    }

    fn compare(&self, job: &JobName, patience: Duration, now: Duration) -> Changes {
        let Some(open) = self.state.jobs.get(job).and_then(|known| known.open.as_ref()) else {
            return Changes::default();
        };
        let (timings, owing) = (&self.settings.timings, self.owing(job));
        let heard = open.living().filter_map(|(rank, member)| {
            let lease = self.lease_of(&member.incarnation)?;
            let (progress, at) = lease.progress.as_ref()?;
            // A worker that beats itself is silent for a whole interval between two beats.
            let own_beat = if member.node.is_none() { timings.heartbeat } else { Duration::ZERO };
            let is_fresh = now.saturating_sub(*at) <= timings.suspect_after + own_beat;
            let still = now.saturating_sub(lease.line.moved()?);
            let (step, phase) = (Step(progress.step), progress.phase());
            let owes = owing.contains(&rank);
            is_fresh.then_some((Standing { rank, step, phase, still, owes }, member, lease))
        });
        let heard: Vec<_> = heard.collect();
        let standings: Vec<Standing> = heard.iter().map(|(standing, ..)| *standing).collect();
        let stalled: BTreeSet<Rank> = stalled::stalled(&standings, patience).into_iter().collect();
        let mut changes = Changes { count: stalled.len(), ..Changes::default() };
        for (standing, member, lease) in heard {
            let changed = match (stalled.contains(&standing.rank), &lease.stall) {
                (true, None) => &mut changes.stalled,
                (false, Some(_)) => &mut changes.moving,
                _ => continue,
            };
            let Standing { rank, step, still, .. } = standing;
            let (incarnation, host) = (member.incarnation.clone(), member.host.clone());
            changed.insert(rank, Who { incarnation, host, step, still });
        }
        changes
    }

    /// Ranks that have not begun a save which others have.
    fn owing(&self, job: &JobName) -> BTreeSet<Rank> {
        let Some(known) = self.state.jobs.get(job) else { return BTreeSet::new() };
        let owing = known.attempts.iter().flat_map(|attempt| {
            let id = AttemptId { job: job.clone(), step: attempt.step, generation: attempt.generation };
            let begun = self.saves.by_id.get(&id).map(|save| &save.begun);
            attempt.ranks.iter().filter(move |rank| begun.is_some_and(|begun| !begun.contains_key(rank)))
        });
        owing.copied().collect()
    }

    fn tell_stalled(&mut self, job: &JobName, stalled: BTreeMap<Rank, Who>) {
        let Some(first) = stalled.values().next() else { return };
        let still = stalled.values().map(|who| who.still).min().unwrap_or_default();
        let usual = match self.stalls.paces.get(job).and_then(Pace::usual) {
            Some(usual) => format!("a step usually takes {}", rounded(usual)),
            None => "its first steps".to_owned(),
        };
        let names: Vec<String> =
            stalled.iter().take(ASKED).map(|(rank, who)| format!("{rank} on {}", who.host)).collect();
        let others = stalled.len() - names.len();
        let others = if others > 0 { format!(" and {others} more") } else { String::new() };
        let (noun, verb) = if stalled.len() == 1 { ("rank", "stands") } else { ("ranks", "stand") };
        let told = format!(
            "{noun} {}{others} {verb} still at step {} for {} ({usual})",
            names.join(", "),
            first.step,
            rounded(still),
        );
        for who in stalled.values() {
            if let Some(lease) = self.leases.by_member.get_mut(&who.incarnation) {
                lease.stall = Some(Box::new(Stall { told: told.clone(), stack: None }));
            }
        }
        for rank in stalled.keys().take(ASKED) {
            self.ask_stalled(job, *rank);
        }
        self.warn(job, told);
    }

    fn tell_moving(&mut self, job: &JobName, moving: BTreeMap<Rank, Who>) {
        if moving.is_empty() {
            return;
        }
        let ranks: Vec<Rank> = moving.keys().copied().collect();
        tracing::info!(%job, "no longer stalled: rank {}", convert::list(&ranks));
        let mut over = BTreeSet::new();
        for who in moving.values() {
            let lease = self.leases.by_member.get_mut(&who.incarnation);
            over.extend(lease.and_then(|lease| lease.stall.take()).map(|stall| stall.told));
        }
        let leases = self.leases.by_member.values();
        let mut still = leases.filter(|lease| lease.job == *job).filter_map(|lease| lease.stall.as_ref());
        let shown = self.warnings.get(job).filter(|told| over.contains(*told));
        if shown.is_some_and(|told| !still.any(|stall| stall.told == *told)) {
            self.warnings.remove(job);
        }
    }
}

/// To a tenth of a second, as people read it.
fn rounded(time: Duration) -> humantime::FormattedDuration {
    let step = if time < Duration::from_secs(10) { 100 } else { 1000 };
    format_duration(Duration::from_millis(time.as_millis() as u64 / step * step))
}
