//! Retention: what the rule or the hook gives up is removed one step at a time per job, by a sidecar that has the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::hooks::HookCall;
use super::super::state::{AttemptId, Command, Job, Removal};
use super::{Engine, Reply, convert};
use crate::error::{Error, Result};
use crate::ids::{JobName, Step};
use crate::proto::v1::{self, node_command::Command as Push};

/// Between two tries at a removal whose store failed.
const AGAIN: Duration = Duration::from_secs(5);
/// A removal lists and reads manifests; after this silence it is ordered again.
const ANSWER: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Retention {
    /// The one removal under way of each job.
    under_way: BTreeMap<JobName, UnderWay>,
    waiters: BTreeMap<AttemptId, Vec<Reply<u64>>>,
    freed: BTreeMap<AttemptId, u64>,
    /// Of each job the removal that failed last: the one behind it is tried next, for it may be what this one waits for.
    failed: BTreeMap<JobName, AttemptId>,
    /// Jobs that were told of a step without the metric by which the best are kept.
    told: BTreeSet<JobName>,
    /// Given up in a generation that goes on, and swept: once more when it has ended, for somebody may have been writing.
    swept: BTreeSet<AttemptId>,
}

struct UnderWay {
    id: AttemptId,
    /// As in the order.
    committed: bool,
    /// Its generation goes on.
    early: bool,
    /// Something was written since: it is made once more.
    again: bool,
    node: Option<String>,
    at: Duration,
}

impl Engine {
    /// After a commit: asks the hook where there is one, else follows the rules of the configuration.
    pub(super) fn plan_retention(&mut self, job: &JobName) {
        let Ok(known) = self.state.job(job) else { return };
        if self.hooks.is_some() {
            let steps = known.steps.iter().map(|(step, record)| convert::step_info(*step, record)).collect();
            self.hook(HookCall::Retain { job: job.clone(), steps });
            return;
        }
        self.keep_by_rule(job);
    }

    /// The rules of the configuration.
    pub(super) fn keep_by_rule(&mut self, job: &JobName) {
        self.tell_missing_metric(job);
        let Ok(known) = self.state.job(job) else { return };
        let surplus = self.settings.keep.surplus(&known.steps);
        self.give_up_steps(job, surplus);
    }

    /// Once per job: a metric that is never saved, or under another name, would keep nothing in silence.
    fn tell_missing_metric(&mut self, job: &JobName) {
        let Some(best) = &self.settings.keep.best else { return };
        let Ok(known) = self.state.job(job) else { return };
        let Some(newest) = known.newest_whole() else { return };
        let Some(missing) = best.missing_in(&known.steps[&newest]) else { return };
        if self.retention.told.insert(job.clone()) {
            self.warn(job, format!("keeping the best steps: step {newest} is not among them: {missing}"));
        }
    }

    /// The hook's answer: what it does not name goes. It was asked about `asked`; newer steps are not its to remove.
    pub(super) fn keep_named(&mut self, job: &JobName, asked: &BTreeSet<Step>, kept: &BTreeSet<Step>) {
        let surplus = asked.difference(kept).copied().collect();
        self.give_up_steps(job, surplus);
    }

    /// The newest whole step, pinned steps, bases and restores under way are refused to every policy.
    fn give_up_steps(&mut self, job: &JobName, surplus: Vec<Step>) {
        let waits = self.kept_for_targets(job, &surplus);
        for step in surplus.into_iter().filter(|step| !waits.contains(step)) {
            let Ok(known) = self.state.job(job) else { return };
            if known.removable(job, step, false).is_err() || self.is_restoring(job, step) {
                continue;
            }
            if let Err(error) = self.submit(Command::IntendRemoval { job: job.clone(), step, force: false }) {
                self.warn(job, error.message);
            }
        }
        self.redrive_removals();
    }

    pub fn delete_step(&mut self, request: &v1::DeleteStepRequest, reply: Reply<u64>) {
        let Some(reply) = self.delete_elsewhere(request, reply) else { return };
        if request.dry_run {
            let stored = self.may_delete(request);
            return self.answer(reply, stored);
        }
        match self.begin_delete(request) {
            Ok(id) => self.retention.waiters.entry(id).or_default().push(reply),
            Err(error) => self.answer(reply, Err(error)),
        }
        self.redrive_removals();
    }

    fn begin_delete(&mut self, request: &v1::DeleteStepRequest) -> Result<AttemptId> {
        let job: JobName = request.job.parse()?;
        let step = Step(request.step);
        let known = self.state.job(&job)?;
        let pending = known.removals.iter().find(|removal| removal.committed && removal.step == step);
        if let Some(removal) = pending {
            return Ok(AttemptId { job, step, generation: removal.generation });
        }
        self.may_delete(request)?;
        let generation = known.steps.get(&step).map(|record| record.generation).unwrap_or_default();
        self.submit(Command::IntendRemoval { job: job.clone(), step, force: request.force })?;
        self.doom_in_targets(&job, step);
        self.drive_targets(&job);
        Ok(AttemptId { job, step, generation })
    }

    /// Why a step can't be removed now; the bytes it stored.
    fn may_delete(&self, request: &v1::DeleteStepRequest) -> Result<u64> {
        let job: JobName = request.job.parse()?;
        let step = Step(request.step);
        let known = self.state.job(&job)?;
        known.removable(&job, step, request.force)?;
        if self.is_restoring(&job, step) {
            return Err(Error::conflict(format!(
                "removing step {step} of job {job}: a restore is reading it"
            ))
            .hint("try again when the restore is done"));
        }
        if self.remover(&job).is_none() {
            return Err(Error::unavailable(format!(
                "removing step {step} of job {job}: no sidecar is attached that could do it"
            ))
            .hint("start one that reaches the job's store: `strata sidecar`"));
        }
        Ok(known.steps.get(&step).map_or(0, |record| record.stored_bytes))
    }

    /// A node with ranks of the job has its store; any other one looks whether the store that it is told is the job's.
    pub(super) fn remover(&self, job: &JobName) -> Option<String> {
        let known = self.state.job(job).ok()?;
        let told = known.store.is_some() && known.uuid.is_some();
        let attached = || self.nodes.by_name.iter().filter(|(_, node)| node.line.is_some());
        let of_the_job = attached().find(|(_, node)| node.jobs.contains(job));
        let found = of_the_job.or_else(|| attached().next().filter(|_| told));
        found.map(|(name, _)| name.clone())
    }

    /// Starts the next removal of every job that has none under way.
    pub(super) fn redrive_removals(&mut self) {
        let idle = self.state.jobs.iter().filter(|(job, _)| !self.retention.under_way.contains_key(*job));
        let next: Vec<(JobName, Removal)> = idle
            .filter_map(|(job, known)| {
                let ready =
                    known.removals.iter().filter(|removal| self.retention.is_ready(job, known, removal));
                let ready: Vec<&Removal> = ready.collect();
                let failed = self.retention.failed.get(job);
                let failed = ready.iter().position(|removal| {
                    failed.is_some_and(|id| (removal.step, removal.generation) == (id.step, id.generation))
                });
                let next = ready.get(failed.map_or(0, |at| at + 1)).or(ready.first())?;
                Some((job.clone(), (*next).clone()))
            })
            .collect();
        for (job, removal) in next {
            self.order_removal(job, &removal);
        }
    }

    /// Whether a removal that has yet to be made, or is made once more, takes what was written just now.
    pub(super) fn is_still_swept(&mut self, id: &AttemptId) -> bool {
        if let Some(under_way) =
            self.retention.under_way.get_mut(&id.job).filter(|under_way| under_way.id == *id)
        {
            under_way.again = true;
        }
        self.is_being_swept(id)
    }

    /// Objects of this very attempt are on their way out, or will be.
    pub(super) fn is_being_swept(&self, id: &AttemptId) -> bool {
        let Ok(known) = self.state.job(&id.job) else { return false };
        known.removals.iter().any(|removal| (removal.step, removal.generation) == (id.step, id.generation))
    }

    fn order_removal(&mut self, job: JobName, removal: &Removal) {
        let Ok(known) = self.state.job(&job) else { return };
        let id = removal.id(&job);
        let early = known.may_be_written(removal);
        let remaining = known.steps.keys().map(|step| step.0).collect();
        let (store, job_uuid) = (known.store.clone(), known.uuid.map(|uuid| uuid.to_string()));
        let Some(node) = self.remover(&job) else { return };
        let order = v1::RemoveStep {
            job: job.to_string(),
            step: removal.step.0,
            generation: removal.generation.0,
            committed: removal.committed,
            remaining,
            store: store.unwrap_or_default(),
            job_uuid: job_uuid.unwrap_or_default(),
            target: String::new(),
        };
        let at = self.now() + ANSWER;
        let under_way =
            UnderWay { id, committed: removal.committed, early, again: false, node: Some(node.clone()), at };
        self.retention.under_way.insert(job, under_way);
        self.push_node(&node, Push::RemoveStep(order));
    }

    pub(super) fn removal_reported(&mut self, node: &str, done: v1::RemovalDone) {
        let Ok(job) = done.job.parse::<JobName>() else { return };
        let later = self.now() + AGAIN;
        let Some(under_way) = self.retention.under_way.get_mut(&job) else { return };
        // An order that went out twice is answered twice, and late: that must end no other removal of the number.
        let ordered = (under_way.id.step.0, under_way.id.generation.0, under_way.committed);
        if ordered != (done.step, done.generation, done.committed) || under_way.node.as_deref() != Some(node)
        {
            return;
        }
        let UnderWay { ref id, committed, early, again, .. } = *under_way;
        let id = id.clone();
        if !done.kind.is_empty() {
            (under_way.node, under_way.at) = (None, later);
            self.retention.failed.insert(job.clone(), id.clone());
            return self.warn(&job, format!("removing {id}: {} ({})", done.reason, done.kind));
        }
        self.metrics.freed_bytes.inc_by(done.freed_bytes);
        *self.retention.freed.entry(id.clone()).or_default() += done.freed_bytes;
        if !early && !again {
            if let Err(error) = self.submit(Command::Removed { id, committed: Some(committed) }) {
                self.warn(&job, error.message);
            }
            return;
        }
        if !again {
            self.retention.swept.insert(id);
        }
        self.retention.under_way.remove(&job);
        self.redrive_removals();
    }

    pub(super) fn removal_finished(&mut self, id: &AttemptId) {
        self.metrics.steps_removed.inc();
        self.retention.under_way.remove(&id.job);
        self.retention.swept.remove(id);
        let freed = self.retention.freed.remove(id).unwrap_or(0);
        for reply in self.retention.waiters.remove(id).unwrap_or_default() {
            self.answer(reply, Ok(freed));
        }
        self.redrive_removals();
    }

    pub(super) fn removals_lost_line(&mut self, node: &str) {
        self.retention.under_way.retain(|_, under_way| under_way.node.as_deref() != Some(node));
        self.redrive_removals();
    }

    pub(super) fn check_retention(&mut self) {
        let now = self.now();
        self.retention.under_way.retain(|_, under_way| under_way.at > now);
        self.redrive_removals();
    }

    pub fn pin_step(&mut self, request: &v1::PinStepRequest) -> Result<v1::StepInfo> {
        let job: JobName = request.job.parse()?;
        let step = Step(request.step);
        let holder = Some(request.holder.clone()).filter(|holder| !holder.is_empty());
        self.submit(Command::PinStep { job: job.clone(), step, pinned: request.pinned, holder })?;
        self.drive_targets(&job);
        Ok(convert::step_info(step, &self.state.job(&job)?.steps[&step]))
    }
}

impl Retention {
    /// What was given up in a generation that goes on: when a later step of it was committed, for a node writes the steps
    /// of a job one after the other.
    fn is_ready(&self, job: &JobName, known: &Job, removal: &Removal) -> bool {
        if !known.may_be_written(removal) {
            return true;
        }
        let mut later = known.steps.range(removal.step..);
        later.any(|(_, record)| record.generation == removal.generation)
            && !self.swept.contains(&removal.id(job))
    }
}
