//! Agreeing on a step to stop at: notices and votes are kept until the coordinator has decided.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use crate::ids::{Generation, JobName, Rank, SessionId, Step};
use crate::proto::v1::{self, node_report::Report, session_event::Event};

/// Of the open generation.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Preemption {
    notices: BTreeSet<Rank>,
    asked: bool,
    votes: BTreeMap<Rank, Step>,
    decided: Option<Step>,
}

impl State {
    /// A stop signal reached this rank.
    pub fn preempt(&mut self, session: SessionId) {
        let Some(known) = self.sessions.get(&session) else { return };
        let (job, rank, generation) = (known.record.job.clone(), known.record.rank, known.generation());
        self.job(&job).preemption.notices.insert(rank);
        self.line.report(Report::Preempt(notice(&job, generation, rank)));
    }

    pub fn answer_preemption(&mut self, session: SessionId, last: Step) {
        let Some(known) = self.sessions.get(&session) else { return };
        let (job, rank, generation) = (known.record.job.clone(), known.record.rank, known.generation());
        self.job(&job).preemption.votes.insert(rank, last);
        self.line.report(Report::PreemptAck(ack(&job, generation, rank, last)));
    }

    pub fn preempt_query(&mut self, query: &v1::PreemptQuery) {
        let Ok(job) = query.job.parse::<JobName>() else { return };
        self.job(&job).preemption.asked = true;
        self.push_generation(
            &job,
            Generation(query.generation),
            &Event::PreemptQuery(v1::PreemptQueryEvent {}),
        );
    }

    pub fn preempt_at(&mut self, at: &v1::PreemptAt) {
        let Ok(job) = at.job.parse::<JobName>() else { return };
        self.job(&job).preemption.decided = Some(Step(at.step));
        let event = Event::PreemptAt(v1::PreemptAtEvent { step: at.step });
        self.push_generation(&job, Generation(at.generation), &event);
    }

    fn push_generation(&mut self, job: &JobName, generation: Generation, event: &Event) {
        let members = self.sessions.values_mut().filter(|session| session.record.job == *job);
        for session in members.filter(|session| session.generation() == generation) {
            session.push(event.clone());
        }
    }

    /// What a stream that was taken up again may have missed.
    pub(super) fn preemption_again(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(known) = self.jobs.get(&session.record.job) else { return };
        if known.latest != session.generation() {
            return;
        }
        match known.preemption.decided {
            Some(step) => session.push(Event::PreemptAt(v1::PreemptAtEvent { step: step.0 })),
            None if known.preemption.asked => session.push(Event::PreemptQuery(v1::PreemptQueryEvent {})),
            None => {}
        }
    }

    pub(super) fn preemption_reports(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        for (job, known) in &self.jobs {
            let Some(open) = &known.open else { continue };
            let generation = Generation(open.generation);
            let preemption = &known.preemption;
            if preemption.decided.is_some() {
                continue;
            }
            reports.extend(
                preemption.notices.iter().map(|rank| Report::Preempt(notice(job, generation, *rank))),
            );
            let votes = preemption.votes.iter();
            reports.extend(votes.map(|(rank, last)| Report::PreemptAck(ack(job, generation, *rank, *last))));
        }
        reports
    }
}

fn notice(job: &JobName, generation: Generation, rank: Rank) -> v1::PreemptNotice {
    v1::PreemptNotice { job: job.to_string(), generation: generation.0, rank: rank.0 }
}

fn ack(job: &JobName, generation: Generation, rank: Rank, last: Step) -> v1::PreemptAck {
    v1::PreemptAck { job: job.to_string(), generation: generation.0, rank: rank.0, last_step: last.0 }
}
