//! What a sidecar knows: jobs, sessions, arenas, saves, barriers. One value under one lock; quick, and without IO but
//! for slot headers and the small records beside them. What is to be done elsewhere is put on `todo`.
//! Called by the rest of the sidecar; knows nothing of sockets or stores.

mod adopt;
mod agreements;
mod announce;
mod arenas;
mod barriers;
mod deaths;
mod grant;
mod job;
mod leases;
mod membership;
mod saves;
mod session;
mod settle;
mod stacks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub(super) use arenas::{Arenas, Fate, SlotKey, Use};
pub(super) use barriers::{Barriers, Meeting};
pub(super) use grant::Grant;
pub(super) use job::{Job, Outcome};
pub(super) use saves::{Part, Save, SaveId, Stage, durable_report};
pub(super) use session::{EVENTS, Events, Session};
pub(super) use stacks::{Answer, Found};

use super::records;
use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::ids::{ClusterId, Generation, JobName, SessionId};
use crate::proto::v1::{self, node_report::Report};
use crate::telemetry::Metrics;

pub(super) struct State {
    /// This node, as member lists name it.
    pub node: String,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    /// By user, where arenas and records lie.
    pub folders: BTreeMap<u32, PathBuf>,
    pub jobs: BTreeMap<JobName, Job>,
    pub sessions: BTreeMap<SessionId, Session>,
    pub arenas: Arenas,
    pub saves: BTreeMap<SaveId, Save>,
    pub barriers: Barriers,
    pub line: Line,
    pub draining: bool,
    /// Goodbyes that the coordinator has not taken note of yet.
    pub leaving: usize,
    pub todo: Vec<Todo>,
    stacks: stacks::Stacks,
    deaths: Vec<deaths::Death>,
    next_lease: u64,
}

/// Work that needs more than the lock.
#[derive(Debug)]
pub(super) enum Todo {
    Persist(SaveId),
    /// Checksums of a slot that was just sealed.
    Sum(SlotKey, u64),
    Publish(v1::WriteCommit),
    Remove(v1::RemoveStep),
    Target(v1::TargetOrder),
    Stack(v1::TakeStack),
    /// A generation has ended: ranks that were copying may still seal, and can't tell.
    AwaitSeals(JobName, Generation),
    /// What is committed, after a restart of this sidecar.
    LearnSteps(JobName),
    /// A generation over several nodes has opened: do they see one store?
    CheckShared(JobName),
    Sweep,
}

/// The line to the coordinator as the state sees it: reports go here, and are lost while it is down. What must not be
/// lost is announced again by [`State::announce`].
#[derive(Default)]
pub(super) struct Line {
    queue: Option<mpsc::Sender<v1::NodeReport>>,
    /// Welcomed on the present stream.
    pub attached: bool,
    pub cluster: Option<ClusterId>,
    /// The coordinator takes several registrations in one call.
    pub registers_many: bool,
    /// Why it is down.
    pub problem: Option<Error>,
}

impl Line {
    pub fn report(&mut self, report: Report) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(v1::NodeReport { report: Some(report) }).is_err() {
            // It does not take what we send: the stream is cut, and everything announced on the next one.
            self.down(Error::unavailable("reporting to the coordinator: it does not read"));
        }
    }

    pub fn down(&mut self, problem: Error) {
        self.queue = None;
        self.attached = false;
        self.problem = Some(problem);
    }

    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }
}

impl State {
    pub fn new(
        node: String,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        folders: BTreeMap<u32, PathBuf>,
    ) -> State {
        State {
            node,
            clock,
            metrics,
            folders,
            jobs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            arenas: Arenas::default(),
            saves: BTreeMap::new(),
            barriers: Barriers::default(),
            line: Line::default(),
            draining: false,
            leaving: 0,
            todo: Vec::new(),
            stacks: Default::default(),
            deaths: Vec::new(),
            next_lease: 1,
        }
    }

    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    pub fn job(&mut self, job: &JobName) -> &mut Job {
        self.jobs.entry(job.clone()).or_default()
    }

    pub fn job_of(&self, session: SessionId) -> Option<&Job> {
        self.jobs.get(&self.sessions.get(&session)?.record.job)
    }

    /// The session a call names. NotFound for none of ours, Denied for another user's (P9).
    pub fn session(&self, id: u64, uid: u32) -> Result<&Session> {
        let session = self.reader(id, uid)?;
        if session.record.closed { Err(unknown(id)) } else { Ok(session) }
    }

    /// The same for what also a session that has said goodbye may do: give leases back.
    pub fn reader(&self, id: u64, uid: u32) -> Result<&Session> {
        let session = self.sessions.get(&SessionId(id)).ok_or_else(|| unknown(id))?;
        if session.record.uid != uid {
            return Err(Error::denied(format!(
                "calling the sidecar: the session belongs to uid {}, the caller is uid {uid}",
                session.record.uid
            )));
        }
        Ok(session)
    }

    /// The same for a call that a fenced member may not make.
    pub fn member(&self, id: u64, uid: u32) -> Result<&Session> {
        let session = self.session(id, uid)?;
        match &session.fenced {
            Some(error) => Err(error.clone()),
            None => Ok(session),
        }
    }

    pub fn count_sessions(&self) {
        let connected = self.sessions.values().filter(|session| session.events.is_some()).count();
        self.metrics.sessions.set(connected as i64);
    }

    /// Writes down what a restarted sidecar must know of a session.
    pub fn record_session(&self, id: SessionId) -> Result<()> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let Some(folder) = self.folders.get(&session.record.uid) else { return Ok(()) };
        records::save_session(folder, &session.record)
    }

    /// Where the session's life line is, or is to be.
    pub fn life_line(&self, id: SessionId) -> Option<PathBuf> {
        let session = self.sessions.get(&id)?;
        Some(records::life_path(self.folders.get(&session.record.uid)?, id))
    }

    /// The same where nothing depends on it at once: a failure is logged.
    pub fn note_session(&self, id: SessionId) {
        if let Err(error) = self.record_session(id) {
            tracing::error!("noting a session: {error}");
        }
    }

    pub fn note_job(&self, job: &JobName) {
        let Some(known) = self.jobs.get(job) else { return };
        let (Some(folder), Some(record)) = (self.folders.get(&known.uid), known.record(job)) else { return };
        if let Err(error) = records::save_job(folder, &record) {
            tracing::error!("noting a job: {error}");
        }
    }
}

fn unknown(id: u64) -> Error {
    Error::not_found(format!("calling the sidecar: it knows no session {id}"))
        .hint("call strata.connect again")
}
