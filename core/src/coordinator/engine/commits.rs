//! Driving a logged intent to its COMMIT: published by the lowest live rank's sidecar, by another one when that is
//! lost, again after every restart, until somebody says how it went.

use std::time::Duration;

use super::super::hooks::HookCall;
use super::super::state::{AttemptId, Command, Standing};
use super::{Engine, convert};
use crate::error::Kind;
use crate::format::paths;
use crate::ids::{Generation, JobName, Step};
use crate::proto::v1::{self, node_command::Command as Push};

/// Between two tries at a COMMIT whose store failed.
const AGAIN: Duration = Duration::from_secs(1);
/// A sidecar that took the order and says nothing may have lost it.
const ANSWER: Duration = Duration::from_secs(30);

pub struct Write {
    node: Option<String>,
    /// When it is sent again.
    at: Duration,
}

impl Engine {
    pub(super) fn drive_commit(&mut self, id: &AttemptId) {
        let Some(intent) = self.state.job(&id.job).ok().and_then(|known| known.attempt(id)?.intent.clone())
        else {
            return;
        };
        let last = self.saves.writes.get(id).and_then(|write| write.node.clone());
        let node = self.writer(id, last.as_deref());
        let at = self.now() + if node.is_some() { ANSWER } else { AGAIN };
        self.saves.writes.insert(id.clone(), Write { node: node.clone(), at });
        if let Some(node) = node {
            let order = v1::WriteCommit {
                job: id.job.to_string(),
                step: id.step.0,
                generation: id.generation.0,
                path: paths::commit(id.step),
                content: intent.encode().into(),
            };
            self.push_node(&node, Push::WriteCommit(order));
        }
    }

    /// The lowest live rank's sidecar, then those that hold the step, then any of the job; a failed one comes last.
    fn writer(&self, id: &AttemptId, last: Option<&str>) -> Option<String> {
        let known = self.state.job(&id.job).ok()?;
        let living =
            known.open.iter().flat_map(|open| open.living().filter_map(|(_, member)| member.node.clone()));
        let holders =
            self.saves.by_id.get(id).into_iter().flat_map(|progress| progress.sealed.values().cloned());
        let mut candidates: Vec<String> = living.chain(holders).chain(self.nodes_of(&id.job)).collect();
        candidates.retain(|node| self.is_attached(node));
        let other = candidates.iter().find(|node| Some(node.as_str()) != last).cloned();
        other.or_else(|| candidates.first().cloned())
    }

    /// A node of the job attached: intents that wait for one go out.
    pub(super) fn redrive_commits(&mut self, job: &JobName) {
        let Ok(known) = self.state.job(job) else { return };
        let open: Vec<AttemptId> = known
            .attempts
            .iter()
            .filter(|attempt| attempt.intent.is_some())
            .map(|attempt| AttemptId { job: job.clone(), step: attempt.step, generation: attempt.generation })
            .collect();
        for id in open {
            if self.saves.writes.get(&id).is_none_or(|write| write.node.is_none()) {
                self.drive_commit(&id);
            }
        }
    }

    pub(super) fn commits_lost_line(&mut self, node: &str) {
        let lost: Vec<AttemptId> = self
            .saves
            .writes
            .iter()
            .filter(|(_, write)| write.node.as_deref() == Some(node))
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.drive_commit(&id);
        }
    }

    pub(super) fn check_commits(&mut self) {
        let now = self.now();
        let due: Vec<AttemptId> =
            self.saves.writes.iter().filter(|(_, write)| write.at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.drive_commit(&id);
        }
    }

    pub(super) fn commit_reported(&mut self, node: &str, outcome: v1::CommitOutcome) {
        let Ok(job) = outcome.job.parse::<JobName>() else { return };
        let id = AttemptId { job, step: Step(outcome.step), generation: Generation(outcome.generation) };
        let intended = self
            .state
            .job(&id.job)
            .ok()
            .and_then(|known| known.attempt(&id))
            .is_some_and(|a| a.intent.is_some());
        if !intended {
            if outcome.committed {
                self.committed_late(&id);
            }
            return;
        }
        if outcome.committed {
            if let Err(error) = self.submit(Command::Commit { id: id.clone() }) {
                self.warn(&id.job, error.message);
            }
            return;
        }
        match Kind::from_name(&outcome.kind) {
            // Other bytes, or damaged ones, stand where this COMMIT would: this attempt can never be it.
            Some(Kind::Conflict | Kind::Corrupt) => {
                let (kind, reason) = (outcome.kind, outcome.reason);
                if let Err(error) = self.submit(Command::Abandon { id: id.clone(), kind, reason }) {
                    self.warn(&id.job, error.message);
                }
            }
            _ => {
                self.warn(
                    &id.job,
                    format!("writing the COMMIT of {id}: {} ({})", outcome.reason, outcome.kind),
                );
                let at = self.now() + AGAIN;
                self.saves.writes.insert(id, Write { node: Some(node.to_owned()), at });
            }
        }
    }

    /// A write that hung, and was made by another node meanwhile, came through: harmless as long as the step is there. A
    /// removed one would stand in the store again, without the objects it names (P1).
    fn committed_late(&mut self, id: &AttemptId) {
        let gone = self
            .state
            .job(&id.job)
            .is_ok_and(|known| !matches!(known.standing(id), Standing::Committed(_) | Standing::Pending(_)));
        if gone && let Err(error) = self.submit(Command::RemoveLate { id: id.clone() }) {
            self.warn(&id.job, error.message);
        }
    }

    /// Another attempt at the same number was decided: those that waited for it go on.
    pub(super) fn retry_intents(&mut self, decided: &AttemptId) {
        let Ok(known) = self.state.job(&decided.job) else { return };
        let waiting: Vec<AttemptId> = known
            .attempts
            .iter()
            .filter(|attempt| attempt.step == decided.step && attempt.intent.is_none())
            .map(|attempt| AttemptId { generation: attempt.generation, ..decided.clone() })
            .collect();
        for id in waiting {
            self.try_intend(&id);
        }
    }

    pub(super) fn step_committed(&mut self, id: &AttemptId) {
        let Ok(known) = self.state.job(&id.job) else { return };
        let Some(record) = known.steps.get(&id.step) else { return };
        let info = convert::step_info(id.step, record);
        self.hook(HookCall::Commit { job: id.job.to_string(), step: Box::new(info) });
        self.ledger_saved(&id.job);
        self.forget_doom(&id.job, id.step);
        self.drive_targets(&id.job);
        self.plan_retention(&id.job);
    }
}
