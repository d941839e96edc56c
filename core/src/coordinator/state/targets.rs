//! What must not be forgotten of further targets, whatever is restarted while they are away: that they were there, and
//! which removals by hand they have yet to make. What each holds is no part of it: its own COMMITs say that.

use std::collections::BTreeSet;

use super::effect::Effect;
use super::job::Job;
use crate::ids::Step;

impl Job {
    /// Whether a person removed what that target has under this number.
    pub fn is_doomed(&self, target: &str, step: Step) -> bool {
        self.dooms.get(target).is_some_and(|steps| steps.contains(&step))
    }

    /// Whether what is at that URL was listed as this target before: empty now, it is away and not new.
    pub fn has_taken(&self, target: &str, url: &str) -> bool {
        self.taken.get(target).is_some_and(|taken| taken == url)
    }

    pub(super) fn take_target(&mut self, target: &str, url: &str) -> Vec<Effect> {
        self.taken.insert(target.to_owned(), url.to_owned());
        Vec::new()
    }

    /// By the target's name: nodes may reach one place by different URLs.
    pub(super) fn doom(&mut self, step: Step, targets: &BTreeSet<String>) -> Vec<Effect> {
        for target in targets {
            self.dooms.entry(target.clone()).or_default().insert(step);
        }
        Vec::new()
    }

    /// Idempotent.
    pub(super) fn end_doom(&mut self, step: Step, target: &str) -> Vec<Effect> {
        if let Some(steps) = self.dooms.get_mut(target) {
            steps.remove(&step);
            if steps.is_empty() {
                self.dooms.remove(target);
            }
        }
        Vec::new()
    }
}
