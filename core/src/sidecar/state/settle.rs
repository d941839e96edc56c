//! What the coordinator decided about a step: slots become Clean or Free, trainers hear of it.

use super::saves::step_event;
use super::{Outcome, SaveId, State, Todo};
use crate::error::{Error, Kind};
use crate::ids::{Generation, JobName, Step};
use crate::proto::v1::{self, step_outcome::State as Decided};

/// How the coordinator words a rank that found no slot.
const SKIPPED: &str = " skipped it: ";

impl State {
    pub fn step_outcome(&mut self, told: v1::StepOutcome) {
        let Ok(job) = told.job.parse::<JobName>() else { return };
        let id = SaveId { job, step: Step(told.step), generation: Generation(told.generation) };
        match told.state() {
            Decided::Committed => {
                let info = told.info.unwrap_or_default();
                self.job(&id.job).note_committed(&info);
                self.settle(&id, Outcome::Committed(Box::new(info)));
            }
            Decided::Abandoned => {
                let kind = Kind::from_name(&told.kind).unwrap_or(Kind::Internal);
                let skipped = kind == Kind::Overloaded && told.reason.contains(SKIPPED);
                self.forget_bases(&id, kind);
                self.settle(&id, Outcome::Abandoned { error: Error::new(kind, told.reason), skipped });
            }
            Decided::Adopted => {
                if let Some(save) = self.saves.get_mut(&id) {
                    save.adopted = true;
                }
                self.persist_if_ready(&id);
            }
            Decided::Late => self.warn_trainers(&id.job, &told.reason),
            Decided::Unspecified => {}
        }
    }

    /// A base that the coordinator refused is no base for the next save either.
    fn forget_bases(&mut self, id: &SaveId, kind: Kind) {
        if kind != Kind::Conflict {
            return;
        }
        let bases: Vec<u64> = match self.saves.get(id) {
            Some(save) => save.parts.values().flat_map(|part| part.begun.base_steps.clone()).collect(),
            None => return,
        };
        let job = self.job(&id.job);
        job.committed.retain(|step, _| !bases.contains(&step.0));
    }

    fn settle(&mut self, id: &SaveId, outcome: Outcome) {
        let known = self.job(&id.job).outcome(id.step, id.generation).is_some();
        self.job(&id.job).note_outcome(id.step, id.generation, outcome.clone());
        if !known {
            self.push_step(id, step_event(id.step, &outcome));
        }
        match self.saves.get_mut(id) {
            Some(save) if save.io => save.decided = Some(outcome),
            Some(_) => self.let_slots_go(id, &outcome),
            None => {}
        }
    }

    /// No task has the slots: they follow the decision.
    fn let_slots_go(&mut self, id: &SaveId, outcome: &Outcome) {
        let Some(save) = self.saves.remove(id) else { return };
        for part in save.parts.into_values() {
            let Some((key, fill)) = part.slot else { continue };
            match outcome {
                Outcome::Committed(_) => self.arenas.settle(key, fill),
                Outcome::Abandoned { .. } => self.arenas.free(key, fill),
            }
        }
        self.todo.push(Todo::Sweep);
    }

    /// The task that had a save's slots has ended.
    pub fn io_ended(&mut self, id: &SaveId) {
        let Some(save) = self.saves.get_mut(id) else { return };
        save.io = false;
        if let Some(outcome) = save.decided.take() {
            self.let_slots_go(id, &outcome);
        }
    }
}
