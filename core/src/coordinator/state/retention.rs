//! Pins and removals: the intent is logged before a byte is deleted, and a removed number is forgotten only when its
//! objects are gone.

use serde::{Deserialize, Serialize};

use super::attempts::{ANSWERS_KEPT, AttemptId, Retired, Standing};
use super::effect::Effect;
use super::job::Job;
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, Step};

/// Objects on their way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removal {
    pub step: Step,
    pub generation: Generation,
    /// False: an abandoned attempt's objects, without a COMMIT.
    pub committed: bool,
}

impl Removal {
    pub fn id(&self, job: &JobName) -> AttemptId {
        AttemptId { job: job.clone(), step: self.step, generation: self.generation }
    }
}

impl Job {
    /// Objects of an abandoned attempt may still be written while its own generation lives.
    pub fn may_be_written(&self, removal: &Removal) -> bool {
        !removal.committed && self.open.as_ref().is_some_and(|open| open.generation == removal.generation)
    }

    /// A person takes back whatever pins there are, also that of a repair that died; a holder its own alone.
    pub(super) fn pin_step(
        &mut self,
        job: &JobName,
        step: Step,
        pinned: bool,
        holder: Option<&str>,
    ) -> Result<Vec<Effect>> {
        self.committed(job, step, "pinning")?;
        let record = self.steps.get_mut(&step).expect("looked up above");
        match (holder, pinned) {
            (None, true) => record.pinned = true,
            (None, false) => {
                record.pinned = false;
                record.holders.clear();
            }
            (Some(holder), true) => drop(record.holders.insert(holder.to_owned())),
            (Some(holder), false) => drop(record.holders.remove(holder)),
        }
        Ok(Vec::new())
    }

    fn committed(&self, job: &JobName, step: Step, doing: &str) -> Result<()> {
        match self.steps.contains_key(&step) {
            true => Ok(()),
            false => Err(self.no_such_step(job, step, doing)),
        }
    }

    /// NotFound, naming the newest steps there are.
    pub fn no_such_step(&self, job: &JobName, step: Step, doing: &str) -> Error {
        let newest: Vec<String> = self.steps.keys().rev().take(8).map(Step::to_string).collect();
        let hint = match newest.is_empty() {
            true => "the job has no committed step".to_owned(),
            false => format!("newest committed steps: {}", newest.join(", ")),
        };
        Error::not_found(format!("{doing} step {step} of job {job}: it is not committed")).hint(hint)
    }

    /// Why a step may not be removed now. `force`, which only a person gives, overrules the rules about pinned steps and
    /// the newest whole one; what a save needs stays.
    pub fn removable(&self, job: &JobName, step: Step, force: bool) -> Result<()> {
        self.committed(job, step, "removing")?;
        let refuse = |why: &str, hint: &str| {
            Err(Error::conflict(format!("removing step {step} of job {job}: {why}")).hint(hint))
        };
        if self.steps[&step].is_pinned() && !force {
            return refuse("it is pinned", "unpin it first; force removes it all the same");
        }
        if self.attempts.iter().any(|attempt| attempt.bases.contains(&step)) {
            return refuse("a save under way refers to it", "try again when that save has committed");
        }
        // Which attempt committed it can't be read: any that is open might be taken for it.
        if self.steps[&step].generation.0 == 0 && self.attempts.iter().any(|attempt| attempt.step == step) {
            return refuse("a save of this number is under way", "try again when its fate is decided");
        }
        if !force && self.newest_whole() == Some(step) {
            return refuse("it is the newest whole step", "force removes it all the same");
        }
        Ok(())
    }

    pub(super) fn intend_removal(&mut self, job: &JobName, step: Step, force: bool) -> Result<Vec<Effect>> {
        self.removable(job, step, force)?;
        let record = self.steps.remove(&step).expect("removable found it");
        let generation = record.generation;
        self.removals.push(Removal { step, generation, committed: true });
        self.retired.push(Retired { step, generation });
        if self.retired.len() > ANSWERS_KEPT {
            self.retired.remove(0);
        }
        Ok(vec![Effect::Remove { id: AttemptId { job: job.clone(), step, generation } }])
    }

    /// What was written too late: of a step that was committed and removed at once, as its writer is done; of one that was
    /// given up, or whose number is in use again, without a claim to the number.
    pub(super) fn sweep_late(&mut self, id: &AttemptId) -> Vec<Effect> {
        let committed = match self.standing(id) {
            Standing::Retired => !self.is_in_use(id.step),
            Standing::Abandoned { .. } => false,
            Standing::Pending(_) | Standing::Committed(_) | Standing::Unknown => return Vec::new(),
        };
        let sweep = Removal { step: id.step, generation: id.generation, committed };
        if self.removals.contains(&sweep) {
            return Vec::new();
        }
        self.removals.push(sweep);
        vec![Effect::Remove { id: id.clone() }]
    }

    fn is_in_use(&self, step: Step) -> bool {
        self.steps.contains_key(&step)
            || self.attempts.iter().any(|attempt| attempt.step == step)
            || self.removals.iter().any(|removal| removal.committed && removal.step == step)
    }

    /// Unless the number is in use again: then its COMMIT is what stands there, or will be refused by this one.
    pub(super) fn remove_late(&mut self, id: &AttemptId) -> Vec<Effect> {
        if self.is_in_use(id.step) {
            return Vec::new();
        }
        self.removals.push(Removal { step: id.step, generation: id.generation, committed: true });
        vec![Effect::Remove { id: id.clone() }]
    }

    /// Idempotent: a repeated report finds nothing.
    pub(super) fn removed(&mut self, id: &AttemptId, committed: Option<bool>) -> Result<Vec<Effect>> {
        let before = self.removals.len();
        let is_done = |removal: &Removal| {
            (removal.step, removal.generation) == (id.step, id.generation)
                && committed.is_none_or(|committed| committed == removal.committed)
        };
        self.removals.retain(|removal| !is_done(removal));
        match self.removals.len() < before {
            true => Ok(vec![Effect::Removed { id: id.clone() }]),
            false => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::state::StepRecord;
    use crate::ids::{Rank, WorldSize};

    #[test]
    fn a_repair_takes_back_its_own_pin_alone_and_a_person_all() {
        let name = "j".parse().unwrap();
        let mut job = Job { steps: [(Step(1), StepRecord::for_tests())].into(), ..Job::default() };
        let mut pin = |pinned, holder| {
            job.pin_step(&name, Step(1), pinned, holder).unwrap();
            job.steps[&Step(1)].is_pinned()
        };
        assert!(pin(true, Some("repair a")) && pin(true, Some("repair b")));
        assert!(pin(false, Some("repair a")), "b still needs it");
        assert!(!pin(false, Some("repair b")));
        assert!(pin(true, Some("repair a")) && pin(true, None));
        assert!(pin(false, Some("repair a")), "what a person pinned meanwhile stays");
        assert!(pin(true, Some("repair a")) && !pin(false, None), "left by one that died");
    }

    #[test]
    fn p1_late_report_of_a_step_that_was_removed_begins_nothing() {
        let id = AttemptId { job: "j".parse().unwrap(), step: Step(10), generation: Generation(1) };
        let record = |step| (Step(step), StepRecord { generation: id.generation, ..StepRecord::for_tests() });
        let steps = [record(10), record(11)].into();
        let mut job = Job { steps, latest: id.generation, world: WorldSize(1), ..Job::default() };
        job.intend_removal(&id.job, id.step, false).unwrap();
        assert_eq!(job.standing(&id), Standing::Retired);
        assert!(job.abandon(&id, "Timeout", "late").is_err(), "it was committed");
        job.removed(&id, Some(true)).unwrap();
        job.sweep_late(&id);
        assert_eq!(job.removals.len(), 1, "what was written again goes too");
        job.removed(&id, Some(true)).unwrap();
        assert_eq!(job.standing(&id), Standing::Retired, "also when its objects are gone");
        // Saved anew, it is a save like any other.
        job.begin(&id, Default::default(), &[Rank(0)].into(), &Default::default()).unwrap();
        assert!(matches!(job.standing(&id), Standing::Pending(_)) && job.removals.is_empty());
    }

    #[test]
    fn what_is_written_of_a_step_that_was_given_up_is_removed_without_a_claim_to_its_number() {
        let id = AttemptId { job: "j".parse().unwrap(), step: Step(10), generation: Generation(1) };
        let mut job = Job { latest: Generation(2), world: WorldSize(1), ..Job::default() };
        assert!(matches!(job.standing(&id), Standing::Abandoned { .. }));
        for _ in 0..2 {
            job.sweep_late(&id);
            assert_eq!(
                job.removals,
                [Removal { step: id.step, generation: id.generation, committed: false }]
            );
        }
        let again = AttemptId { generation: job.latest, ..id.clone() };
        job.begin(&again, Default::default(), &[Rank(0)].into(), &Default::default()).unwrap();
        job.sweep_late(&again);
        assert_eq!(job.removals.len(), 1, "what is being written now stays");
    }

    #[test]
    fn p1_a_commit_that_came_late_is_removed_also_while_what_was_given_up_is() {
        let id = AttemptId { job: "j".parse().unwrap(), step: Step(10), generation: Generation(1) };
        let given_up = Removal { step: id.step, generation: id.generation, committed: false };
        let mut job = Job { removals: vec![given_up.clone()], ..Job::default() };
        assert_eq!(job.remove_late(&id), [Effect::Remove { id: id.clone() }]);
        assert_eq!(job.removed(&id, Some(false)).unwrap(), [Effect::Removed { id: id.clone() }]);
        let late = Removal { committed: true, ..given_up };
        assert_eq!(job.removals, [late], "its COMMIT stands until that is done too");
        assert_eq!(job.removed(&id, Some(true)).unwrap().len(), 1);
        assert_eq!(job.removed(&id, Some(true)).unwrap(), [], "repeated");
    }
}
