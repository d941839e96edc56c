//! What the engine asks the operator's hooks, and what it does with their answers.

use std::collections::BTreeSet;

use super::super::hooks::HookCall;
use super::Engine;
use crate::ids::{JobName, Step};

/// What a retain hook said: the steps it was asked about and those it keeps.
pub struct Retained {
    pub asked: BTreeSet<Step>,
    pub kept: BTreeSet<Step>,
}

impl Engine {
    pub(super) fn hook(&mut self, call: HookCall) {
        let Some(hooks) = &self.hooks else { return };
        let hooks = hooks.clone();
        self.outbox.push(Box::new(move || {
            // The hooks task ends with the coordinator only.
            let _ = hooks.send(call);
        }));
    }

    /// The hook file has no `retain`: the configured rule decides.
    pub fn no_retain_hook(&mut self, job: &JobName) {
        self.keep_by_rule(job);
    }

    pub fn retained(&mut self, job: &JobName, answer: &Retained) {
        self.keep_named(job, &answer.asked, &answer.kept);
    }

    /// Any failure keeps everything.
    pub fn hook_failed(&mut self, job: Option<JobName>, message: String) {
        self.metrics.hook_failures.inc();
        match job {
            Some(job) => self.warn(&job, message),
            None => tracing::error!("{message}"),
        }
    }
}
