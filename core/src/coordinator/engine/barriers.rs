//! Barriers by (job, name, generation, round): released to all of a frozen set or to none. Arrivals are not logged;
//! sidecars send theirs again after a reconnect.

use std::collections::{BTreeMap, BTreeSet};

use super::super::state::Command;
use super::{Engine, Reply, convert};
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, Rank};
use crate::proto::v1::{self, node_command::Command as Push};

#[derive(Default)]
pub struct Barriers {
    jobs: BTreeMap<JobName, OfGeneration>,
}

#[derive(Default)]
struct OfGeneration {
    generation: Generation,
    pending: BTreeMap<(String, u64), Barrier>,
    /// Highest released round by name: it answers every earlier one too.
    released: BTreeMap<String, u64>,
}

struct Barrier {
    /// Of those who lived when the first came.
    missing: BTreeSet<Rank>,
    waiters: Vec<Reply<v1::BarrierReply>>,
}

impl Engine {
    fn barriers_of(&mut self, job: &JobName, generation: Generation) -> &mut OfGeneration {
        let known = self.state.jobs.get(job).and_then(|known| known.open.as_ref());
        let of = self.barriers.jobs.entry(job.clone()).or_default();
        if of.generation != generation {
            let logged = known.map(|open| open.released.clone().into_iter().collect()).unwrap_or_default();
            *of = OfGeneration { generation, released: logged, pending: BTreeMap::new() };
        }
        of
    }

    /// Ranks arrive; the key is known to belong to the open generation. True when it is released already.
    fn arrive(
        &mut self,
        job: &JobName,
        generation: Generation,
        key: (String, u64),
        ranks: impl IntoIterator<Item = Rank>,
    ) -> bool {
        let of = self.barriers_of(job, generation);
        if of.released.get(&key.0).is_some_and(|round| *round >= key.1) {
            return true;
        }
        if !of.pending.contains_key(&key) {
            let open = self.state.job(job).ok().and_then(|known| known.open.as_ref());
            let Some(open) = open else { return false };
            let missing = open.living().map(|(rank, _)| rank).collect();
            let barrier = Barrier { missing, waiters: Vec::new() };
            self.barriers_of(job, generation).pending.insert(key.clone(), barrier);
        }
        let barrier = self.barriers_of(job, generation).pending.get_mut(&key).expect("it was put there");
        for rank in ranks {
            barrier.missing.remove(&rank);
        }
        false
    }

    fn complete(&mut self, job: &JobName, generation: Generation, key: (String, u64)) {
        let of = self.barriers_of(job, generation);
        let whole = of.pending.get(&key).is_some_and(|barrier| barrier.missing.is_empty());
        if !whole {
            return;
        }
        let direct = self.state.job(job).ok().and_then(|known| known.open.as_ref());
        let direct = direct.is_some_and(|open| open.members.values().any(|member| member.node.is_none()));
        if direct {
            let (name, round) = key;
            let command = Command::ReleaseBarrier { job: job.clone(), generation, name, round };
            if let Err(error) = self.submit(command) {
                self.warn(job, error.message);
            }
        } else {
            self.release(job, generation, &key.0, key.1);
        }
    }

    pub(super) fn release(&mut self, job: &JobName, generation: Generation, name: &str, round: u64) {
        let of = self.barriers_of(job, generation);
        let highest = of.released.entry(name.to_owned()).or_insert(round);
        *highest = (*highest).max(round);
        let waiters = match of.pending.remove(&(name.to_owned(), round)) {
            Some(barrier) => barrier.waiters,
            None => Vec::new(),
        };
        self.metrics.barriers_released.inc();
        for reply in waiters {
            self.answer(reply, Ok(v1::BarrierReply { generation: generation.0, round }));
        }
        let message = v1::BarrierReleased {
            job: job.to_string(),
            generation: generation.0,
            name: name.to_owned(),
            round,
        };
        self.push_job(job, Push::Barrier(message));
    }

    pub fn barrier(&mut self, request: v1::BarrierRequest, reply: Reply<v1::BarrierReply>) {
        let (job, generation, caller) = match self.member(request.caller) {
            Ok(member) => member,
            Err(error) => return self.answer(reply, Err(error)),
        };
        let key = (request.name, request.round);
        if self.arrive(&job, generation, key.clone(), [Rank(caller.rank)]) {
            return self.answer(reply, Ok(v1::BarrierReply { generation: generation.0, round: key.1 }));
        }
        if let Some(barrier) = self.barriers_of(&job, generation).pending.get_mut(&key) {
            barrier.waiters.push(reply);
        }
        self.complete(&job, generation, key);
    }

    /// Arrivals that a sidecar has folded, or its word that it saw the release.
    pub(super) fn arrived(&mut self, node: &str, arrival: v1::BarrierArrival) {
        let Ok(job) = arrival.job.parse::<JobName>() else { return };
        let generation = Generation(arrival.generation);
        let open = self.state.job(&job).is_ok_and(|known| known.fence(&job, generation).is_ok());
        if !open {
            self.metrics.calls_fenced.inc();
            return self.tell_generation(node, &job, generation);
        }
        let key = (arrival.name, arrival.round);
        let done = self.arrive(&job, generation, key.clone(), arrival.ranks.into_iter().map(Rank));
        if done {
            let (name, round) = key;
            let message = v1::BarrierReleased { job: job.to_string(), generation: generation.0, name, round };
            self.push_node(node, Push::Barrier(message));
        } else if arrival.released {
            self.release(&job, generation, &key.0, key.1);
        } else {
            self.complete(&job, generation, key);
        }
    }

    /// Why a barrier call timed out: names the missing ranks and their hosts.
    pub fn barrier_missing(&mut self, request: &v1::BarrierRequest) -> Error {
        let member: Result<_> = self.member(request.caller.clone());
        let (job, generation, _) = match member {
            Ok(member) => member,
            Err(error) => return error,
        };
        self.metrics.barriers_timed_out.inc();
        let key = (request.name.clone(), request.round);
        let of = self.barriers_of(&job, generation);
        let barrier = of.pending.get_mut(&key);
        let missing: Vec<Rank> = match barrier {
            Some(barrier) => {
                barrier.waiters.retain(|reply| !reply.0.is_closed());
                barrier.missing.iter().copied().collect()
            }
            None => Vec::new(),
        };
        let open = self.state.job(&job).ok().and_then(|known| known.open.as_ref());
        let hosts: Vec<String> = missing
            .iter()
            .take(16)
            .map(|rank| match open.and_then(|open| open.members.get(rank)) {
                Some(member) if member.left => format!("{rank} ({}, has left)", member.host),
                Some(member) => format!("{rank} ({})", member.host),
                None => rank.to_string(),
            })
            .collect();
        Error::timeout(format!(
            "waiting at barrier {:?} (round {}) of job {job}: {} of the ranks did not arrive: {}",
            request.name,
            request.round,
            missing.len(),
            hosts.join(", ")
        ))
        .hint("look at their logs, or give a longer timeout; calling again repeats this round")
    }

    /// The set stays frozen; who has left is named when the call times out.
    pub(super) fn barriers_after_leaving(&mut self, job: &JobName) {
        if self.state.job(job).is_ok_and(|known| known.open.is_none()) {
            self.barriers.jobs.remove(job);
        }
    }

    pub(super) fn barriers_ended(&mut self, job: &JobName, generation: Generation) {
        let Some(of) = self.barriers.jobs.remove(job) else { return };
        let Ok(error) = self.state.job(job).map(|known| known.fenced(job, generation)) else { return };
        for barrier in of.pending.into_values() {
            for reply in barrier.waiters {
                self.answer(reply, Err(error.clone()));
            }
        }
    }
}

/// Ranks of a message, for errors elsewhere.
pub(super) fn named(ranks: &BTreeSet<Rank>) -> String {
    convert::list(&ranks.iter().copied().collect::<Vec<_>>())
}
