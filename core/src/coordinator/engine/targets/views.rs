//! What others see of the targets: steps that only they have, how far each is behind, and a person's removals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::super::state::{Command, StepRecord};
use super::plan;
use crate::coordinator::engine::{Engine, Reply, convert};
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, Step};
use crate::proto::v1;
use crate::telemetry::TargetLabels;

/// A committed step, as far as a restore chooses by it.
#[derive(Clone, Copy)]
pub struct Restorable {
    /// Of the attempt.
    pub generation: Generation,
    pub is_whole: bool,
}

/// After this a target that is being listed counts as one that is away.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is not known of a job's targets.
pub struct Unlisted {
    /// False: no sidecar has said yet which targets there are.
    is_told: bool,
    /// Each with why, as far as that is known.
    targets: Vec<(String, Option<String>)>,
}

impl Unlisted {
    pub fn is_empty(&self) -> bool {
        self.is_told && self.targets.is_empty()
    }

    /// Whether it will be known in a moment: something is being asked and has not failed.
    pub fn is_coming(&self) -> bool {
        !self.is_told || self.targets.iter().any(|(_, why)| why.is_none())
    }

    /// The targets by name, each with why.
    pub fn named(&self) -> String {
        if !self.is_told {
            return "its further targets: no sidecar of it is attached".to_owned();
        }
        let one = |(name, why): &(String, Option<String>)| match why {
            Some(why) => format!("{name} ({why})"),
            None => name.clone(),
        };
        self.targets.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// For who is given the newest step that is known.
    pub fn note(&self) -> Option<String> {
        let plural = if self.targets.len() == 1 { "target" } else { "targets" };
        (!self.targets.is_empty()).then(|| {
            format!(
                "{plural} {} could not be listed: a newer step that is only there is not known",
                self.named()
            )
        })
    }
}

impl Engine {
    /// Steps that the first store does not have and a target has.
    pub(in super::super) fn elsewhere(&self, job: &JobName) -> BTreeMap<Step, StepRecord> {
        let Ok(known) = self.state.job(job) else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        for (_, target) in self.targets_of(job) {
            for (step, record) in target.steps.iter().flatten() {
                if !known.steps.contains_key(step) && !known.is_doomed(&target.name, *step) {
                    found.entry(*step).or_insert_with(|| record.clone());
                }
            }
        }
        found
    }

    /// Targets that nobody has listed yet.
    pub(in super::super) fn unlisted(&mut self, job: &JobName) -> Unlisted {
        self.take_targets(job);
        let is_told = self.copier(job).is_some() || !self.has_nodes(job);
        let now = self.now();
        let unlisted = self.targets_of(job).filter(|(_, target)| target.steps.is_none());
        let why = |target: &super::Target| {
            let silent = target.busy.as_ref().is_some_and(|busy| now.saturating_sub(busy.since) > PATIENCE);
            let silent = || silent.then(|| format!("no answer for {}s", PATIENCE.as_secs()));
            target.filling.problem.clone().or_else(silent)
        };
        let targets = unlisted.map(|(name, target)| (name.clone(), why(target))).collect();
        Unlisted { is_told, targets }
    }

    /// Whether ranks of the open generation came through sidecars, which say which targets there are.
    fn has_nodes(&self, job: &JobName) -> bool {
        let open = self.state.job(job).ok().and_then(|known| known.open.as_ref());
        open.is_some_and(|open| open.living().any(|(_, member)| member.node.is_some()))
    }

    /// Adds where else a step is.
    pub(in super::super) fn with_targets(
        &self,
        job: &JobName,
        info: v1::StepInfo,
        elsewhere: bool,
    ) -> v1::StepInfo {
        let Ok((step, record)) = convert::record(info.clone()) else { return info };
        let holders = self.targets_of(job).filter(|(_, target)| target.has_attempt(step, &record));
        v1::StepInfo { targets: holders.map(|(name, _)| name.clone()).collect(), elsewhere, ..info }
    }

    pub(in super::super) fn target_statuses(&self, job: &JobName) -> Vec<v1::TargetStatus> {
        let Ok(known) = self.state.job(job) else { return Vec::new() };
        let one = |(name, target): (&String, &super::Target)| {
            let steps = target.steps.iter().flatten();
            let newest =
                steps.filter(|(_, record)| record.kind.holds_whole_state()).map(|(step, _)| step.0).max();
            v1::TargetStatus {
                name: name.clone(),
                url: target.url.clone(),
                steps: target.steps.as_ref().map_or(0, |steps| steps.len() as u32),
                behind: plan::lacking(known, target, &plan::wanted(known, target)).len() as u32,
                latest_step: newest,
                copying: target.copying().map(|step| step.0),
                known: target.steps.is_some(),
                problem: target.problem().cloned().unwrap_or_default(),
            }
        };
        self.targets_of(job).map(one).collect()
    }

    pub(super) fn count_behind(&self, job: &JobName) {
        let Ok(known) = self.state.job(job) else { return };
        for (name, target) in self.targets_of(job) {
            let labels = TargetLabels { job: job.to_string(), target: name.clone() };
            let behind = plan::lacking(known, target, &plan::wanted(known, target)).len();
            self.metrics.target_behind.get_or_create(&labels).set(behind as i64);
        }
    }

    /// A person's removal means the step, wherever it is. Logged with the removal itself, in one batch.
    pub(in super::super) fn doom_in_targets(&mut self, job: &JobName, step: Step) {
        self.take_targets(job);
        let targets: BTreeSet<String> = self.targets_of(job).map(|(name, _)| name.clone()).collect();
        if !targets.is_empty()
            && let Err(error) = self.submit(Command::Doom { job: job.clone(), step, targets })
        {
            self.warn(job, error.message);
        }
    }

    /// A number that is saved anew is another step: it goes where the old one is not, or is not any more.
    pub(in super::super) fn forget_doom(&mut self, job: &JobName, step: Step) {
        for target in self.targets.by_job.get_mut(job).into_iter().flat_map(|targets| targets.values_mut()) {
            target.refused.remove(&step);
        }
        self.settle_dooms(job);
    }

    pub(super) fn settle_dooms(&mut self, job: &JobName) {
        let Ok(known) = self.state.job(job) else { return };
        let ended = self.targets_of(job).flat_map(|(name, target)| {
            target.ended_dooms(known).into_iter().map(|step| (name.clone(), step))
        });
        for (target, step) in ended.collect::<Vec<_>>() {
            if let Err(error) = self.submit(Command::DoomEnded { job: job.clone(), step, target }) {
                self.warn(job, error.message);
            }
        }
    }

    /// None: it is not one that only targets have. Ends when none has it any more.
    pub(in super::super) fn delete_elsewhere(
        &mut self,
        request: &v1::DeleteStepRequest,
        reply: Reply<u64>,
    ) -> Option<Reply<u64>> {
        let Ok(job) = request.job.parse::<JobName>() else { return Some(reply) };
        let step = Step(request.step);
        // Asked again, after a coordinator's restart: it waits for what goes on.
        if !request.dry_run && self.is_going_elsewhere(&job, step) {
            self.targets.waiters.push((job, step, reply));
            return None;
        }
        let elsewhere = self.elsewhere(&job);
        let Some(record) = elsewhere.get(&step) else { return Some(reply) };
        let stored = record.stored_bytes;
        let newest = self.restorable(&job).into_iter().rev().find(|(_, found)| found.is_whole);
        if newest.is_some_and(|(newest, _)| newest == step) && !request.force {
            let error =
                Error::conflict(format!("removing step {step} of job {job}: it is the newest whole step"));
            self.answer(reply, Err(error.hint("force removes it all the same")));
            return None;
        }
        if self.is_restoring(&job, step) {
            let error =
                Error::conflict(format!("removing step {step} of job {job}: a restore is reading it"));
            self.answer(reply, Err(error.hint("try again when the restore is done")));
            return None;
        }
        if request.dry_run {
            self.answer(reply, Ok(stored));
            return None;
        }
        self.doom_in_targets(&job, step);
        self.targets.waiters.push((job.clone(), step, reply));
        self.drive_targets(&job);
        None
    }

    /// A step that the first store does not have, a target has, and a person removed.
    fn is_going_elsewhere(&self, job: &JobName, step: Step) -> bool {
        let Ok(known) = self.state.job(job) else { return false };
        let is_going = |target: &super::Target| target.has(step) && known.is_doomed(&target.name, step);
        !known.steps.contains_key(&step)
            && !plan::is_being_removed(known, step)
            && self.targets_of(job).any(|(_, target)| is_going(target))
    }

    pub(super) fn answer_target_waiters(&mut self, job: &JobName) {
        let waiters = std::mem::take(&mut self.targets.waiters);
        let (ended, waiting): (Vec<_>, Vec<_>) = waiters.into_iter().partition(|(name, step, _)| {
            name == job && !self.targets_of(job).any(|(_, target)| target.has(*step))
        });
        self.targets.waiters = waiting;
        for (.., reply) in ended {
            self.answer(reply, Ok(0));
        }
    }

    /// Every committed step, wherever it is.
    pub(in super::super) fn restorable(&self, job: &JobName) -> BTreeMap<Step, Restorable> {
        let one = |(step, record): (&Step, &StepRecord)| {
            let is_whole = record.kind.holds_whole_state();
            (*step, Restorable { generation: record.generation, is_whole })
        };
        let mut all: BTreeMap<Step, Restorable> = self.elsewhere(job).iter().map(one).collect();
        all.extend(self.state.job(job).into_iter().flat_map(|known| &known.steps).map(one));
        all
    }

    /// Conflict when a target has a step of this number that the first store lacks: it is another one.
    pub(in super::super) fn check_number_elsewhere(&self, job: &JobName, step: Step) -> Result<()> {
        let Ok(known) = self.state.job(job) else { return Ok(()) };
        let taken =
            self.targets_of(job).find(|(_, target)| target.has(step) && !known.is_doomed(&target.name, step));
        match taken {
            Some((name, _)) if !known.steps.contains_key(&step) => {
                Err(Error::conflict(format!("saving step {step}: it is already committed, in target {name}"))
                    .hint("restore first, so that training goes on behind it; or remove the step"))
            }
            _ => Ok(()),
        }
    }

    pub(in super::super) fn info_elsewhere(&self, job: &JobName, step: Step) -> Option<v1::StepInfo> {
        let record = self.elsewhere(job).remove(&step)?;
        Some(self.with_targets(job, convert::step_info(step, &record), true))
    }
}
