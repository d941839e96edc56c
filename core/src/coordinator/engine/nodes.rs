//! Attached sidecars: who is on the line, which sessions each vouches for, and how pushes reach it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::state::Member;
use super::Engine;
use crate::error::Error;
use crate::ids::{Generation, JobName, Rank};
use crate::proto::v1::{self, node_command::Command as Push};

/// Names one Attach stream; a node's newer stream has a higher one.
pub type AttachId = u64;

/// Commands queued for a sidecar that does not read; beyond that its line is cut and it attaches anew.
pub const QUEUE: usize = 4096;

#[derive(Default)]
pub struct Nodes {
    pub by_name: BTreeMap<String, Node>,
    next: AttachId,
    attached: i64,
}

pub struct Node {
    pub incarnation: String,
    pub host: String,
    pub version: String,
    /// It says what its ranks are doing when it is asked.
    pub takes_stacks: bool,
    /// It needs to know of its own ranks alone.
    pub takes_places: bool,
    /// None while its line is down.
    pub line: Option<Line>,
    pub heard: Duration,
    pub announced: bool,
    pub draining: bool,
    /// (job, rank) it vouches for: a frame extends their leases.
    pub sessions: BTreeSet<(JobName, Rank)>,
    /// Jobs whose pushes it gets: of its sessions, and of the slots it has announced.
    pub jobs: BTreeSet<JobName>,
    /// Beside the first store, as its sidecar is configured.
    pub targets: Vec<v1::Target>,
}

/// Boxed: a channel takes room for 32 messages as soon as it is there, and there may be 12,500 lines.
pub type Down = mpsc::Sender<Result<Box<v1::NodeCommand>, tonic::Status>>;

pub struct Line {
    pub id: AttachId,
    pub send: Down,
}

impl Engine {
    /// A stream's Hello. An older stream of the same node is replaced.
    pub fn attach(&mut self, hello: v1::NodeHello, send: Down) -> AttachId {
        self.nodes.next += 1;
        let id = self.nodes.next;
        let now = self.now();
        let name = hello.node.clone();
        self.lose_line(&name);
        let takes_stacks = crate::version::has(hello.version.as_ref(), crate::version::STACKS);
        let takes_places = crate::version::has(hello.version.as_ref(), crate::version::PLACES);
        let version = hello.version.unwrap_or_default().version;
        let mut node = match self.nodes.by_name.remove(&name) {
            Some(node) if node.incarnation == hello.incarnation => node,
            // A new process: it vouches for those sessions alone that it found alive.
            old => Node {
                incarnation: hello.incarnation,
                host: String::new(),
                version: String::new(),
                takes_stacks: false,
                takes_places: false,
                line: None,
                heard: now,
                announced: false,
                draining: false,
                sessions: BTreeSet::new(),
                jobs: old.map(|old| old.jobs).unwrap_or_default(),
                targets: Vec::new(),
            },
        };
        (node.host, node.version, node.heard) = (hello.host, version, now);
        (node.takes_stacks, node.takes_places) = (takes_stacks, takes_places);
        (node.announced, node.draining) = (false, false);
        node.targets = hello.targets;
        node.line = Some(Line { id, send });
        for session in &hello.sessions {
            if let Ok(job) = session.job.parse::<JobName>() {
                node.sessions.insert((job.clone(), Rank(session.rank)));
                node.jobs.insert(job);
            }
        }
        // A registration whose answer was lost: its sidecar does not know of it yet, and must hear of the job all the same.
        let unnamed = self.state.jobs.keys().filter(|job| !node.jobs.contains(*job));
        let unnamed: Vec<JobName> = unnamed.cloned().collect();
        node.jobs.extend(unnamed.into_iter().filter(|job| self.has_ranks(&name, job)));
        tracing::info!(node = %name, host = %node.host, "sidecar attached");
        self.nodes.by_name.insert(name.clone(), node);
        self.nodes.attached += 1;
        self.metrics.nodes_attached.set(self.nodes.attached);
        let welcome = v1::NodeWelcome {
            cluster: self.state.cluster.to_string(),
            version: Some(super::super::compat::ours()),
        };
        self.push_node(&name, Push::Welcome(welcome));
        self.extend_leases(&name);
        for session in hello.sessions {
            if let Ok(job) = session.job.parse::<JobName>() {
                self.tell_generation(&name, &job, Generation(session.generation));
            }
        }
        let jobs = self.nodes.by_name[&name].jobs.clone();
        for job in jobs {
            self.redrive_asks(&name, &job);
            self.redrive_commits(&job);
        }
        self.redrive_removals();
        let all: Vec<JobName> = self.state.jobs.keys().cloned().collect();
        self.targets_attached(&all);
        id
    }

    /// The stream has ended. Proves nothing about its trainers: their leases run on.
    pub fn detach(&mut self, name: &str, id: AttachId) {
        let Some(node) = self.nodes.by_name.get_mut(name) else { return };
        if node.line.as_ref().is_some_and(|line| line.id == id) {
            tracing::warn!(node = %name, host = %node.host, "sidecar's line is down");
            self.lose_line(name);
        }
    }

    /// What was ordered over a node's line, if it has one, may have been lost with it: it is ordered anew.
    fn lose_line(&mut self, name: &str) {
        let line = self.nodes.by_name.get_mut(name).and_then(|node| node.line.take());
        if line.is_some() {
            self.nodes.attached -= 1;
            self.metrics.nodes_attached.set(self.nodes.attached);
            self.commits_lost_line(name);
            self.removals_lost_line(name);
            self.targets_lost_line(name);
        }
    }

    pub fn is_current(&self, name: &str, id: AttachId) -> bool {
        self.line(name).is_some_and(|line| line.id == id)
    }

    /// Whether ranks of the job live there, or have registered through it.
    fn has_ranks(&mut self, name: &str, job: &JobName) -> bool {
        let is_here = |member: &Member| member.node.as_deref() == Some(name);
        let joining = self.state.jobs.get(job).is_some_and(|known| known.forming.values().any(is_here));
        joining || self.roster(job).is_some_and(|roster| !roster.ranks(name).is_empty())
    }

    fn line(&self, name: &str) -> Option<&Line> {
        self.nodes.by_name.get(name).and_then(|node| node.line.as_ref())
    }

    pub fn is_attached(&self, name: &str) -> bool {
        self.line(name).is_some()
    }

    /// Whether the node has said which slots it holds since it attached.
    pub fn has_announced(&self, name: &str) -> bool {
        self.is_attached(name) && self.nodes.by_name[name].announced
    }

    /// Attached nodes of a job, ascending by name.
    pub fn nodes_of(&self, job: &JobName) -> Vec<String> {
        let attached = self.nodes.by_name.iter().filter(|(_, node)| node.line.is_some());
        attached.filter(|(_, node)| node.jobs.contains(job)).map(|(name, _)| name.clone()).collect()
    }

    pub fn push_job(&mut self, job: &JobName, push: Push) {
        for name in self.nodes_of(job) {
            self.push_node(&name, push.clone());
        }
    }

    /// Queues a command for a node; leaves with the batch.
    pub fn push_node(&mut self, name: &str, push: Push) {
        let Some(line) = self.line(name) else { return };
        let (send, id) = (line.send.clone(), line.id);
        let (handle, name) = (self.handle.clone(), name.to_owned());
        self.outbox.push(Box::new(move || {
            let command = Box::new(v1::NodeCommand { command: Some(push) });
            if send.try_send(Ok(command)).is_err() {
                handle.post(move |engine| engine.detach(&name, id));
            }
        }));
    }

    /// Tells a node where the generation that one of its sessions names stands.
    pub fn tell_generation(&mut self, name: &str, job: &JobName, generation: Generation) {
        let Ok(known) = self.state.job(job) else { return };
        let push = match &known.open {
            Some(open) if open.generation >= generation => {
                let stale = generation.0 > 0 && open.generation != generation;
                if stale {
                    let reason = known.fenced(job, generation).message;
                    let (job, generation) = (job.to_string(), generation.0);
                    let ended = v1::GenerationEnded { job, generation, reason, ..Default::default() };
                    self.push_node(name, Push::GenerationEnded(ended));
                }
                let Some(opened) = self.generation_for(name, job) else { return };
                Push::GenerationOpened(opened)
            }
            _ if generation.0 == 0 => return,
            _ => match &known.last_ended {
                Some(ended) if ended.generation == generation => {
                    Push::GenerationEnded(super::convert::ended(job, ended))
                }
                _ => Push::GenerationEnded(v1::GenerationEnded {
                    job: job.to_string(),
                    generation: generation.0,
                    reason: known.fenced(job, generation).message,
                    ..Default::default()
                }),
            },
        };
        self.push_node(name, push);
    }
}

/// A stream that must be answered with a refusal.
pub fn refusal(error: &Error) -> v1::NodeCommand {
    let refused = v1::NodeRefused {
        kind: error.kind.name().to_owned(),
        reason: error.message.clone(),
        hint: error.hint.clone().unwrap_or_default(),
    };
    v1::NodeCommand { command: Some(Push::Refused(refused)) }
}
