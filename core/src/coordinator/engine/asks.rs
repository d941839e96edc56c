//! Agreeing on one step for all ranks: to stop at, after a stop signal on any rank; to save at, when an operator or the
//! interval asks for it. Each rank says which step it has asked about last and waits before a later one; the step after
//! all of them is decided. Votes are volatile: sidecars send theirs again, which asks anew.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::settings::SaveEvery;
use super::super::state::{Agreed, Command, Member, Purpose};
use super::{Engine, Reply, convert};
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, Rank, Step};
use crate::proto::v1::worker_command::Command as Told;
use crate::proto::v1::{self, node_command::Command as Push};

#[derive(Default)]
pub struct Asks {
    votes: BTreeMap<(JobName, Purpose), Vote>,
    /// By job: when its newest save was begun, or agreed on, or when a generation was first seen open.
    saved: BTreeMap<JobName, (Generation, Duration)>,
}

struct Vote {
    generation: Generation,
    number: u64,
    /// Each rank's last step that it has asked about.
    votes: BTreeMap<Rank, u64>,
    waiting: Vec<Reply<v1::AskSaveReply>>,
}

const PURPOSES: [Purpose; 2] = [Purpose::Stop, Purpose::Save];

impl Engine {
    pub(super) fn preempt_notice(&mut self, notice: v1::PreemptNotice) {
        if let Ok(job) = notice.job.parse::<JobName>() {
            self.ask(&job, Generation(notice.generation), Purpose::Stop);
        }
    }

    /// Asks all ranks of the job to stop at a common step.
    pub fn drain_job(&mut self, job: &str) -> Result<()> {
        let job: JobName = job.parse()?;
        let generation = self.running(&job)?;
        self.ask(&job, generation, Purpose::Stop);
        Ok(())
    }

    /// As `drain_job`, or to save at a common step; answers with the step.
    pub fn ask_save(&mut self, request: &v1::AskSaveRequest, reply: Reply<v1::AskSaveReply>) {
        let purpose = if request.stop { Purpose::Stop } else { Purpose::Save };
        let asked = request.job.parse::<JobName>().and_then(|job| Ok((self.running(&job)?, job)));
        let (generation, job) = match asked {
            Ok(asked) => asked,
            Err(error) => return self.answer(reply, Err(error)),
        };
        if purpose == Purpose::Stop
            && let Some(Agreed { step, .. }) = self.agreed(&job, purpose)
        {
            return self.answer(reply, Ok(v1::AskSaveReply { generation: generation.0, step: step.0 }));
        }
        self.vote_for(&job, generation, purpose, Some(reply));
    }

    /// Why `ask_save` timed out.
    pub fn save_unanswered(&self, request: &v1::AskSaveRequest) -> Error {
        let purpose = if request.stop { Purpose::Stop } else { Purpose::Save };
        let job = match request.job.parse::<JobName>() {
            Ok(job) => job,
            Err(error) => return error,
        };
        let open = self.state.job(&job).ok().and_then(|known| known.open.as_ref());
        let votes = self.asks.votes.get(&(job.clone(), purpose)).map(|vote| &vote.votes);
        let silent: Vec<Rank> = open
            .into_iter()
            .flat_map(|open| open.living())
            .filter(|(rank, _)| votes.is_none_or(|votes| !votes.contains_key(rank)))
            .map(|(rank, _)| rank)
            .collect();
        Error::timeout(format!(
            "asking job {job} for a checkpoint: rank {} did not say where it stands",
            convert::list(&silent)
        ))
        .hint("its process may be stopped or its node away: see `strata status`; who has answered goes on once it does")
    }

    fn running(&self, job: &JobName) -> Result<Generation> {
        self.state.job(job)?.open.as_ref().map(|open| open.generation).ok_or_else(|| {
            Error::conflict(format!("asking job {job} for a checkpoint: no generation is open"))
                .hint("nothing is running that could save")
        })
    }

    fn agreed(&self, job: &JobName, purpose: Purpose) -> Option<Agreed> {
        self.state.job(job).ok()?.open.as_ref()?.agreed(purpose)
    }

    pub(super) fn ask(&mut self, job: &JobName, generation: Generation, purpose: Purpose) {
        self.vote_for(job, generation, purpose, None);
    }

    /// Opens a vote, unless one is under way, which is joined, or none is held any more.
    fn vote_for(
        &mut self,
        job: &JobName,
        generation: Generation,
        purpose: Purpose,
        reply: Option<Reply<v1::AskSaveReply>>,
    ) {
        let next = self.state.job(job).and_then(|known| Ok(known.fence(job, generation)?.next_vote(purpose)));
        let Ok(Some(number)) = next else { return };
        let key = (job.clone(), purpose);
        if self.asks.votes.get(&key).is_none_or(|vote| (vote.generation, vote.number) != (generation, number))
        {
            let vote = Vote { generation, number, votes: BTreeMap::new(), waiting: Vec::new() };
            self.asks.votes.insert(key.clone(), vote);
            self.push_job(job, Push::StepQuery(query(job, generation, purpose, number)));
        }
        self.asks.votes.get_mut(&key).expect("just seen").waiting.extend(reply);
        self.count_votes(job, purpose);
    }

    pub(super) fn step_vote(&mut self, vote: v1::StepVote) {
        let Ok(job) = vote.job.parse::<JobName>() else { return };
        let (generation, purpose) = (Generation(vote.generation), convert::purpose(vote.purpose()));
        let open = self.state.job(&job).ok().and_then(|known| known.open.as_ref());
        // One that was decided long ago, or belongs to an ended generation, is nobody's answer any more.
        if open.is_none_or(|open| open.generation != generation || open.next_vote(purpose) != Some(vote.vote))
        {
            return;
        }
        self.ask(&job, generation, purpose);
        if let Some(known) = self.asks.votes.get_mut(&(job.clone(), purpose)) {
            known.votes.insert(Rank(vote.rank), vote.last_step);
        }
        self.count_votes(&job, purpose);
    }

    /// Decides once everyone has said where they are.
    pub(super) fn count_votes(&mut self, job: &JobName, purpose: Purpose) {
        let Some(vote) = self.asks.votes.get(&(job.clone(), purpose)) else { return };
        let Some(open) = self.state.job(job).ok().and_then(|known| known.open.as_ref()) else { return };
        let said = |(rank, member): (Rank, &Member)| match &member.node {
            Some(_) => vote.votes.get(&rank).copied(),
            // A worker without a sidecar is not asked: its last heartbeat says how far it is.
            None => Some(self.direct_step(member)),
        };
        let said: Option<Vec<u64>> = open.living().map(said).collect();
        let Some(last) = said.and_then(|said| said.into_iter().max()) else { return };
        let (generation, job) = (vote.generation, job.clone());
        let command = Command::Decide { job: job.clone(), generation, purpose, step: Step(last + 1) };
        if let Err(error) = self.submit(command) {
            self.warn(&job, error.message);
        }
    }

    fn direct_step(&self, member: &Member) -> u64 {
        let lease = self.lease_of(&member.incarnation);
        lease.and_then(|lease| lease.progress.as_ref()).map_or(0, |(progress, _)| progress.step)
    }

    /// A rank that has left is not waited for.
    pub(super) fn asks_after_leaving(&mut self, job: &JobName) {
        PURPOSES.into_iter().for_each(|purpose| self.count_votes(job, purpose));
    }

    pub(super) fn on_agreed(&mut self, job: &JobName, generation: Generation, purpose: Purpose) {
        let Some(agreed) = self.agreed(job, purpose) else { return };
        tracing::info!(%job, step = %agreed.step, ?purpose, "the ranks agree on a step");
        self.push_job(job, Push::StepAgreed(told(job, generation, purpose, agreed)));
        let open = self.state.job(job).ok().and_then(|known| known.open.as_ref());
        let direct = open.into_iter().flat_map(|open| open.living()).filter(|(_, m)| m.node.is_none());
        let direct: Vec<String> = direct.map(|(_, member)| member.incarnation.clone()).collect();
        let command = match purpose {
            Purpose::Stop => Told::PreemptAt(agreed.step.0),
            Purpose::Save => Told::CheckpointNow(agreed.step.0),
        };
        for who in direct {
            self.tell(&who, command.clone());
        }
        if let Some(vote) = self.asks.votes.remove(&(job.clone(), purpose)) {
            for reply in vote.waiting {
                self.answer(reply, Ok(v1::AskSaveReply { generation: generation.0, step: agreed.step.0 }));
            }
        }
        self.save_seen(job, generation);
    }

    /// A node that attaches anew hears the decisions, and the open questions again.
    pub(super) fn redrive_asks(&mut self, node: &str, job: &JobName) {
        let Some(open) = self.state.job(job).ok().and_then(|known| known.open.as_ref()) else { return };
        let mut pushes = Vec::new();
        for purpose in PURPOSES {
            let agreed = open.agreed(purpose);
            pushes.extend(agreed.map(|agreed| Push::StepAgreed(told(job, open.generation, purpose, agreed))));
            let vote = self.asks.votes.get(&(job.clone(), purpose));
            let vote = vote.filter(|vote| vote.generation == open.generation);
            pushes
                .extend(vote.map(|vote| Push::StepQuery(query(job, open.generation, purpose, vote.number))));
        }
        for push in pushes {
            self.push_node(node, push);
        }
    }

    pub(super) fn asks_ended(&mut self, job: &JobName) {
        for purpose in PURPOSES {
            let vote = self.asks.votes.remove(&(job.clone(), purpose));
            for reply in vote.into_iter().flat_map(|vote| vote.waiting) {
                let error = Error::conflict(format!(
                    "asking job {job} for a checkpoint: the generation ended before its ranks had agreed on a step"
                ));
                self.answer(reply, Err(error.hint("ask again when the job runs again")));
            }
        }
        self.asks.saved.remove(job);
    }

    /// From now on the interval counts anew.
    pub(super) fn save_seen(&mut self, job: &JobName, generation: Generation) {
        let now = self.now();
        self.asks.saved.insert(job.clone(), (generation, now));
    }

    /// With the interval "auto": asks the jobs whose next save is due.
    pub(super) fn check_intervals(&mut self) {
        if self.settings.checkpoint_interval != SaveEvery::Auto {
            return;
        }
        let running = self.state.jobs.iter().filter_map(|(job, known)| Some((job, known.open.as_ref()?)));
        // Ranks that count steps for themselves go on with that until their generation ends.
        let running = running.filter(|(_, open)| open.interval_steps == 0);
        let running: Vec<_> = running.map(|(job, open)| (job.clone(), open.generation)).collect();
        let now = self.now();
        for (job, generation) in running {
            match self.asks.saved.get(&job) {
                Some((of, since)) if *of == generation => {
                    let due = self.save_interval(&job).is_some_and(|interval| now >= *since + interval);
                    if due {
                        self.ask(&job, generation, Purpose::Save);
                    }
                }
                _ => self.save_seen(&job, generation),
            }
        }
    }
}

fn query(job: &JobName, generation: Generation, purpose: Purpose, vote: u64) -> v1::StepQuery {
    let purpose = v1::StepPurpose::from(purpose).into();
    v1::StepQuery { job: job.to_string(), generation: generation.0, purpose, vote }
}

fn told(job: &JobName, generation: Generation, purpose: Purpose, agreed: Agreed) -> v1::StepAgreed {
    v1::StepAgreed {
        job: job.to_string(),
        generation: generation.0,
        step: agreed.step.0,
        purpose: v1::StepPurpose::from(purpose).into(),
        vote: agreed.vote,
    }
}
