//! Agreeing on one step for all ranks, to stop or to save at: notices and votes are kept until the coordinator has decided.

use std::collections::{BTreeMap, BTreeSet};

use super::State;
use crate::ids::{Generation, JobName, Rank, SessionId};
use crate::proto::v1::{self, StepPurpose, node_report::Report, session_event::Event};

/// Of the open generation.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Agreements {
    /// Ranks that a stop signal has reached.
    notices: BTreeSet<Rank>,
    by_purpose: BTreeMap<StepPurpose, Agreement>,
}

#[derive(Clone, Debug, Default)]
struct Agreement {
    /// The newest vote that was asked for.
    asked: u64,
    /// By rank: its last step, as it said in the newest vote.
    votes: BTreeMap<Rank, u64>,
    decided: Option<v1::StepAgreedEvent>,
}

impl Agreement {
    fn is_decided(&self, vote: u64) -> bool {
        self.decided.as_ref().is_some_and(|decided| decided.vote >= vote)
    }

    /// Makes this the vote that is held; false: it is over.
    fn hold(&mut self, vote: u64) -> bool {
        if vote > self.asked {
            self.asked = vote;
            self.votes.clear();
        }
        vote == self.asked && !self.is_decided(vote)
    }
}

impl State {
    /// A stop signal reached this rank.
    pub fn preempt(&mut self, session: SessionId) {
        let Some(known) = self.sessions.get(&session) else { return };
        let (job, rank, generation) = (known.record.job.clone(), known.record.rank, known.generation());
        self.job(&job).agreements.notices.insert(rank);
        self.line.report(Report::Preempt(notice(&job, generation, rank)));
    }

    pub fn vote_step(&mut self, session: SessionId, said: &v1::VoteStepRequest) {
        let Some(known) = self.sessions.get(&session) else { return };
        let (job, rank, generation) = (known.record.job.clone(), known.record.rank, known.generation());
        let agreement = self.job(&job).agreements.by_purpose.entry(said.purpose()).or_default();
        if agreement.hold(said.vote) {
            agreement.votes.insert(rank, said.last_step);
            let vote = vote(&job, generation, rank, said.purpose(), said.vote, said.last_step);
            self.line.report(Report::StepVote(vote));
        }
    }

    pub fn step_query(&mut self, query: &v1::StepQuery) {
        let Ok(job) = query.job.parse::<JobName>() else { return };
        if !self.is_open(&job, query.generation) {
            if self.job(&job).latest.0 < query.generation {
                // The push that opened it was lost; the answer to a rank that waits for it is on its way.
                self.job(&job).early.insert(query.purpose(), query.clone());
            }
            return;
        }
        let agreement = self.job(&job).agreements.by_purpose.entry(query.purpose()).or_default();
        if agreement.hold(query.vote) {
            let event = v1::StepQueryEvent { purpose: query.purpose, vote: query.vote };
            self.push_generation(&job, Generation(query.generation), &Event::StepQuery(event));
        }
    }

    /// What was asked before the generation was known to be open.
    pub(super) fn early_queries(&mut self, job: &JobName) {
        for query in std::mem::take(&mut self.job(job).early).into_values() {
            self.step_query(&query);
        }
    }

    pub fn step_agreed(&mut self, agreed: &v1::StepAgreed) {
        let Ok(job) = agreed.job.parse::<JobName>() else { return };
        if !self.is_open(&job, agreed.generation) {
            return;
        }
        let event = v1::StepAgreedEvent { step: agreed.step, purpose: agreed.purpose, vote: agreed.vote };
        let agreement = self.job(&job).agreements.by_purpose.entry(agreed.purpose()).or_default();
        agreement.decided = Some(event);
        self.push_generation(&job, Generation(agreed.generation), &Event::StepAgreed(event));
    }

    fn is_open(&self, job: &JobName, generation: u64) -> bool {
        let open = self.jobs.get(job).and_then(|known| known.open.as_ref());
        open.is_some_and(|open| open.generation == generation)
    }

    fn push_generation(&mut self, job: &JobName, generation: Generation, event: &Event) {
        let members = self.sessions.values_mut().filter(|session| session.record.job == *job);
        for session in members.filter(|session| session.generation() == generation) {
            session.push(event.clone());
        }
    }

    /// What a stream that was taken up again may have missed.
    pub(super) fn agreements_again(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(known) = self.jobs.get(&session.record.job) else { return };
        if known.latest != session.generation() {
            return;
        }
        for (purpose, agreement) in &known.agreements.by_purpose {
            if let Some(decided) = agreement.decided {
                session.push(Event::StepAgreed(decided));
            }
            if !agreement.is_decided(agreement.asked) {
                let query = v1::StepQueryEvent { purpose: (*purpose).into(), vote: agreement.asked };
                session.push(Event::StepQuery(query));
            }
        }
    }

    pub(super) fn agreement_reports(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        for (job, known) in &self.jobs {
            let Some(open) = &known.open else { continue };
            let generation = Generation(open.generation);
            let agreements = &known.agreements;
            let stops =
                agreements.by_purpose.get(&StepPurpose::Stop).is_some_and(|stop| stop.decided.is_some());
            let notices = agreements.notices.iter().filter(|_| !stops);
            reports.extend(notices.map(|rank| Report::Preempt(notice(job, generation, *rank))));
            for (purpose, held) in &agreements.by_purpose {
                let votes = held.votes.iter().filter(|_| !held.is_decided(held.asked));
                reports.extend(votes.map(|(rank, last)| {
                    Report::StepVote(vote(job, generation, *rank, *purpose, held.asked, *last))
                }));
            }
        }
        reports
    }
}

fn notice(job: &JobName, generation: Generation, rank: Rank) -> v1::PreemptNotice {
    v1::PreemptNotice { job: job.to_string(), generation: generation.0, rank: rank.0 }
}

fn vote(
    job: &JobName,
    generation: Generation,
    rank: Rank,
    purpose: StepPurpose,
    vote: u64,
    last_step: u64,
) -> v1::StepVote {
    let purpose = purpose.into();
    v1::StepVote { job: job.to_string(), generation: generation.0, rank: rank.0, last_step, purpose, vote }
}
