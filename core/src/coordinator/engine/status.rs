//! What operators and look-ups are told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::compat;
use super::super::state::{AttemptId, Job, Member, Notice, StepRecord};
use super::{Engine, convert};
use crate::error::Result;
use crate::ids::{JobName, Rank, Step, WorldSize};
use crate::proto::v1;

impl Engine {
    pub fn status(&self, only: &str) -> Result<v1::Status> {
        let only: Option<JobName> = if only.is_empty() { None } else { Some(only.parse()?) };
        if let Some(job) = &only {
            self.state.job(job)?;
        }
        let now = self.now();
        let node = |(name, node): (&String, &super::nodes::Node)| v1::NodeStatus {
            node: name.clone(),
            host: node.host.clone(),
            attached: node.line.is_some(),
            silent_ms: now.saturating_sub(node.heard).as_millis() as u64,
            version: node.version.clone(),
            problem: String::new(),
        };
        let jobs = self.state.jobs.iter().filter(|(job, _)| only.as_ref().is_none_or(|only| only == *job));
        Ok(v1::Status {
            version: Some(compat::ours()),
            role: "coordinator".to_owned(),
            cluster: self.state.cluster.to_string(),
            uptime_ms: now.saturating_sub(self.started).as_millis() as u64,
            nodes: self.nodes.by_name.iter().map(node).collect(),
            jobs: jobs.map(|(job, known)| self.job_status(job, known, now)).collect(),
            coordinators: Vec::new(),
        })
    }

    fn job_status(&self, job: &JobName, known: &Job, now: Duration) -> v1::JobStatus {
        let open = known.open.as_ref();
        let members = open.into_iter().flat_map(|open| open.members.iter());
        let living = members.map(|(rank, member)| self.rank_status(*rank, member, false, now));
        let lost = known.last_ended.iter().filter(|_| open.is_none()).flat_map(|ended| &ended.lost);
        let lost = lost.filter(|lost| !known.forming.contains_key(&lost.rank)).map(|lost| v1::RankStatus {
            rank: lost.rank.0,
            host: lost.host.clone(),
            node: lost.node.clone().unwrap_or_else(|| convert::DIRECT.to_owned()),
            state: "lost".to_owned(),
            progress: None,
            stack: None,
        });
        let joining = known.forming.iter().map(|(rank, member)| self.rank_status(*rank, member, true, now));
        v1::JobStatus {
            job: job.to_string(),
            job_uuid: known.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
            store: known.store.clone().unwrap_or_default(),
            generation: open.map_or(0, |open| open.generation.0),
            world_size: known.world.0,
            ranks: living.chain(joining).chain(lost).collect(),
            missing_ranks: if open.is_some() { Vec::new() } else { convert::ranks(known.missing()) },
            pending: self.pending(job, known),
            latest_step: known.newest_whole().map(|step| step.0),
            committed_steps: known.steps.len() as u32,
            last_warning: self.warnings.get(job).cloned().unwrap_or_default(),
            targets: self.target_statuses(job),
        }
    }

    fn rank_status(&self, rank: Rank, member: &Member, joining: bool, now: Duration) -> v1::RankStatus {
        let lease = self.lease_of(&member.incarnation);
        let silent = lease.map_or(Duration::ZERO, |lease| now.saturating_sub(lease.heard));
        // A worker that beats itself is silent for a whole interval between two beats.
        let own_beat = if member.node.is_none() { self.settings.timings.heartbeat } else { Duration::ZERO };
        let suspect = lease.is_some_and(|lease| lease.suspect)
            || silent > self.settings.timings.suspect_after + own_beat;
        let stall = lease.and_then(|lease| lease.stall.as_ref());
        let state = match (member.left, joining, suspect) {
            (true, ..) => "left",
            (_, _, true) => "suspect",
            (_, true, _) => "joining",
            _ if stall.is_some() => "stalled",
            _ => "live",
        };
        let progress = lease.and_then(|lease| lease.progress.as_ref()).map(|(progress, at)| v1::Progress {
            age_ms: progress.age_ms + now.saturating_sub(*at).as_millis() as u64,
            ..*progress
        });
        v1::RankStatus {
            rank: rank.0,
            host: member.host.clone(),
            node: member.node.clone().unwrap_or_else(|| convert::DIRECT.to_owned()),
            state: state.to_owned(),
            progress,
            stack: stall.and_then(|stall| stall.stack.clone()),
        }
    }

    fn pending(&self, job: &JobName, known: &Job) -> Vec<v1::PendingStep> {
        let one = |attempt: &super::super::state::Attempt| {
            let id = AttemptId { job: job.clone(), step: attempt.step, generation: attempt.generation };
            let progress = self.saves.by_id.get(&id);
            v1::PendingStep {
                step: attempt.step.0,
                generation: attempt.generation.0,
                sealed: progress.map(|p| convert::ranks(p.sealed.keys().copied())).unwrap_or_default(),
                durable: progress.map(|p| convert::ranks(p.durable.keys().copied())).unwrap_or_default(),
                missing: convert::ranks(self.missing(&id)),
            }
        };
        known.attempts.iter().map(one).collect()
    }

    pub fn recovery(&self, job: &str) -> Result<v1::RecoveryInfo> {
        let job: JobName = job.parse()?;
        let known = self.state.job(&job)?;
        Ok(v1::RecoveryInfo {
            current: known.open.as_ref().map(|open| convert::generation(&job, known, open)),
            latest_step: known.newest_whole().map(|step| step.0),
            adopted_steps: known
                .attempts
                .iter()
                .filter(|a| a.adopted_by.is_some())
                .map(|a| a.step.0)
                .collect(),
            last_ended: known.last_ended.as_ref().map(|ended| convert::ended(&job, ended)),
            missing_ranks: if known.open.is_some() { Vec::new() } else { convert::ranks(known.missing()) },
        })
    }

    /// The newest committed whole step; where nothing was ever committed, the newest one that was told of.
    pub fn latest_step(&self, job: &str) -> Result<Option<u64>> {
        let job: JobName = job.parse()?;
        let known = self.state.job(&job)?;
        let steps = self.restorable(&job);
        let newest = steps.iter().rev().find(|(_, found)| found.is_whole);
        let told = || known.notices.iter().rev().find(|(_, notice)| notice.kind.holds_whole_state());
        let told = || told().filter(|_| steps.is_empty()).map(|(step, _)| *step);
        Ok(newest.map(|(step, _)| *step).or_else(told).map(|step| step.0))
    }

    pub fn steps(&self, job: &str) -> Result<Vec<v1::StepInfo>> {
        let job: JobName = job.parse()?;
        let known = self.state.job(&job)?;
        let one = |(step, record): (&Step, &StepRecord)| {
            let info = convert::step_info(*step, record);
            self.with_targets(&job, info, !known.steps.contains_key(step))
        };
        let elsewhere = self.elsewhere(&job);
        let all: BTreeMap<&Step, &StepRecord> = elsewhere.iter().chain(&known.steps).collect();
        Ok(all.into_iter().map(one).collect())
    }

    pub fn step(&self, job: &str, step: u64) -> Result<v1::StepInfo> {
        let job: JobName = job.parse()?;
        let (known, step) = (self.state.job(&job)?, Step(step));
        match (known.steps.get(&step), known.notices.get(&step)) {
            (Some(record), _) => Ok(self.with_targets(&job, convert::step_info(step, record), false)),
            (None, _) if let Some(info) = self.info_elsewhere(&job, step) => Ok(info),
            (None, Some(notice)) => Ok(told(step, notice, known.world)),
            (None, None) => Err(known.no_such_step(&job, step, "looking up")),
        }
    }
}

/// A checkpoint made elsewhere: its paths are all that is known.
fn told(step: Step, notice: &Notice, world: WorldSize) -> v1::StepInfo {
    let paths: serde_json::Map<String, serde_json::Value> =
        notice.parts.iter().map(|(rank, (path, _))| (rank.to_string(), path.as_str().into())).collect();
    v1::StepInfo {
        step: step.0,
        kind: v1::SaveKind::from(notice.kind).into(),
        world_size: world.0,
        bytes: notice.parts.values().map(|(_, bytes)| bytes).sum(),
        meta_json: serde_json::json!({ "paths": paths }).to_string(),
        ..Default::default()
    }
}
