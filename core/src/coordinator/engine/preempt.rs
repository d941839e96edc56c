//! Preemption: after a stop signal on any rank, all ranks agree on one step to save and stop at.

use std::collections::BTreeMap;

use super::super::state::Command;
use super::Engine;
use crate::error::Result;
use crate::ids::{Generation, JobName, Rank, Step};
use crate::proto::v1::{self, node_command::Command as Push};

#[derive(Default)]
pub struct Preempts {
    /// Votes by job: each rank's last step that it has asked about.
    votes: BTreeMap<JobName, (Generation, BTreeMap<Rank, u64>)>,
}

impl Engine {
    pub(super) fn preempt_notice(&mut self, notice: v1::PreemptNotice) {
        if let Ok(job) = notice.job.parse::<JobName>() {
            self.preempt(&job, Generation(notice.generation));
        }
    }

    /// Asks all ranks of the job to stop at a common step.
    pub fn drain_job(&mut self, job: &str) -> Result<()> {
        let job: JobName = job.parse()?;
        let known = self.state.job(&job)?;
        let generation = known.open.as_ref().map(|open| open.generation).ok_or_else(|| {
            crate::error::Error::conflict(format!("draining job {job}: no generation is open"))
                .hint("nothing is running that could be drained")
        })?;
        self.preempt(&job, generation);
        Ok(())
    }

    fn preempt(&mut self, job: &JobName, generation: Generation) {
        if !self.state.job(job).is_ok_and(|known| known.fence(job, generation).is_ok()) {
            return;
        }
        if self.preempts.votes.get(job).is_some_and(|(of, _)| *of == generation) {
            return;
        }
        self.preempts.votes.insert(job.clone(), (generation, BTreeMap::new()));
        let query = v1::PreemptQuery { job: job.to_string(), generation: generation.0 };
        self.push_job(job, Push::PreemptQuery(query));
        self.count_votes(job);
    }

    pub(super) fn preempt_ack(&mut self, ack: v1::PreemptAck) {
        let Ok(job) = ack.job.parse::<JobName>() else { return };
        self.preempt(&job, Generation(ack.generation));
        if let Some((generation, votes)) = self.preempts.votes.get_mut(&job)
            && generation.0 == ack.generation
        {
            votes.insert(Rank(ack.rank), ack.last_step);
        }
        self.count_votes(&job);
    }

    fn count_votes(&mut self, job: &JobName) {
        let Some((generation, votes)) = self.preempts.votes.get(job) else { return };
        let Some(open) = self.state.job(job).ok().and_then(|known| known.open.as_ref()) else { return };
        if open.preempt_at.is_some() {
            return;
        }
        let mut last = None;
        for (rank, member) in open.living() {
            // A worker without a sidecar is not asked: its last heartbeat says how far it is.
            let vote = match &member.node {
                Some(_) => votes.get(&rank).copied(),
                None => Some(
                    self.lease_of(&member.incarnation)
                        .and_then(|lease| lease.progress.as_ref())
                        .map_or(0, |(progress, _)| progress.step),
                ),
            };
            match vote {
                Some(vote) => last = last.max(Some(vote)),
                None => return,
            }
        }
        let (generation, Some(last)) = (*generation, last) else { return };
        let command = Command::DecidePreemption { job: job.clone(), generation, step: Step(last + 1) };
        if let Err(error) = self.submit(command) {
            self.warn(job, error.message);
        }
    }

    /// A node that attaches anew hears the decision, or the question again.
    pub(super) fn redrive_preemption(&mut self, node: &str, job: &JobName) {
        let Some(open) = self.state.job(job).ok().and_then(|known| known.open.as_ref()) else { return };
        let (generation, decided) = (open.generation.0, open.preempt_at);
        let name = job.to_string();
        if let Some(step) = decided {
            self.push_node(node, Push::PreemptAt(v1::PreemptAt { job: name, generation, step: step.0 }));
        } else if self.preempts.votes.get(job).is_some_and(|(of, _)| of.0 == generation) {
            self.push_node(node, Push::PreemptQuery(v1::PreemptQuery { job: name, generation }));
        }
    }

    pub(super) fn preempts_ended(&mut self, job: &JobName) {
        self.preempts.votes.remove(job);
    }
}
