//! Joining, leaving, losing: how generations open and end.

use std::collections::BTreeMap;

use super::State;
use super::command::Registration;
use super::effect::Effect;
use super::job::{Ended, Job, LostMember, Member, Open};
use super::saves::StepRecord;
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, Rank};

impl State {
    pub(super) fn register(&mut self, new: &Registration) -> Result<Vec<Effect>> {
        let fresh = Job::default();
        let job = self.jobs.get(&new.job).unwrap_or(&fresh);
        if job.by_key(new.rank, &new.key).is_some() {
            return Ok(Vec::new());
        }
        job.admit(new).map_err(|error| {
            error.while_doing(format!("registering rank {} of job {}", new.rank, new.job))
        })?;
        let known = self.jobs.contains_key(&new.job);
        let job = self.jobs.entry(new.job.clone()).or_default();
        if !known || job.world.0 == 0 {
            job.token = Some(new.token.clone()).filter(|token| !token.is_empty());
        }
        Ok(job.join(new))
    }
}

impl Job {
    /// Whether this registration may join; changes nothing.
    fn admit(&self, new: &Registration) -> Result<()> {
        if new.world.0 == 0 || new.rank.0 >= new.world.0 {
            return Err(Error::invalid(format!("rank {} of a world of {}", new.rank, new.world))
                .hint("ranks count from 0 to world_size - 1: check RANK and WORLD_SIZE, or STRATA_RANK and STRATA_WORLD_SIZE"));
        }
        if self.world.0 > 0 {
            self.check_token(&new.job, &new.token)?;
        }
        self.admit_number(new)?;
        self.admit_world(new)?;
        self.admit_store(new)
    }

    fn admit_number(&self, new: &Registration) -> Result<()> {
        let open =
            self.open.as_ref().and_then(|open| open.members.get(&new.rank)).filter(|member| !member.left);
        if let Some(holder) = open {
            return Err(Error::conflict(format!(
                "rank {} is alive already on host {} in generation {}",
                new.rank, holder.host, self.latest
            ))
            .hint("if that process belongs to another run, stop it or give this run another job name (STRATA_JOB)"));
        }
        if let Some(holder) = self.forming.get(&new.rank) {
            return Err(Error::conflict(format!(
                "two ranks claim one number: rank {} has registered already from host {}",
                new.rank, holder.host
            ))
            .hint("give every process its own RANK; a process that died is forgotten when its lease ends"));
        }
        Ok(())
    }

    fn admit_world(&self, new: &Registration) -> Result<()> {
        let Some((rank, holder)) = self.present().next() else { return Ok(()) };
        if self.world != new.world {
            return Err(Error::conflict(format!(
                "it declares a world of {}, but rank {rank} on host {} belongs to a world of {}",
                new.world, holder.host, self.world
            ))
            .hint("all ranks of a job declare the same world_size; another run needs another job name (STRATA_JOB)"));
        }
        // One of them stands for all: each was admitted beside the others. Asking everyone is O(members²) over a world.
        let other = new.uid.and_then(|_| self.present().find(|(_, member)| member.uid.is_some()));
        if let Some((rank, holder)) = other.filter(|(_, member)| member.uid != new.uid) {
            return Err(Error::denied(format!(
                "it runs as another user than rank {rank} on host {}",
                holder.host
            ))
            .hint("run all ranks of a job as one user, or use another job name (STRATA_JOB)"));
        }
        Ok(())
    }

    fn admit_store(&self, new: &Registration) -> Result<()> {
        let Some(store) = &new.store else { return Ok(()) };
        let same = self.store.as_ref().is_none_or(|known| known == store);
        if !same {
            let holder = self.present().find(|(_, member)| member.node.is_some());
            if let Some((rank, holder)) = holder {
                return Err(Error::conflict(format!(
                    "its store is {store}, but rank {rank} on host {} uses {}",
                    holder.host,
                    self.store.as_deref().unwrap_or("none")
                ))
                .hint("set STRATA_STORE to one URL that every node reaches"));
            }
            if let Some(attempt) = self.attempts.iter().find(|attempt| attempt.intent.is_some()) {
                return Err(Error::conflict(format!(
                    "its store is {store}, but the commit of step {} in {} is still under way",
                    attempt.step,
                    self.store.as_deref().unwrap_or("none")
                ))
                .hint("start a sidecar with the old store once, or use another job name"));
            }
            return Ok(());
        }
        let Some(findings) = &new.findings else { return Ok(()) };
        let settled = self.store.is_some() && (self.present().next().is_some() || !self.steps.is_empty());
        match self.uuid {
            Some(uuid) if settled && uuid != findings.uuid => Err(Error::conflict(format!(
                "the store {store} belongs to the job with uuid {} as this node sees it, but to {uuid} as {}",
                findings.uuid,
                self.holder_of_the_store(),
            ))
            .hint("is the store mounted there? every node must see the same directory or bucket; if the job's checkpoints were removed on purpose, use another job name")),
            _ => Ok(()),
        }
    }

    fn holder_of_the_store(&self) -> String {
        let holder = self.present().find(|(_, member)| member.node.is_some());
        holder.map_or("the coordinator knows it".to_owned(), |(rank, member)| {
            format!("host {} sees it, where rank {rank} is", member.host)
        })
    }

    /// Everyone who holds a number now: living members and registrations.
    fn present(&self) -> impl Iterator<Item = (Rank, &Member)> {
        let living = self.open.iter().flat_map(|open| open.living());
        living.chain(self.forming.iter().map(|(rank, member)| (*rank, member)))
    }

    fn join(&mut self, new: &Registration) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(store) = &new.store {
            if self.store.as_ref().is_some_and(|known| known != store) {
                // The job goes on in another store: what the old one holds is not there. A COMMIT in the new one must
                // not name what is still being written to the old one.
                effects = self.give_up_all(&new.job, "the job goes on in another store");
                self.steps.clear();
                self.removals.clear();
                self.uuid = None;
            }
            self.store = Some(store.clone());
        }
        if let Some(findings) = &new.findings {
            self.uuid = Some(findings.uuid);
            self.latest = self.latest.max(findings.highest_generation);
            for (step, record) in &findings.steps {
                if !self.removals.iter().any(|removal| removal.committed && removal.step == *step) {
                    let known = self.steps.entry(*step).or_insert_with(|| record.clone());
                    // Its COMMIT could not be read when we heard of it first.
                    if known.generation.0 == 0 {
                        let holders = known.holders.clone();
                        *known = StepRecord { pinned: known.pinned, holders, ..record.clone() };
                    }
                }
            }
        }
        self.uuid.get_or_insert(new.fresh_uuid);
        self.world = new.world;
        let member = Member {
            host: new.host.clone(),
            address: new.address.clone(),
            node: new.node.clone(),
            session: new.session,
            incarnation: new.incarnation.clone(),
            key: new.key.clone(),
            uid: new.uid,
            left: false,
        };
        self.forming.insert(new.rank, member);
        if self.forming.len() >= self.world.0 as usize {
            effects.extend(self.open_generation(new));
        }
        effects
    }

    fn open_generation(&mut self, new: &Registration) -> Vec<Effect> {
        let generation = self.latest.next();
        self.latest = generation;
        self.open = Some(Open {
            generation,
            world: self.world,
            members: std::mem::take(&mut self.forming),
            opened_unix_ms: new.unix_ms,
            preempt_at: None,
            save_at: None,
            interval_steps: new.interval_steps,
            released: BTreeMap::new(),
            restores: Vec::new(),
        });
        // Attempts of ended generations that are not pending are abandoned by their number from here on.
        self.abandoned.clear();
        let mut effects = self.settle_attempts(&new.job, generation, &new.adoptable);
        effects.push(Effect::GenerationOpened { job: new.job.clone() });
        effects
    }

    /// Idempotent: a rank that is gone has left.
    pub(super) fn leave(&mut self, job: &JobName, rank: Rank, incarnation: &str) -> Result<Vec<Effect>> {
        if self.forming.get(&rank).is_some_and(|member| member.incarnation == incarnation) {
            self.forming.remove(&rank);
            return Ok(Vec::new());
        }
        let Some(open) = &mut self.open else { return Ok(Vec::new()) };
        match open.members.get_mut(&rank) {
            Some(member) if member.incarnation == incarnation => member.left = true,
            _ => return Ok(Vec::new()),
        }
        if open.living().next().is_some() {
            return Ok(Vec::new());
        }
        let ended =
            Ended { generation: open.generation, lost: Vec::new(), reason: "all ranks left".to_owned() };
        Ok(vec![self.end(job, ended)])
    }

    pub(super) fn lose(
        &mut self,
        job: &JobName,
        lost: &BTreeMap<Rank, String>,
        reason: &str,
    ) -> Result<Vec<Effect>> {
        let mut effects = Vec::new();
        for (rank, incarnation) in lost {
            if self.forming.get(rank).is_some_and(|member| member.incarnation == *incarnation) {
                self.forming.remove(rank);
                effects.push(Effect::RegistrationLost {
                    job: job.clone(),
                    rank: *rank,
                    incarnation: incarnation.clone(),
                    reason: reason.to_owned(),
                });
            }
        }
        let Some(open) = &self.open else { return Ok(effects) };
        let gone: Vec<LostMember> = open
            .living()
            .filter(|(rank, member)| {
                lost.get(rank).is_some_and(|incarnation| *incarnation == member.incarnation)
            })
            .map(|(rank, member)| LostMember { rank, node: member.node.clone(), host: member.host.clone() })
            .collect();
        if !gone.is_empty() {
            let ended = Ended { generation: open.generation, lost: gone, reason: reason.to_owned() };
            effects.push(self.end(job, ended));
        }
        Ok(effects)
    }

    fn end(&mut self, job: &JobName, ended: Ended) -> Effect {
        self.open = None;
        self.last_ended = Some(ended.clone());
        Effect::GenerationEnded { job: job.clone(), ended }
    }

    pub(super) fn release_barrier(
        &mut self,
        job: &JobName,
        generation: Generation,
        name: &str,
        round: u64,
    ) -> Result<Vec<Effect>> {
        self.fence(job, generation)?;
        let open = self.open.as_mut().expect("fence found it open");
        let highest = open.released.entry(name.to_owned()).or_insert(round);
        *highest = (*highest).max(round);
        Ok(vec![Effect::BarrierReleased { job: job.clone(), generation, name: name.to_owned(), round }])
    }
}
