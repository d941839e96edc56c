//! What ranks are doing, asked of the sidecars that they came through.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::state::Member;
use super::{Engine, Reply};
use crate::error::{Error, Result};
use crate::ids::{JobName, Rank};
use crate::proto::v1::{self, node_command::Command as Push};
use crate::text::printable;

/// A sidecar gives up on a process after 5 s.
const ANSWER: Duration = Duration::from_secs(8);
/// Ranks of one request: with the longest stacks 4 MiB.
const AT_ONCE: usize = 64;
/// Of one rank.
const LONGEST: usize = 64 << 10;
/// Of the other texts.
const WORDS: usize = 1 << 10;

#[derive(Default)]
pub struct Stacks {
    numbers: u64,
    asked: BTreeMap<u64, Asked>,
    waiting: BTreeMap<u64, Waiting>,
}

/// A rank that has yet to answer.
struct Asked {
    job: JobName,
    rank: Rank,
    incarnation: String,
    host: String,
    node: String,
    until: Duration,
    whom: Whom,
}

#[derive(Clone, Copy)]
enum Whom {
    /// To be logged, and shown with the rank's state.
    Status,
    /// Number of who waits for it.
    Caller(u64),
}

struct Waiting {
    reply: Reply<v1::GetStacksReply>,
    open: usize,
    told: v1::GetStacksReply,
}

impl Engine {
    /// Asks ranks of a job. Conflict where none runs, NotFound for a rank that is not there.
    pub fn stacks(&mut self, request: v1::GetStacksRequest, reply: Reply<v1::GetStacksReply>) {
        let (job, ranks) = match self.ranks_to_ask(&request) {
            Ok(found) => found,
            Err(error) => return self.answer(reply, Err(error)),
        };
        let (asked, others) = ranks.split_at(ranks.len().min(AT_ONCE));
        let number = self.next_request();
        let told =
            v1::GetStacksReply { stacks: Vec::new(), not_asked: super::convert::ranks(others.to_vec()) };
        self.stacks.waiting.insert(number, Waiting { reply, open: asked.len(), told });
        for rank in asked {
            self.ask_stack(&job, *rank, Whom::Caller(number));
        }
        self.answer_stacks(number);
    }

    fn ranks_to_ask(&self, request: &v1::GetStacksRequest) -> Result<(JobName, Vec<Rank>)> {
        let job: JobName = request.job.parse()?;
        let open = self.state.job(&job)?.open.as_ref().ok_or_else(|| {
            Error::conflict(format!("asking what the ranks of job {job} are doing: it is not running"))
                .hint("`strata status` shows which ranks it waits for")
        })?;
        let living: Vec<(Rank, &Member)> = open.living().collect();
        if let Some(unknown) =
            request.ranks.iter().find(|asked| !living.iter().any(|(rank, _)| rank.0 == **asked))
        {
            return Err(Error::not_found(format!(
                "asking what rank {unknown} of job {job} is doing: it has no such rank that lives"
            ))
            .hint("`strata status` lists its ranks"));
        }
        if !request.ranks.is_empty() {
            let ranks: std::collections::BTreeSet<Rank> = request.ranks.iter().copied().map(Rank).collect();
            return Ok((job, ranks.into_iter().collect()));
        }
        let is_stalled =
            |member: &Member| self.lease_of(&member.incarnation).is_some_and(|lease| lease.stall.is_some());
        let stalled: Vec<Rank> =
            living.iter().filter(|(_, member)| is_stalled(member)).map(|(rank, _)| *rank).collect();
        let all = || living.iter().map(|(rank, _)| *rank).collect();
        Ok((job, if stalled.is_empty() { all() } else { stalled }))
    }

    /// What a rank that was just found stalled is doing.
    pub(super) fn ask_stalled(&mut self, job: &JobName, rank: Rank) {
        self.ask_stack(job, rank, Whom::Status);
    }

    fn ask_stack(&mut self, job: &JobName, rank: Rank, whom: Whom) {
        let open = self.state.jobs.get(job).and_then(|known| known.open.as_ref());
        let Some(member) = open.and_then(|open| open.members.get(&rank)) else { return };
        let asked = Asked {
            job: job.clone(),
            rank,
            incarnation: member.incarnation.clone(),
            host: member.host.clone(),
            node: member.node.clone().unwrap_or_default(),
            until: self.now() + ANSWER,
            whom,
        };
        if let Err(why) = self.reach(&asked.node) {
            return self.told(asked, missing(why));
        }
        let (request, node) = (self.next_request(), asked.node.clone());
        self.stacks.asked.insert(request, asked);
        let order = v1::TakeStack { job: job.to_string(), rank: rank.0, request };
        self.push_node(&node, Push::Stack(order));
    }

    /// Why a node can't be asked.
    fn reach(&self, node: &str) -> std::result::Result<(), String> {
        if node.is_empty() {
            return Err("it joined without a sidecar, which would take it".to_owned());
        }
        match self.nodes.by_name.get(node).filter(|node| node.line.is_some()) {
            None => Err("its sidecar is not attached".to_owned()),
            Some(node) if !node.takes_stacks => {
                Err(format!("its sidecar (strata {}) can't take one", node.version))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn stack_taken(&mut self, node: &str, taken: v1::StackTaken) {
        // Another node's answer, or one that comes too late.
        if self.stacks.asked.get(&taken.request).is_none_or(|asked| asked.node != node) {
            return;
        }
        if let Some(asked) = self.stacks.asked.remove(&taken.request) {
            self.told(asked, taken.stack.unwrap_or_default());
        }
    }

    /// Gives up on sidecars that do not answer.
    pub(super) fn check_stacks(&mut self) {
        let now = self.now();
        let late = self.stacks.asked.extract_if(.., |_, asked| asked.until <= now);
        for (_, asked) in late.collect::<Vec<_>>() {
            self.told(asked, missing(format!("its sidecar did not answer within {ANSWER:?}")));
        }
    }

    fn told(&mut self, asked: Asked, stack: v1::RankStack) {
        let stack = v1::RankStack {
            rank: asked.rank.0,
            host: asked.host.clone(),
            process: printable(&stack.process, WORDS),
            waits_in: printable(&stack.waits_in, WORDS),
            stack: printable(&stack.stack, LONGEST),
            missing: printable(&stack.missing, WORDS),
        };
        match asked.whom {
            Whom::Status => self.note_stack(&asked, stack),
            Whom::Caller(number) => {
                let Some(waiting) = self.stacks.waiting.get_mut(&number) else { return };
                waiting.told.stacks.push(stack);
                waiting.open -= 1;
                self.answer_stacks(number);
            }
        }
    }

    fn note_stack(&mut self, asked: &Asked, stack: v1::RankStack) {
        let lease = self.leases.by_member.get_mut(&asked.incarnation);
        let Some(stall) = lease.and_then(|lease| lease.stall.as_mut()) else { return };
        let (job, rank, host) = (&asked.job, asked.rank, &asked.host);
        let process = match (stack.process.as_str(), stack.waits_in.as_str()) {
            ("", _) => String::new(),
            (process, "") => format!(" ({process})"),
            (process, place) => format!(" ({process} in {place})"),
        };
        match stack.missing.is_empty() {
            true => tracing::warn!(%job, "rank {rank} on {host} stands still{process} in\n{}", stack.stack),
            false => {
                tracing::warn!(%job, "rank {rank} on {host} stands still{process}, no stack: {}", stack.missing);
            }
        }
        stall.stack = Some(stack);
    }

    /// No answer to an earlier coordinator is taken for one to this.
    fn next_request(&mut self) -> u64 {
        self.stacks.numbers = (self.stacks.numbers + 1).max(self.unix_ms());
        self.stacks.numbers
    }

    fn answer_stacks(&mut self, number: u64) {
        let is_whole = |waiting: &Waiting| waiting.open == 0;
        if !self.stacks.waiting.get(&number).is_some_and(is_whole) {
            return;
        }
        if let Some(mut waiting) = self.stacks.waiting.remove(&number) {
            waiting.told.stacks.sort_by_key(|stack| stack.rank);
            self.answer(waiting.reply, Ok(waiting.told));
        }
    }
}

fn missing(why: String) -> v1::RankStack {
    v1::RankStack { missing: why, ..Default::default() }
}
