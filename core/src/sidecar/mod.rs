//! The sidecar of a node: sessions, arenas and slots, the persist scheduler, the line to the coordinator.
//! Called by start-up alone; trainers reach it over the Unix socket. The only room that reads arenas for the store.
//! Never decides what is committed: the coordinator does; never loses what is Sealed, whoever is killed.

mod arena;
mod barrier;
mod directories;
mod drain;
mod join;
mod joined;
mod learn;
mod leave;
mod line;
mod node;
mod pacing;
mod peer;
mod persist;
mod place;
mod process;
mod publish;
mod records;
mod register;
mod restore;
mod save;
mod seals;
mod service;
mod settings;
mod shards;
mod sharing;
mod socket;
mod stacks;
mod state;
mod status;
mod stores;
mod sums;
mod sweep;
mod targets;
mod uplink;

#[cfg(test)]
mod damage_tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use peer::DeathProof;
pub use settings::{CoordinatorLink, SidecarSettings, TargetSettings};

use crate::clock::SharedClock;
use crate::error::{Error, Result};
use crate::ids::NodeId;
use crate::proto::v1;
use crate::telemetry::Metrics;
use directories::Directories;
use node::Node;
use socket::Audience;
use state::State;
use uplink::Uplink;

/// The health service's name for "usable": the socket is served and the coordinator reached.
pub const READY_SERVICE: &str = service::READY;

/// A running sidecar. Dropping it does not stop it: cancel the token.
pub struct Sidecar {
    node: Arc<Node>,
    id: NodeId,
    ended: watch::Receiver<Option<Result<()>>>,
}

impl Sidecar {
    /// Takes the socket and the arena directory, adopts what an earlier sidecar left in it, and serves. The coordinator
    /// need not be there yet.
    ///
    /// Fails with Conflict, naming the holder, while another sidecar has the socket or the arenas; with Invalid for a
    /// path that is too long or a coordinator's address that can't be; with Denied for arenas of another user.
    pub async fn start(
        settings: SidecarSettings,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Sidecar> {
        if settings.slots < 2 {
            return Err(Error::invalid(format!("starting the sidecar: slots = {}", settings.slots))
                .hint("two at least: one is filled while the other is persisted"));
        }
        let uplink = Uplink::new(&settings.coordinator)?;
        let directories = Directories::open(&settings.arenas)?;
        let audience = if directories.serves_everyone() { Audience::AllUsers } else { Audience::OwnUser };
        let (listener, file) = socket::bind(&settings.socket, audience)?;
        let id = directories.of(directories.uid())?.node();
        let folders = Default::default();
        let mut state = State::new(id.to_string(), clock, metrics.clone(), folders);
        for (uid, directory) in directories.all() {
            let (arenas, damaged) = directory.scan()?;
            for error in damaged {
                tracing::error!("{error}");
            }
            let (sessions, jobs) = records::read_all(directory.path())?;
            state.adopt(uid, directory.path().to_owned(), arenas, sessions, jobs);
        }
        let node = Node::new(settings, metrics, directories, uplink, stop, state);
        // What adoption asked for starts with the first change.
        node.change(|_| ());
        for (session, pidfd) in node.read(adopted) {
            join::watch_life(&node, session);
            if let Some(pidfd) = pidfd {
                join::watch(&node, session, pidfd);
            }
        }
        node.spawn(line::run(node.clone()));
        node.spawn(sweep::run(node.clone()));
        tracing::info!(socket = %node.settings.socket.display(), node = %id, "sidecar serves");
        let (told, ended) = watch::channel(None);
        tokio::spawn(run(node.clone(), listener, file, told));
        Ok(Sidecar { node, id, ended })
    }

    pub fn socket(&self) -> &Path {
        &self.node.settings.socket
    }

    /// The same over restarts on one arena directory.
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// Returns when the sidecar has stopped and let go of its socket and arenas.
    pub async fn stopped(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await;
        match end {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::internal("running the sidecar: its task ended without an answer")),
        }
    }

    /// What is wrong with each condition of being usable; None: it holds.
    pub fn ready(&self) -> Vec<(&'static str, Option<String>)> {
        status::checks(&self.node)
    }

    /// As this node sees its jobs.
    pub fn status(&self) -> v1::Status {
        status::status(&self.node)
    }

    /// Bytes that further targets have taken from it: grows while a copy goes on.
    pub fn copied(&self) -> u64 {
        self.node.copied.load(Ordering::Relaxed)
    }

    /// Takes no new saves and waits until what is Sealed is committed, at most `limit`: the steps that are only in
    /// memory then, as messages. The sidecar goes on to serve until its token is cancelled.
    pub async fn drain(&self, limit: Duration) -> Vec<String> {
        drain::drain(&self.node, limit).await
    }

    /// Returns when a trainer has come, all have gone again, and nothing is Sealed: a private sidecar's end. Without a
    /// trainer within `first`, that is its end too.
    pub async fn deserted(&self, first: Duration) {
        drain::deserted(&self.node, first).await;
    }
}

fn adopted(state: &State) -> Vec<(crate::ids::SessionId, Option<Arc<std::os::fd::OwnedFd>>)> {
    state.sessions.values().map(|session| (session.record.id, session.pidfd.clone())).collect()
}

async fn run(
    node: Arc<Node>,
    listener: tokio::net::UnixListener,
    file: socket::SocketFile,
    told: watch::Sender<Option<Result<()>>>,
) {
    let done = service::serve(node.clone(), listener).await;
    // A server that failed by itself ends the rest too.
    node.stop.cancel();
    node.tasks.close();
    node.tasks.wait().await;
    node.directories.close();
    drop(file);
    // Nobody may be waiting for the end.
    let _ = told.send(Some(done));
}
