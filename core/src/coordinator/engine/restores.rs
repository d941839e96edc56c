//! Collective restores: one answer per (job, generation, round), the same for all ranks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::state::{Asked, Attempt, AttemptId, Command, Job, Resolved};
use super::targets::{Restorable, Unlisted};
use super::{Engine, Reply, convert};
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, Step};
use crate::proto::v1;

/// How long a restore waits for an adopted step on its way to COMMIT: half the caller's time, and no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Restores {
    waiting: Vec<Waiter>,
}

#[derive(Clone, Copy)]
struct Decided {
    step: Step,
    /// Of the attempt that holds it.
    generation: Generation,
}

struct Waiter {
    request: v1::ResolveRestoreRequest,
    until: Duration,
    reply: Reply<v1::ResolveRestoreReply>,
}

impl Engine {
    pub fn resolve_restore(
        &mut self,
        request: v1::ResolveRestoreRequest,
        reply: Reply<v1::ResolveRestoreReply>,
    ) {
        let half = Duration::from_millis(request.timeout_ms / 2).min(LONGEST_WAIT);
        let until = self.now() + half;
        self.restores.waiting.push(Waiter { request, until, reply });
        self.answer_restores();
    }

    pub(super) fn restores_changed(&mut self, job: &JobName) {
        if self
            .restores
            .waiting
            .iter()
            .any(|waiter| waiter.request.caller.as_ref().is_some_and(|c| c.job == job.as_str()))
        {
            self.answer_restores();
        }
    }

    pub(super) fn restores_tick(&mut self) {
        if !self.restores.waiting.is_empty() {
            self.answer_restores();
        }
    }

    fn answer_restores(&mut self) {
        let now = self.now();
        for waiter in std::mem::take(&mut self.restores.waiting) {
            match self.resolve(&waiter.request, waiter.until <= now) {
                Ok(None) => self.restores.waiting.push(waiter),
                Ok(Some(answer)) => self.answer(waiter.reply, Ok(answer)),
                Err(error) => self.answer(waiter.reply, Err(error)),
            }
        }
    }

    /// None: an adopted step that may be the answer is on its way; wait.
    fn resolve(
        &mut self,
        request: &v1::ResolveRestoreRequest,
        patience_over: bool,
    ) -> Result<Option<v1::ResolveRestoreReply>> {
        let (job, generation, _) = self.member(request.caller.clone())?;
        let asked: Asked = (request.round, request.step.map(Step), request.source);
        let told: BTreeSet<Step> = request.damaged.iter().copied().map(Step).collect();
        let stands = self.state.job(&job)?.open.as_ref().and_then(|open| open.resolved(&asked));
        if let Some(stands) = stands
            && stands.found.is_none_or(|(step, _)| !told.contains(&step))
        {
            return Ok(Some(self.restore_reply(&job, stands)));
        }
        let mut damaged = stands.map(|stands| stands.damaged.clone()).unwrap_or_default();
        damaged.extend(told);
        let unlisted = self.unlisted(&job);
        let known = self.state.job(&job)?;
        // Also what the first store does not have any more and a further target has.
        let steps = self.restorable(&job);
        let staged = request.source() == v1::RestoreSource::Staged;
        let candidates = self.candidates(&job, known, &damaged);
        let is_there = |step: &Step| steps.contains_key(step) && !damaged.contains(step);
        // What a target holds may be the answer, and is known in a moment.
        let is_coming = unlisted.is_coming() && !request.step.map(Step).as_ref().is_some_and(is_there);
        if is_coming && !patience_over {
            return Ok(None);
        }
        let decided = match (request.step.map(Step), staged) {
            // Named, and damaged: the one before it.
            (Some(step), _) if damaged.contains(&step) => newest_before(&steps, &damaged, step),
            (Some(step), _) => {
                let patient = !patience_over && !unlisted.is_empty() && !steps.contains_key(&step);
                let there = steps.get(&step).map(|record| Decided { step, generation: record.generation });
                let asked = there.map_or_else(
                    || self.named_step(&job, known, step, &candidates, staged, patience_over),
                    |there| Ok(Some(there)),
                );
                match if patient { None } else { asked? } {
                    Some(decided) => Some(decided),
                    None => return Ok(None),
                }
            }
            (None, _) => {
                let newest = steps
                    .iter()
                    .rev()
                    .find(|(step, record)| record.is_whole && !damaged.contains(step))
                    .map(|(step, record)| Decided { step: *step, generation: record.generation });
                let newer =
                    candidates.iter().rev().find(|c| newest.is_none_or(|newest| c.step > newest.step));
                match newer {
                    Some(newer) if staged => Some(*newer),
                    Some(_) if !patience_over => return Ok(None),
                    // The first store may have been lost: to begin anew is for who knows that no target has a step.
                    None if newest.is_none() && !unlisted.is_empty() => match patience_over {
                        false => return Ok(None),
                        true => return Err(not_listed(&job, &unlisted)),
                    },
                    _ => newest,
                }
            }
        };
        let is_newest_known = request.step.is_none_or(|step| damaged.contains(&Step(step)));
        let resolved = Resolved {
            asked,
            found: decided.map(|decided| (decided.step, decided.generation)),
            damaged,
            notes: unlisted.note().filter(|_| is_newest_known).into_iter().collect(),
        };
        let reply = self.restore_reply(&job, &resolved);
        self.submit(Command::Resolve { job, generation, resolved })?;
        Ok(Some(reply))
    }

    /// Pending whole steps that all their ranks hold, ascending: adopted ones, and of this generation too.
    fn candidates(&self, job: &JobName, known: &Job, damaged: &BTreeSet<Step>) -> Vec<Decided> {
        let adoptable = self.adoptable(job);
        let counts = |attempt: &&Attempt| {
            let id = AttemptId { job: job.clone(), step: attempt.step, generation: attempt.generation };
            let safe = attempt.intent.is_some() || adoptable.contains(&id);
            safe && attempt.kind.holds_whole_state() && !damaged.contains(&attempt.step)
        };
        let mut found: Vec<Decided> = known
            .attempts
            .iter()
            .filter(counts)
            .map(|attempt| Decided { step: attempt.step, generation: attempt.generation })
            .collect();
        found.sort_by_key(|found| (found.step, found.generation));
        found
    }

    fn named_step(
        &self,
        job: &JobName,
        known: &Job,
        step: Step,
        candidates: &[Decided],
        staged: bool,
        patience_over: bool,
    ) -> Result<Option<Decided>> {
        match candidates.iter().rev().find(|candidate| candidate.step == step) {
            Some(candidate) if staged => Ok(Some(*candidate)),
            Some(_) if !patience_over => Ok(None),
            _ => Err(known.no_such_step(job, step, "restoring")),
        }
    }

    fn restore_reply(&self, job: &JobName, resolved: &Resolved) -> v1::ResolveRestoreReply {
        let Some((step, generation)) = resolved.found else { return v1::ResolveRestoreReply::default() };
        let record = self.state.job(job).ok().and_then(|known| known.steps.get(&step));
        let record = record.filter(|record| record.generation == generation);
        let info = record.map(|record| convert::step_info(step, record));
        let info = info.or_else(|| self.info_elsewhere(job, step));
        v1::ResolveRestoreReply {
            step: Some(step.0),
            committed: info.is_some(),
            info,
            generation: generation.0,
            notes: resolved.notes.clone(),
        }
    }

    /// Whether a restore of the open generation was told to read this step.
    pub(super) fn is_restoring(&self, job: &JobName, step: Step) -> bool {
        let open = self.state.job(job).ok().and_then(|known| known.open.as_ref());
        open.is_some_and(|open| open.is_restoring(step))
    }
}

fn not_listed(job: &JobName, unlisted: &Unlisted) -> Error {
    Error::unavailable(format!(
        "restoring: the first store of job {job} has no step, and nobody could look into {}",
        unlisted.named()
    ))
    .hint("bring the target back, or take it out of the configuration ([[store.target]]) to begin anew")
}

fn newest_before(
    steps: &BTreeMap<Step, Restorable>,
    damaged: &BTreeSet<Step>,
    step: Step,
) -> Option<Decided> {
    let mut before = steps.range(..step).rev();
    before
        .find(|(step, record)| record.is_whole && !damaged.contains(step))
        .map(|(step, record)| Decided { step: *step, generation: record.generation })
}
