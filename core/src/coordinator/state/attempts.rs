//! Attempts at a step: from the first a coordinator hears of them to commit or abandonment. An abandoned attempt can
//! never commit; a step number belongs to the one attempt that committed it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Outcome};
use super::job::Job;
use super::retention::Removal;
use super::saves::StepRecord;
use crate::error::{Error, Kind, Result};
use crate::format::{CommitRecord, StepKind};
use crate::ids::{Generation, JobName, Rank, Step, WorldSize};

/// Which attempt: its objects lie under (step, generation).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    pub job: JobName,
    pub step: Step,
    pub generation: Generation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub step: Step,
    pub generation: Generation,
    pub kind: StepKind,
    /// Expected set: the membership at its save, or the ranks it named.
    pub ranks: BTreeSet<Rank>,
    /// Steps whose manifests it refers to: not removed while this is pending.
    pub bases: BTreeSet<Step>,
    pub adopted_by: Option<Generation>,
    pub world: WorldSize,
    /// What COMMIT will say, once every rank is durable.
    pub intent: Option<CommitRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Abandoned {
    pub step: Step,
    pub generation: Generation,
    pub kind: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retired {
    pub step: Step,
    pub generation: Generation,
}

/// Answers kept for late reports of abandoned attempts, and of committed ones that were removed: a store that is down for a week must not fill the log.
pub(super) const ANSWERS_KEPT: usize = 1024;

/// Where an attempt stands.
#[derive(Debug, PartialEq)]
pub enum Standing<'a> {
    Pending(&'a Attempt),
    Committed(&'a StepRecord),
    /// It was committed, and has been removed.
    Retired,
    Abandoned {
        kind: String,
        reason: String,
    },
    /// Of the latest generation, and never heard of.
    Unknown,
}

impl Job {
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.is(id))
    }

    pub fn standing(&self, id: &AttemptId) -> Standing<'_> {
        if let Some(attempt) = self.attempt(id) {
            return Standing::Pending(attempt);
        }
        if let Some(record) = self.steps.get(&id.step).filter(|record| record.generation == id.generation) {
            return Standing::Committed(record);
        }
        if self.retired.iter().any(|gone| gone.step == id.step && gone.generation == id.generation) {
            return Standing::Retired;
        }
        let told =
            self.abandoned.iter().find(|gone| gone.step == id.step && gone.generation == id.generation);
        if let Some(gone) = told {
            return Standing::Abandoned { kind: gone.kind.clone(), reason: gone.reason.clone() };
        }
        if id.generation != self.latest {
            let reason = format!("generation {} ended before all its ranks had sealed it", id.generation);
            return Standing::Abandoned { kind: Kind::Fenced.name().to_owned(), reason };
        }
        Standing::Unknown
    }

    pub(super) fn begin(
        &mut self,
        id: &AttemptId,
        kind: StepKind,
        ranks: &BTreeSet<Rank>,
        bases: &BTreeSet<Step>,
    ) -> Result<Vec<Effect>> {
        if !matches!(self.standing(id), Standing::Unknown | Standing::Retired) {
            return Err(Error::conflict(format!("beginning {id}: it is known already")));
        }
        if let Some(rank) = ranks.iter().find(|rank| rank.0 >= self.world.0) {
            return Err(Error::invalid(format!("beginning {id}: rank {rank} of a world of {}", self.world)));
        }
        self.check_number(id)?;
        self.check_bases(id, bases)?;
        self.retired.retain(|gone| (gone.step, gone.generation) != (id.step, id.generation));
        self.removals.retain(|removal| (removal.step, removal.generation) != (id.step, id.generation));
        self.attempts.push(Attempt {
            step: id.step,
            generation: id.generation,
            kind,
            ranks: ranks.clone(),
            bases: bases.clone(),
            adopted_by: None,
            world: self.world,
            intent: None,
        });
        Ok(Vec::new())
    }

    /// A committed number is never committed again, whatever its removal has come to.
    fn check_number(&self, id: &AttemptId) -> Result<()> {
        let committed = self.steps.get(&id.step).map(|record| record.generation);
        let removing = self
            .removals
            .iter()
            .find(|removal| removal.committed && removal.step == id.step)
            .map(|removal| removal.generation);
        match (committed, removing) {
            (Some(generation), _) => Err(Error::conflict(format!(
                "saving step {}: it is already committed (by generation {generation})",
                id.step
            ))
            .hint("restore first, so that training goes on behind it; or remove the step")),
            (None, Some(_)) => Err(Error::conflict(format!(
                "saving step {}: a step of this number is being removed",
                id.step
            ))
            .hint("save again when it is gone")),
            (None, None) => Ok(()),
        }
    }

    fn check_bases(&self, id: &AttemptId, bases: &BTreeSet<Step>) -> Result<()> {
        match bases.iter().find(|base| !self.steps.contains_key(base)) {
            None => Ok(()),
            Some(base) => Err(Error::conflict(format!(
                "saving step {}: its base, step {base}, is not committed or is being removed",
                id.step
            ))
            .hint("save again: the next step takes another base")),
        }
    }

    pub(super) fn pin_bases(&mut self, id: &AttemptId, bases: &BTreeSet<Step>) -> Result<Vec<Effect>> {
        self.check_bases(id, bases)?;
        self.pending(id)?.bases.extend(bases);
        Ok(Vec::new())
    }

    fn pending(&mut self, id: &AttemptId) -> Result<&mut Attempt> {
        let found = self.attempts.iter_mut().find(|attempt| attempt.is(id));
        found.ok_or_else(|| Error::not_found(format!("changing {id}: it is not pending")))
    }

    /// Gives up an attempt, also one never heard of: later reports of it get the same answer.
    pub(super) fn abandon(&mut self, id: &AttemptId, kind: &str, reason: &str) -> Result<Vec<Effect>> {
        match self.standing(id) {
            Standing::Pending(_) | Standing::Unknown => {}
            Standing::Committed(_) | Standing::Retired => {
                return Err(Error::conflict(format!("abandoning {id}: it is committed")));
            }
            Standing::Abandoned { .. } => return Ok(Vec::new()),
        }
        Ok(vec![self.give_up(id, kind, reason)])
    }

    fn give_up(&mut self, id: &AttemptId, kind: &str, reason: &str) -> Effect {
        self.attempts.retain(|attempt| !attempt.is(id));
        let (kind, reason) = (kind.to_owned(), reason.to_owned());
        if id.generation == self.latest {
            let (step, generation) = (id.step, id.generation);
            self.abandoned.push(Abandoned { step, generation, kind: kind.clone(), reason: reason.clone() });
            if self.abandoned.len() > ANSWERS_KEPT {
                self.abandoned.remove(0);
            }
        }
        let removal = Removal { step: id.step, generation: id.generation, committed: false };
        if !self.removals.contains(&removal) {
            self.removals.push(removal);
        }
        Effect::StepOutcome { id: id.clone(), outcome: Outcome::Abandoned { kind, reason } }
    }

    pub(super) fn intend(&mut self, id: &AttemptId, intent: &CommitRecord) -> Result<Vec<Effect>> {
        let other = self.attempts.iter().find(|other| other.step == id.step && other.intent.is_some());
        if let Some(other) = other {
            return Err(Error::conflict(format!(
                "committing {id}: the commit of generation {} is under way",
                other.generation
            )));
        }
        self.check_number(id)?;
        let attempt = self.pending(id)?;
        let durable: BTreeSet<Rank> = intent.ranks.iter().map(|manifest| manifest.rank).collect();
        if durable != attempt.ranks || durable.len() != intent.ranks.len() {
            return Err(Error::internal(format!("committing {id}: not every rank of its set is durable")));
        }
        attempt.intent = Some(intent.clone());
        let mut effects = vec![Effect::WriteCommit { id: id.clone() }];
        effects.extend(self.give_up_rivals(id, "another attempt at the same step was committed first"));
        Ok(effects)
    }

    /// Every attempt that is still open.
    pub(super) fn give_up_all(&mut self, job: &JobName, reason: &str) -> Vec<Effect> {
        let open = self.attempts.iter().map(|attempt| AttemptId {
            job: job.clone(),
            step: attempt.step,
            generation: attempt.generation,
        });
        let open: Vec<AttemptId> = open.collect();
        open.iter().map(|id| self.give_up(id, Kind::Conflict.name(), reason)).collect()
    }

    fn give_up_rivals(&mut self, id: &AttemptId, reason: &str) -> Vec<Effect> {
        let rivals: Vec<AttemptId> = self
            .attempts
            .iter()
            .filter(|other| other.step == id.step && other.generation != id.generation)
            .map(|other| AttemptId { generation: other.generation, ..id.clone() })
            .collect();
        rivals.iter().map(|rival| self.give_up(rival, Kind::Conflict.name(), reason)).collect()
    }

    pub(super) fn commit(&mut self, id: &AttemptId) -> Result<Vec<Effect>> {
        let attempt = self.pending(id)?.clone();
        let intent =
            attempt.intent.ok_or_else(|| Error::internal(format!("committing {id}: without an intent")))?;
        self.attempts.retain(|attempt| !attempt.is(id));
        self.steps.insert(id.step, StepRecord::of(&intent));
        if let Some(open) = self.open.as_mut().filter(|open| open.generation == id.generation) {
            open.end_restores();
        }
        let mut effects = vec![Effect::StepOutcome { id: id.clone(), outcome: Outcome::Committed }];
        effects.extend(self.give_up_rivals(id, "another attempt at the same step was committed first"));
        Ok(effects)
    }

    /// With the command that opens a generation: adopts or abandons every pending attempt. Open intents proceed.
    pub(super) fn settle_attempts(
        &mut self,
        job: &JobName,
        generation: Generation,
        adoptable: &BTreeSet<AttemptId>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (step, of, intended) in
            self.attempts.iter().map(|a| (a.step, a.generation, a.intent.is_some())).collect::<Vec<_>>()
        {
            let id = AttemptId { job: job.clone(), step, generation: of };
            if intended || adoptable.contains(&id) {
                let attempt = self.pending(&id).expect("listed above");
                attempt.adopted_by = Some(generation);
                effects.push(Effect::StepOutcome { id, outcome: Outcome::Adopted });
            } else {
                let reason = format!("generation {of} ended before all its ranks had sealed it");
                effects.push(self.give_up(&id, Kind::Fenced.name(), &reason));
            }
        }
        effects
    }
}

impl Attempt {
    fn is(&self, id: &AttemptId) -> bool {
        self.step == id.step && self.generation == id.generation
    }
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {} of job {} (generation {})", self.step, self.job, self.generation)
    }
}
