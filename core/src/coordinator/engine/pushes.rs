//! What each effect of the state machine does outside: pushes, answers, the next command.

use super::super::hooks::HookCall;
use super::super::state::{AttemptId, Effect, Ended, Outcome, Standing};
use super::{Engine, convert};
use crate::error::Kind;
use crate::ids::{JobName, Rank};
use crate::proto::v1::worker_command::Command as Told;
use crate::proto::v1::{self, node_command::Command as Push, step_outcome::State as StepState};

impl Engine {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::GenerationOpened { job } => self.on_opened(&job),
            Effect::GenerationEnded { job, ended } => self.on_ended(&job, ended),
            Effect::RegistrationLost { job, incarnation, reason, .. } => {
                self.registration_lost(&job, &incarnation, &reason);
            }
            Effect::WriteCommit { id } => self.drive_commit(&id),
            Effect::StepOutcome { id, outcome } => self.on_outcome(&id, outcome),
            Effect::Remove { .. } => self.redrive_removals(),
            Effect::Removed { id } => self.removal_finished(&id),
            Effect::BarrierReleased { job, generation, name, round } => {
                self.release(&job, generation, &name, round);
            }
            Effect::Agreed { job, generation, purpose } => self.on_agreed(&job, generation, purpose),
        }
    }

    fn on_opened(&mut self, job: &JobName) {
        for node in self.nodes_of(job) {
            if let Some(opened) = self.generation_for(&node, job) {
                self.push_node(&node, Push::GenerationOpened(opened));
            }
        }
        self.ledger_opened(job);
        self.generation_opened(job);
        self.forget_left(job);
        self.drive_targets(job);
        self.answer_stale_reports(job);
        self.restores_changed(job);
    }

    fn on_ended(&mut self, job: &JobName, ended: Ended) {
        match ended.lost.is_empty() {
            true => tracing::info!(%job, generation = %ended.generation, "job closed: all ranks left"),
            false => {
                tracing::warn!(%job, generation = %ended.generation, reason = %ended.reason, "generation ended");
            }
        }
        self.metrics.generations_ended.inc();
        self.ledger_ended(job, !ended.lost.is_empty());
        let message = convert::ended(job, &ended);
        self.push_job(job, Push::GenerationEnded(message.clone()));
        self.roster_ended(job);
        self.leases_ended();
        self.barriers_ended(job, ended.generation);
        self.stalls.forget(job);
        self.asks_ended(job);
        self.forget_told();
        if !ended.lost.is_empty() {
            let ranks: Vec<Rank> = ended.lost.iter().map(|lost| lost.rank).collect();
            self.warn(job, format!("generation {} ended: {}", ended.generation, ended.reason));
            self.hook(HookCall::WorkerLost {
                job: job.to_string(),
                generation: ended.generation.0,
                ranks: convert::ranks(ranks),
                hosts: ended.lost.iter().map(|lost| lost.host.clone()).collect(),
                reason: ended.reason,
            });
        }
        let direct: Vec<String> = self.direct_streams();
        for who in direct {
            if self.lease_of(&who).is_some_and(|lease| lease.job == *job) {
                self.tell(&who, Told::GenerationEnded(message.clone()));
            }
        }
    }

    fn on_outcome(&mut self, id: &AttemptId, outcome: Outcome) {
        match &outcome {
            Outcome::Committed => self.metrics.steps_committed.inc(),
            Outcome::Adopted => self.metrics.steps_adopted.inc(),
            Outcome::Abandoned { reason, .. } => {
                self.warn(&id.job, format!("{id} is abandoned: {reason}"));
                self.metrics.steps_abandoned.inc()
            }
        };
        if outcome == Outcome::Adopted {
            let message = self.outcome_message(id, StepState::Adopted, String::new(), String::new());
            self.push_job(&id.job, Push::Step(message));
            return;
        }
        if let Some(message) = self.final_outcome(id) {
            self.push_job(&id.job, Push::Step(message));
        }
        if outcome == Outcome::Committed
            && let Some(took) = self.save_took(id)
        {
            self.observe_commit(&id.job, took);
        }
        self.forget_save(id);
        if outcome == Outcome::Committed {
            self.step_committed(id);
        }
        self.restores_changed(&id.job);
        self.retry_intents(id);
    }

    /// The answer to any report of an attempt whose fate is decided.
    pub(super) fn final_outcome(&self, id: &AttemptId) -> Option<v1::StepOutcome> {
        let known = self.state.job(&id.job).ok()?;
        match known.standing(id) {
            Standing::Committed(record) => {
                let mut message =
                    self.outcome_message(id, StepState::Committed, String::new(), String::new());
                message.info = Some(convert::step_info(id.step, record));
                Some(message)
            }
            // Never "committed": it may be a save of the same number, begun anew, whose beginning got lost.
            Standing::Retired => {
                let reason = format!("{id} was committed before, and has been removed since");
                let kind = Kind::NotFound.name().to_owned();
                Some(self.outcome_message(id, StepState::Abandoned, kind, reason))
            }
            Standing::Abandoned { kind, reason } => {
                Some(self.outcome_message(id, StepState::Abandoned, kind, reason))
            }
            Standing::Pending(_) | Standing::Unknown => None,
        }
    }

    pub(super) fn outcome_message(
        &self,
        id: &AttemptId,
        state: StepState,
        kind: String,
        reason: String,
    ) -> v1::StepOutcome {
        v1::StepOutcome {
            job: id.job.to_string(),
            step: id.step.0,
            generation: id.generation.0,
            state: state.into(),
            info: None,
            kind,
            reason,
            missing_ranks: Vec::new(),
        }
    }
}
