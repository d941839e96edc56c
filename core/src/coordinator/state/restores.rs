//! What the ranks of a generation were told to restore: logged before the first of them hears it, so that a coordinator
//! that starts again tells the others the same, and keeps what they read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::job::{Job, Open};
use crate::error::Result;
use crate::ids::{Generation, JobName, Step};

/// The round, the step named, and the source. A rank that asks for something else than the others did in a round of
/// this number must not be handed what they were.
pub type Asked = (u64, Option<Step>, i32);

/// The answer to one question of all ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    pub asked: Asked,
    /// The step, and the generation of the attempt that holds it; None: there is none.
    pub found: Option<(Step, Generation)>,
    /// What a rank had found damaged by then.
    pub damaged: BTreeSet<Step>,
    /// For the ranks to say.
    pub notes: Vec<String>,
}

impl Open {
    pub fn resolved(&self, asked: &Asked) -> Option<&Resolved> {
        self.restores.iter().find(|resolved| resolved.asked == *asked)
    }

    /// Whether a restore was told to read this step.
    pub fn is_restoring(&self, step: Step) -> bool {
        self.restores.iter().any(|resolved| resolved.found.is_some_and(|(found, _)| found == step))
    }

    /// Every rank has gone on, no restore of before is still reading. The newest round stays: a rank may ask for its
    /// answer again.
    pub(super) fn end_restores(&mut self) {
        let newest = self.restores.iter().map(|resolved| resolved.asked.0).max();
        self.restores.retain(|resolved| Some(resolved.asked.0) == newest);
    }
}

impl Job {
    /// Replaces an answer to the same question that was found damaged.
    pub(super) fn resolve(
        &mut self,
        job: &JobName,
        generation: Generation,
        resolved: &Resolved,
    ) -> Result<Vec<Effect>> {
        self.fence(job, generation)?;
        let open = self.open.as_mut().expect("fence found it open");
        open.restores.retain(|before| before.asked != resolved.asked);
        open.restores.push(resolved.clone());
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_that_was_found_damaged_is_replaced_and_earlier_rounds_end_with_a_commit() {
        let name = "j".parse().unwrap();
        let open = Open { generation: Generation(3), ..Open::default() };
        let mut job = Job { open: Some(open), ..Job::default() };
        let mut answer = |round, step, damaged: &[Step]| {
            let found = Some((Step(step), Generation(2)));
            let damaged = damaged.iter().copied().collect();
            let resolved = Resolved { asked: (round, None, 0), found, damaged, notes: Vec::new() };
            job.resolve(&name, Generation(3), &resolved).unwrap();
            job.open.clone().unwrap()
        };
        assert!(answer(0, 7, &[]).is_restoring(Step(7)));
        let open = answer(0, 5, &[Step(7)]);
        assert!(open.is_restoring(Step(5)) && !open.is_restoring(Step(7)));
        let mut open = answer(1, 9, &[]);
        assert!(open.is_restoring(Step(5)) && open.resolved(&(1, Some(Step(9)), 0)).is_none());
        open.end_restores();
        assert!(!open.is_restoring(Step(5)) && open.is_restoring(Step(9)));
        let stale = open.resolved(&(1, None, 0)).unwrap().clone();
        assert!(job.resolve(&name, Generation(2), &stale).is_err(), "P6");
    }
}
