//! Steps that the ranks of a generation have agreed on. Logged, since a rank that has heard one acts on it: a vote that is
//! held anew after a restart must not give the others another step.

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::job::{Job, Open};
use crate::error::Result;
use crate::ids::{Generation, JobName, Step};

/// What the ranks agree on a step for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// To save and stop at, once in a generation.
    #[default]
    Stop,
    /// To save at.
    Save,
}

impl Purpose {
    pub(super) fn is_stop(&self) -> bool {
        *self == Purpose::Stop
    }
}

/// The newest step to save at that was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Of this generation's votes for this purpose, counted from 1.
    pub vote: u64,
    pub step: Step,
}

impl Open {
    pub fn agreed(&self, purpose: Purpose) -> Option<Agreed> {
        match purpose {
            Purpose::Stop => self.preempt_at.map(|step| Agreed { vote: 1, step }),
            Purpose::Save => self.save_at,
        }
    }

    /// The number of the vote that is held next; None when there is no more: a generation stops once.
    pub fn next_vote(&self, purpose: Purpose) -> Option<u64> {
        match (purpose, self.agreed(purpose)) {
            (Purpose::Stop, Some(_)) => None,
            (_, agreed) => Some(agreed.map_or(0, |agreed| agreed.vote) + 1),
        }
    }
}

impl Job {
    /// The first step to stop at stands; each to save at is its vote's.
    pub(super) fn decide(
        &mut self,
        job: &JobName,
        generation: Generation,
        purpose: Purpose,
        step: Step,
    ) -> Result<Vec<Effect>> {
        self.fence(job, generation)?;
        let open = self.open.as_mut().expect("fence found it open");
        match purpose {
            Purpose::Stop => {
                open.preempt_at.get_or_insert(step);
            }
            Purpose::Save => {
                let vote = open.save_at.map_or(0, |agreed| agreed.vote) + 1;
                open.save_at = Some(Agreed { vote, step });
            }
        }
        Ok(vec![Effect::Agreed { job: job.clone(), generation, purpose }])
    }
}
