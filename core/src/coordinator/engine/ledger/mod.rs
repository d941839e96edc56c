//! The goodput ledger: where every second of a job goes. What is settled is logged with what ends a stretch, and once
//! a minute; a killed coordinator forgets at most that, and nothing of a generation that stays open.

mod track;

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::state::{Command, Ledger, Use};
use super::Engine;
use crate::error::Result;
use crate::ids::{Generation, JobName, Rank};
use crate::proto::v1;
use crate::telemetry::JobUseLabels;
use track::{Seen, Settled, Track};

/// How often what is settled is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// A wall clock that says more than this between two coordinators is not believed.
const LONGEST_AWAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Default)]
pub struct Ledgers {
    tracks: BTreeMap<JobName, Track>,
    /// How long those had been silent who are being lost.
    silent: Duration,
    logged: Duration,
}

impl Engine {
    /// Jobs that were open, or had lost a rank, before this coordinator began.
    pub(super) fn resume_ledgers(&mut self) {
        let (now, wall) = (self.now(), self.unix_ms());
        for (job, known) in &self.state.jobs {
            let away = Duration::from_millis(wall.saturating_sub(known.ledger.until_unix_ms));
            let before = if known.ledger.is_empty() || away > LONGEST_AWAY { Duration::ZERO } else { away };
            let was_lost = known.last_ended.as_ref().is_some_and(|ended| !ended.lost.is_empty());
            let track = match known.open.is_some() {
                true => Track::resumed_open(now, before, known.ledger.reached),
                false if was_lost => Track::resumed_lost(now, before, known.ledger.reached),
                false => continue,
            };
            self.ledgers.tracks.insert(job.clone(), track);
        }
    }

    fn track(&mut self, job: &JobName) -> &mut Track {
        let reached = self.state.job(job).ok().and_then(|known| known.ledger.reached);
        self.ledgers.tracks.entry(job.clone()).or_insert_with(|| Track::new(reached))
    }

    pub(super) fn ledger_registered(&mut self, job: &JobName) {
        let now = self.now();
        self.track(job).registered(now);
    }

    pub(super) fn ledger_opened(&mut self, job: &JobName) {
        let now = self.now();
        self.track(job).opened(now);
        self.log_ledger(job);
    }

    pub(super) fn ledger_ended(&mut self, job: &JobName, is_loss: bool) {
        let (now, silent) = (self.now(), self.ledgers.silent);
        match is_loss {
            true => self.track(job).lost(now, silent),
            false => self.track(job).closed(now),
        }
        self.log_ledger(job);
    }

    /// These are about to be lost because they were silent: for so long nobody knew. A proof of a death comes at once.
    pub(super) fn ledger_silence(&mut self, lost: &BTreeMap<Rank, String>) {
        let now = self.now();
        let heard = lost.values().filter_map(|who| self.lease_of(who)).map(|lease| lease.heard).min();
        self.ledgers.silent = heard.map_or(Duration::ZERO, |at| now.saturating_sub(at));
    }

    /// A loss of registrations alone ends no generation: its silence is not the next loss's.
    pub(super) fn ledger_heard(&mut self) {
        self.ledgers.silent = Duration::ZERO;
    }

    /// A member of the open generation says where it is.
    pub(super) fn ledger_seen(&mut self, job: &JobName, generation: Generation, progress: &v1::Progress) {
        let open = self.state.job(job).ok().and_then(|known| known.open.as_ref());
        if open.is_none_or(|open| open.generation != generation) {
            return;
        }
        let named = progress.phase() != v1::RankPhase::Unspecified && progress.step > 0;
        let seen = Seen {
            step: named.then_some(progress.step.into()),
            saving: Duration::from_millis(progress.saving_ms),
            restoring: Duration::from_millis(progress.restoring_ms),
        };
        let now = self.now();
        self.track(job).seen(now, Rank(progress.rank), seen);
    }

    /// Processes of a generation that has ended are still there.
    pub(super) fn ledger_lingers(&mut self, job: &JobName) {
        let now = self.now();
        self.track(job).lingers(now);
    }

    pub(super) fn ledger_saved(&mut self, job: &JobName) {
        self.track(job).settled.saves += 1;
    }

    pub(super) fn check_ledgers(&mut self) {
        let now = self.now();
        if now.saturating_sub(self.ledgers.logged) < LOG_EVERY {
            return;
        }
        self.ledgers.logged = now;
        let jobs: Vec<JobName> = self.ledgers.tracks.keys().cloned().collect();
        jobs.iter().for_each(|job| self.log_ledger(job));
    }

    /// What is less than a millisecond waits for more.
    fn log_ledger(&mut self, job: &JobName) {
        let until_unix_ms = self.unix_ms();
        let Some(track) = self.ledgers.tracks.get_mut(job) else { return };
        let mut spent = BTreeMap::new();
        for (what, time) in &mut track.settled.spent {
            let whole = time.as_millis() as u64;
            *time -= Duration::from_millis(whole);
            if whole > 0 {
                spent.insert(*what, whole);
            }
        }
        let losses = std::mem::take(&mut track.settled.losses);
        let saves = std::mem::take(&mut track.settled.saves);
        if spent.is_empty() && losses == 0 && saves == 0 {
            return;
        }
        for (what, milliseconds) in &spent {
            let labels = JobUseLabels { job: job.to_string(), spent_on: what.name() };
            self.metrics.job_time.get_or_create(&labels).inc_by(*milliseconds as f64 / 1000.0);
        }
        let since_unix_ms = until_unix_ms.saturating_sub(spent.values().sum());
        let reached = track.reached();
        let more = Ledger { since_unix_ms, until_unix_ms, spent, losses, saves, reached };
        if let Err(error) = self.submit(Command::Account { job: job.clone(), more: Box::new(more) }) {
            self.warn(job, error.message);
        }
    }

    /// Of one job, or of all. NotFound for a job that is not known.
    pub fn goodput(&self, only: &str) -> Result<v1::Goodput> {
        let only: Option<JobName> = if only.is_empty() { None } else { Some(only.parse()?) };
        if let Some(job) = &only {
            self.state.job(job)?;
        }
        let jobs = self.state.jobs.keys().filter(|job| only.as_ref().is_none_or(|only| only == *job));
        Ok(v1::Goodput { jobs: jobs.map(|job| self.job_goodput(job)).collect() })
    }

    fn job_goodput(&self, job: &JobName) -> v1::JobGoodput {
        let ledger = self.ledger_of(job).unwrap_or_default();
        let of = |what| v1::TimeSpent {
            r#use: Use::name(what).to_owned(),
            ms: ledger.spent.get(&what).map_or(0, |time| time.as_millis() as u64),
        };
        v1::JobGoodput {
            job: job.to_string(),
            since_unix_ms: self.state.job(job).map_or(0, |known| known.ledger.since_unix_ms),
            spent: Use::ALL.map(of).to_vec(),
            losses: ledger.losses,
            saves: ledger.saves,
            save_interval_ms: self.save_interval(job).map_or(0, |interval| interval.as_millis() as u64),
        }
    }

    /// Up to this moment. None: nobody has joined the job since there are ledgers.
    pub(super) fn ledger_of(&self, job: &JobName) -> Option<Settled> {
        let logged = &self.state.job(job).ok()?.ledger;
        let track = self.ledgers.tracks.get(job);
        if track.is_none() && logged.is_empty() {
            return None;
        }
        let spent = logged.spent.iter().map(|(what, ms)| (*what, Duration::from_millis(*ms))).collect();
        let mut all = Settled { spent, losses: logged.losses, saves: logged.saves };
        if let Some(track) = track {
            let open = track.unsettled(self.now());
            for (what, time) in track.settled.spent.iter().map(|(what, time)| (*what, *time)).chain(open) {
                *all.spent.entry(what).or_default() += time;
            }
            all.losses += track.settled.losses;
            all.saves += track.settled.saves;
        }
        Some(all)
    }
}
