//! Registration, leaving, waiting for a generation, heartbeats of workers that speak gRPC themselves.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::super::settings::SaveEvery;
use super::super::state::{Command, Registration};
use super::{Engine, Reply, convert};
use crate::error::{Error, Kind, Result};
use crate::ids::{Generation, JobName, JobUuid, Rank, SessionId, WorldSize};
use crate::proto::v1::{self, worker_command::Command as Told};

/// A call that waits for the generation to open; a member's names its incarnation.
struct Waiter {
    who: Option<String>,
    /// It wants to know of one node alone.
    node: Option<String>,
    reply: Reply<v1::Generation>,
}

#[derive(Default)]
pub struct Waiting {
    generations: BTreeMap<JobName, Vec<Waiter>>,
    /// Commands for direct workers, by incarnation: told with the next beat, or at once on a stream.
    told: BTreeMap<String, Vec<Told>>,
    streams: BTreeMap<String, mpsc::Sender<Result<v1::HeartbeatReply, tonic::Status>>>,
}

impl Engine {
    pub fn register(&mut self, request: v1::RegisterWorkerRequest) -> Result<v1::RegisterWorkerReply> {
        let job: JobName = request.job.parse()?;
        let rank = Rank(request.rank);
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let node = given(request.node);
        let key = request.idempotency_key;
        if self.state.job(&job).ok().and_then(|known| known.by_key(rank, &key)).is_none() {
            let registration = Registration {
                job: job.clone(),
                rank,
                world: WorldSize(request.world_size),
                host: given(request.host).unwrap_or_else(|| request.ip.clone()),
                address: format!("{}:{}", request.ip, request.port),
                uid: node.is_some().then_some(request.uid),
                node: node.clone(),
                session: SessionId(request.session),
                store: given(request.store),
                token: request.token,
                key: key.clone(),
                findings: request.findings.map(convert::findings).transpose()?,
                incarnation: (self.names)().to_string(),
                fresh_uuid: JobUuid((self.names)()),
                adoptable: self.adoptable(&job),
                unix_ms: self.unix_ms(),
                interval_steps: self.settings.checkpoint_interval.steps(),
            };
            let incarnation = registration.incarnation.clone();
            // Before the command: if it opens the generation, the pushes reach this node too.
            if let Some(node) = node.as_ref().and_then(|name| self.nodes.by_name.get_mut(name)) {
                node.jobs.insert(job.clone());
            }
            if let Err(error) = self.submit(Command::Register(Box::new(registration))) {
                return Err(self.until_the_holder_is_lost(error, &job, rank));
            }
            if let Some(node) = node.as_ref().and_then(|name| self.nodes.by_name.get_mut(name)) {
                node.sessions.insert((job.clone(), rank));
            }
            self.metrics.registrations.inc();
            self.ledger_registered(&job);
            self.lease(job.clone(), rank, incarnation.clone());
            return self.registered(&job, rank, &incarnation);
        }
        // The answer was lost, and with it perhaps the line: pushes of the job go there from now on, and what was asked.
        if let Some(name) = node
            && self.nodes.by_name.get_mut(&name).is_some_and(|node| node.jobs.insert(job.clone()))
        {
            self.redrive_asks(&name, &job);
        }
        let incarnation = self.state.job(&job)?.by_key(rank, &key).map(|member| member.incarnation.clone());
        self.registered(&job, rank, &incarnation.unwrap_or_default())
    }

    /// A refused number may come free soon: its holder is silent, perhaps lost together with the proof of its death (a
    /// machine that was restarted). Says when its lease runs out.
    fn until_the_holder_is_lost(&self, error: Error, job: &JobName, rank: Rank) -> Error {
        let open = self.state.job(job).ok().and_then(|known| known.open.as_ref());
        let holder = open.and_then(|open| open.members.get(&rank)).filter(|member| !member.left);
        let Some(lease) = holder.and_then(|holder| self.lease_of(&holder.incarnation)) else { return error };
        let now = self.now();
        let silent = lease.suspect || now.saturating_sub(lease.heard) >= self.settings.timings.suspect_after;
        match silent && error.kind == Kind::Conflict {
            true => error.retry_after(lease.until.saturating_sub(now)),
            false => error,
        }
    }

    fn registered(&self, job: &JobName, rank: Rank, incarnation: &str) -> Result<v1::RegisterWorkerReply> {
        let known = self.state.job(job)?;
        let forming = known.forming.get(&rank).is_some_and(|member| member.incarnation == incarnation);
        Ok(v1::RegisterWorkerReply {
            job_uuid: known.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
            joining: if forming { known.latest.next().0 } else { known.latest.0 },
            config: Some(self.worker_config(job)),
            incarnation: incarnation.to_owned(),
        })
    }

    pub fn worker_config(&self, job: &JobName) -> v1::WorkerConfig {
        let timings = &self.settings.timings;
        v1::WorkerConfig {
            heartbeat_interval_ms: timings.heartbeat.as_millis() as u64,
            lease_ms: timings.lease.as_millis() as u64,
            save_wait_ms: timings.save_wait.as_millis() as u64,
            commit_timeout_ms: timings.commit_timeout.as_millis() as u64,
            timeout_ms: timings.timeout.as_millis() as u64,
            checkpoint_interval_steps: self.settings.checkpoint_interval.steps(),
            checkpoint_interval_auto: self.settings.checkpoint_interval == SaveEvery::Auto,
            store: self.state.job(job).ok().and_then(|known| known.store.clone()).unwrap_or_default(),
            keep_last: self.settings.keep.last,
        }
    }

    /// Idempotent: also after the generation has ended.
    pub fn remove_worker(&mut self, request: v1::RemoveWorkerRequest) -> Result<()> {
        let caller =
            request.caller.ok_or_else(|| Error::invalid("leaving a job: the caller is not named"))?;
        let job: JobName = caller.job.parse()?;
        let rank = Rank(caller.rank);
        let known = self.state.job(&job)?;
        known.check_token(&job, &caller.token)?;
        if known.by_incarnation(rank, &request.incarnation).is_none_or(|member| member.left) {
            return Ok(());
        }
        let node = known.by_incarnation(rank, &request.incarnation).and_then(|member| member.node.clone());
        if let Some(node) = node.and_then(|name| self.nodes.by_name.get_mut(&name)) {
            node.sessions.remove(&(job.clone(), rank));
        }
        self.submit(Command::Leave { job: job.clone(), rank, incarnation: request.incarnation })?;
        self.leases_ended();
        self.barriers_after_leaving(&job);
        self.asks_after_leaving(&job);
        Ok(())
    }

    pub fn wait_generation(&mut self, request: v1::WaitGenerationRequest, reply: Reply<v1::Generation>) {
        match self.opened_for(&request) {
            Ok(Some(generation)) => self.answer(reply, Ok(generation)),
            Ok(None) => {
                let job: JobName = request.job.parse().expect("opened_for has parsed it");
                let node = self.node_asked_for(&job, &request);
                let who = Some(request.incarnation).filter(|who| !who.is_empty());
                self.waiting.generations.entry(job).or_default().push(Waiter { who, node, reply });
            }
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    /// The node of the rank that waits, where nothing else is wanted.
    fn node_asked_for(&self, job: &JobName, request: &v1::WaitGenerationRequest) -> Option<String> {
        let known = self.state.job(job).ok().filter(|_| request.place)?;
        let rank = Rank(request.rank);
        let registered = known.forming.get(&rank);
        let member = registered.or_else(|| known.open.as_ref()?.members.get(&rank))?;
        Some(member.node.clone().unwrap_or_else(|| convert::DIRECT.to_owned()))
    }

    /// All of the open generation, or one node's part.
    fn opened_as_asked(&mut self, job: &JobName, node: Option<&str>) -> Option<v1::Generation> {
        if let Some(node) = node {
            return self.own_part(node, job);
        }
        let known = self.state.job(job).ok()?;
        Some(convert::generation(job, known, known.open.as_ref()?))
    }

    fn opened_for(&mut self, request: &v1::WaitGenerationRequest) -> Result<Option<v1::Generation>> {
        let job: JobName = request.job.parse()?;
        let known = self.state.job(&job)?;
        let rank = Rank(request.rank);
        let is_mine = |who: &str| request.incarnation.is_empty() || request.incarnation == who;
        let open = known
            .open
            .as_ref()
            .filter(|open| open.members.get(&rank).is_some_and(|member| is_mine(&member.incarnation)));
        match open {
            Some(open) => {
                let node = open.members[&rank].node.as_deref().unwrap_or(convert::DIRECT);
                let node = Some(node.to_owned()).filter(|_| request.place);
                Ok(self.opened_as_asked(&job, node.as_deref()))
            }
            None if known.forming.get(&rank).is_some_and(|member| is_mine(&member.incarnation)) => Ok(None),
            None => Err(known.fenced(&job, known.latest)),
        }
    }

    /// Waits for any open generation of the job (placement of a world that is not given).
    pub(super) fn wait_any_generation(&mut self, job: JobName, reply: Reply<v1::Generation>) {
        match self.state.job(&job).ok().and_then(|known| known.open.as_ref().map(|open| (known, open))) {
            Some((known, open)) => {
                let generation = convert::generation(&job, known, open);
                self.answer(reply, Ok(generation));
            }
            None => {
                let waiter = Waiter { who: None, node: None, reply };
                self.waiting.generations.entry(job).or_default().push(waiter);
            }
        }
    }

    /// Why a wait for the generation timed out.
    pub fn generation_missing(&self, job: &str) -> Error {
        let missing = match job.parse().and_then(|job: JobName| self.state.job(&job).map(|job| job.missing()))
        {
            Ok(missing) => missing,
            Err(error) => return error,
        };
        let count = missing.len();
        let named = convert::list(&missing[..count.min(16)]);
        let more = if count > 16 { format!(" and {} more", count - 16) } else { String::new() };
        let plural = if count == 1 { "" } else { "s" };
        Error::timeout(format!("waiting for the world of job {job}: rank{plural} {named}{more} did not join"))
            .hint("start them, or look at their logs; a rank that runs under another job name is not counted")
    }

    pub(super) fn generation_opened(&mut self, job: &JobName) {
        let Ok(known) = self.state.job(job) else { return };
        let Some(open) = &known.open else { return };
        let direct: Vec<String> =
            open.members.values().filter(|m| m.node.is_none()).map(|m| m.incarnation.clone()).collect();
        tracing::info!(%job, generation = %open.generation, world = %open.world, "generation opened");
        self.metrics.generations_opened.inc();
        for Waiter { node, reply, .. } in self.waiting.generations.remove(job).unwrap_or_default() {
            if let Some(generation) = self.opened_as_asked(job, node.as_deref()) {
                self.answer(reply, Ok(generation));
            }
        }
        if direct.is_empty() {
            return;
        }
        let Some(generation) = self.opened_as_asked(job, None) else { return };
        for who in direct {
            self.tell(&who, Told::GenerationOpened(generation.clone()));
        }
    }

    /// Waiters whose registration was lost hear it at once.
    pub(super) fn registration_lost(&mut self, job: &JobName, incarnation: &str, reason: &str) {
        let Some(waiters) = self.waiting.generations.get_mut(job) else { return };
        let (lost, stay) =
            std::mem::take(waiters).into_iter().partition(|one| one.who.as_deref() == Some(incarnation));
        *waiters = stay;
        let lost: Vec<Waiter> = lost;
        for Waiter { reply, .. } in lost {
            let error =
                Error::fenced(format!("waiting for the world of job {job}: {reason}")).hint("join again");
            self.answer(reply, Err(error));
        }
    }

    pub fn heartbeat(&mut self, request: v1::HeartbeatRequest) -> Result<v1::HeartbeatReply> {
        let caller = request.caller.clone().unwrap_or_default();
        let job: JobName = caller.job.parse()?;
        let known = self.state.job(&job)?;
        known.check_token(&job, &caller.token)?;
        let rank = Rank(caller.rank);
        let open = known.open.as_ref();
        let member = open.and_then(|open| open.members.get(&rank)).filter(|member| !member.left);
        let is_mine = |who: &str| request.incarnation.is_empty() || request.incarnation == who;
        let joining = known.forming.get(&rank).filter(|member| is_mine(&member.incarnation));
        let found = match (member, joining) {
            (Some(member), _) if is_mine(&member.incarnation) => {
                let generation = self.latest(&job);
                // 0: it has not heard yet that the generation opened; this reply tells it.
                (caller.generation == generation.0 || caller.generation == 0)
                    .then(|| (member.incarnation.clone(), generation))
            }
            (_, Some(joining)) if caller.generation == 0 => {
                Some((joining.incarnation.clone(), Generation(0)))
            }
            _ => None,
        };
        let Some((who, generation)) = found else {
            self.metrics.calls_fenced.inc();
            return Err(known.fenced(&job, Generation(caller.generation)));
        };
        self.metrics.heartbeats.inc();
        if let Some(progress) = &request.progress {
            self.ledger_seen(&job, generation, &v1::Progress { rank: rank.0, ..*progress });
        }
        self.beat(&who, request.progress);
        let commands = self.waiting.told.remove(&who).unwrap_or_default();
        Ok(self.beat_reply(generation, commands))
    }

    fn latest(&self, job: &JobName) -> Generation {
        self.state.job(job).map(|known| known.latest).unwrap_or_default()
    }

    fn beat_reply(&self, generation: Generation, told: Vec<Told>) -> v1::HeartbeatReply {
        v1::HeartbeatReply {
            commands: told.into_iter().map(|command| v1::WorkerCommand { command: Some(command) }).collect(),
            lease_ms: self.settings.timings.lease.as_millis() as u64,
            generation: generation.0,
        }
    }

    /// From now on commands for this worker leave on its heartbeat stream at once.
    pub fn stream_beats(
        &mut self,
        incarnation: String,
        send: mpsc::Sender<Result<v1::HeartbeatReply, tonic::Status>>,
    ) {
        self.waiting.streams.retain(|_, stream| !stream.is_closed());
        self.waiting.streams.insert(incarnation, send);
    }

    pub(super) fn tell(&mut self, incarnation: &str, command: Told) {
        let Some(stream) =
            self.waiting.streams.get(incarnation).filter(|stream| !stream.is_closed()).cloned()
        else {
            self.waiting.told.entry(incarnation.to_owned()).or_default().push(command);
            return;
        };
        let job = self.lease_of(incarnation).map(|lease| lease.job.clone());
        let generation = job.map(|job| self.latest(&job)).unwrap_or_default();
        let reply = self.beat_reply(generation, vec![command]);
        self.outbox.push(Box::new(move || {
            // A worker that does not read its stream hears it as Fenced or with the next call.
            let _ = stream.try_send(Ok(reply));
        }));
    }

    /// Commands of members that are gone.
    pub(super) fn forget_told(&mut self) {
        if self.waiting.told.is_empty() {
            return;
        }
        let known = &self.state.jobs;
        let alive = |who: &String| {
            known.values().any(|job| {
                let open = job.open.iter().flat_map(|open| open.members.values());
                open.chain(job.forming.values()).any(|member| member.incarnation == *who)
            })
        };
        self.waiting.told.retain(|who, _| alive(who));
    }
}

impl Engine {
    pub(super) fn direct_streams(&self) -> Vec<String> {
        self.waiting.streams.keys().cloned().collect()
    }
}
