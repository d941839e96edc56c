//! Leases of members, in the coordinator's monotonic clock, extended by its own pauses. Not logged: after a restart
//! everyone gets a whole one.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::super::stalled::Line;
use super::super::state::Command;
use super::stalls::Stall;
use super::{Engine, TICK};
use crate::ids::{JobName, Rank};
use crate::proto::v1;

/// A member's incarnation.
type Who = String;

pub struct Leases {
    pub(super) by_member: HashMap<Who, Lease>,
    last_tick: Duration,
    /// None ends before. Looking at all of 100,000 leases takes longer than a barrier may.
    soonest: Duration,
}

pub struct Lease {
    pub job: JobName,
    pub rank: Rank,
    pub until: Duration,
    pub heard: Duration,
    pub progress: Option<(v1::Progress, Duration)>,
    pub line: Line,
    /// It stands still.
    /// Boxed: of 100,000 leases few have one.
    pub stall: Option<Box<Stall>>,
    /// Its sidecar says that its session's line has ended.
    pub suspect: bool,
}

impl Leases {
    pub fn new(now: Duration) -> Leases {
        Leases { by_member: HashMap::new(), last_tick: now, soonest: Duration::MAX }
    }
}

impl Engine {
    pub(super) fn lease_everyone(&mut self) {
        let mut found = Vec::new();
        for (job, known) in &self.state.jobs {
            let living = known.open.iter().flat_map(|open| open.living());
            let forming = known.forming.iter().map(|(rank, member)| (*rank, member));
            found.extend(living.chain(forming).map(|(rank, m)| (job.clone(), rank, m.incarnation.clone())));
        }
        for (job, rank, incarnation) in found {
            self.lease(job, rank, incarnation);
        }
    }

    pub(super) fn lease(&mut self, job: JobName, rank: Rank, incarnation: String) {
        let now = self.now();
        let until = now + self.settings.timings.lease;
        let (line, stall) = (Line::default(), None);
        let lease = Lease { job, rank, until, heard: now, progress: None, line, stall, suspect: false };
        self.leases.soonest = self.leases.soonest.min(until);
        self.leases.by_member.insert(incarnation, lease);
    }

    /// Members have left or were told that they are none any more: their leases go with the next tick.
    pub(super) fn leases_ended(&mut self) {
        self.leases.soonest = Duration::ZERO;
    }

    pub(super) fn lease_of(&self, incarnation: &str) -> Option<&Lease> {
        self.leases.by_member.get(incarnation)
    }

    /// A sign of life of one member. Of a worker that speaks for itself: it does not say how old its progress is.
    pub(super) fn beat(&mut self, incarnation: &str, progress: Option<v1::Progress>) {
        self.sign_of_life(incarnation, progress, None);
    }

    /// The same from its sidecar, with what its progress line says.
    pub(super) fn beat_with_line(&mut self, incarnation: &str, progress: v1::Progress) {
        let age = Duration::from_millis(progress.age_ms);
        self.sign_of_life(incarnation, Some(progress), Some(age));
    }

    fn sign_of_life(&mut self, incarnation: &str, progress: Option<v1::Progress>, age: Option<Duration>) {
        let (now, lease_for) = (self.now(), self.settings.timings.lease);
        let until = now + lease_for;
        if let Some(lease) = self.leases.by_member.get_mut(incarnation) {
            (lease.until, lease.heard, lease.suspect) = (until, now, false);
            // The time of a lease may have been made shorter.
            self.leases.soonest = self.leases.soonest.min(until);
            if let Some(progress) = progress {
                self.stalls.follow(lease, &progress, age, now);
                lease.progress = Some((progress, now));
            }
        }
    }

    pub(super) fn suspect(&mut self, incarnation: &str) {
        if let Some(lease) = self.leases.by_member.get_mut(incarnation) {
            lease.suspect = true;
        }
    }

    /// A frame of a node is a sign of life of every session it vouches for.
    pub(super) fn extend_leases(&mut self, node: &str) {
        let Some(sessions) = self.nodes.by_name.get(node).map(|node| node.sessions.clone()) else { return };
        for (job, rank) in sessions {
            for incarnation in self.incarnations_at(&job, rank, node) {
                self.beat(&incarnation, None);
            }
        }
    }

    /// The open membership and the registration of a rank that came through this node.
    pub(super) fn incarnations_at(&self, job: &JobName, rank: Rank, node: &str) -> Vec<String> {
        let Ok(known) = self.state.job(job) else { return Vec::new() };
        let open = known.open.as_ref().and_then(|open| open.members.get(&rank)).filter(|member| !member.left);
        [open, known.forming.get(&rank)]
            .into_iter()
            .flatten()
            .filter(|member| member.node.as_deref() == Some(node))
            .map(|member| member.incarnation.clone())
            .collect()
    }

    /// Ends what has been silent for a whole lease. The coordinator's own pauses are nobody's silence.
    pub(super) fn check_leases(&mut self) {
        let now = self.now();
        let gap = now.saturating_sub(self.leases.last_tick);
        self.leases.last_tick = now;
        if gap > 2 * TICK {
            for lease in self.leases.by_member.values_mut() {
                lease.until += gap;
                lease.heard += gap;
            }
            for node in self.nodes.by_name.values_mut() {
                node.heard += gap;
            }
            self.leases.soonest = self.leases.soonest.saturating_add(gap);
        }
        if now < self.leases.soonest {
            return;
        }
        let mut soonest = Duration::MAX;
        let mut expired: BTreeMap<JobName, BTreeMap<Rank, String>> = BTreeMap::new();
        let known = &self.state.jobs;
        self.leases.by_member.retain(|incarnation, lease| {
            let member = known.get(&lease.job).and_then(|job| job.by_incarnation(lease.rank, incarnation));
            let alive = member.is_some_and(|member| !member.left);
            if alive && lease.until <= now {
                expired.entry(lease.job.clone()).or_default().insert(lease.rank, incarnation.clone());
            }
            let stays = alive && lease.until > now;
            if stays {
                soonest = soonest.min(lease.until);
            }
            stays
        });
        self.leases.soonest = soonest;
        let lease = self.settings.timings.lease;
        for (job, lost) in expired {
            let ranks: Vec<Rank> = lost.keys().copied().collect();
            let reason =
                format!("rank {} was silent for its lease of {lease:?}", super::convert::list(&ranks));
            self.ledger_silence(&lost);
            self.lose(&job, lost, reason);
            self.ledger_heard();
        }
    }

    pub(super) fn lose(&mut self, job: &JobName, lost: BTreeMap<Rank, String>, reason: String) {
        self.metrics.ranks_lost.inc_by(lost.len() as u64);
        for (rank, incarnation) in &lost {
            self.leases.by_member.remove(incarnation);
            let member = self.state.job(job).ok().and_then(|known| known.by_incarnation(*rank, incarnation));
            let node = member.and_then(|member| member.node.as_ref());
            if let Some(node) = node.and_then(|name| self.nodes.by_name.get_mut(name)) {
                node.sessions.remove(&(job.clone(), *rank));
            }
        }
        if let Err(error) = self.submit(Command::Lose { job: job.clone(), lost, reason }) {
            self.warn(job, error.message);
        }
    }
}
