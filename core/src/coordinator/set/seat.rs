//! This coordinator's place in its set: its disk, its protocol, and what it can say of who leads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use openraft::{Config, ServerState, SnapshotPolicy};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use super::super::log::{Disk, Folder};
use super::acks::Acks;
use super::entry::Raft;
use super::journal::Journal;
use super::network::Network;
use super::peers::Peers;
use super::phase::{Phase, PhaseFile};
use super::replica::Replica;
use super::{ALONE, ELECTION, HEARTBEAT};
use crate::error::{Doing, Error, Result};
use crate::proto::v1;
use crate::telemetry::Metrics;

/// Batches behind a snapshot before the next one is made, or their bytes: as often as a single coordinator's log is cut.
const SNAPSHOT_AFTER: u64 = if cfg!(test) { 64 } else { 16_384 };
const SNAPSHOT_AFTER_BYTES: u64 = 64 << 20;
/// Entries that are kept behind a snapshot, for followers that are a little late.
const KEPT: u64 = if cfg!(test) { 16 } else { 1024 };
/// Of a snapshot, at once.
const CHUNK: u64 = 4 << 20;
/// For a chunk, and at its end for the whole to be written on the other side.
const INSTALL: Duration = Duration::from_secs(30);
/// Entries in one message.
const AT_ONCE: u64 = 64;
/// How often it is looked at what nobody tells.
const LOOK: Duration = Duration::from_millis(500);

/// What a caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet one of the set, and why.
    Forming(String),
    Leads,
    Follows(String),
    /// Nobody leads as far as it knows.
    Leaderless,
}

pub struct Seat {
    pub peers: Arc<Peers>,
    pub(super) journal: Journal,
    pub(super) replica: Replica,
    pub(super) phase: PhaseFile,
    pub(super) raft: OnceCell<Raft>,
    pub(super) acks: Arc<Acks>,
    standing: watch::Sender<Standing>,
    log_end: Arc<AtomicU64>,
    /// Until then it votes for nobody: a leader from before its restart may count on it.
    silent_until: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Seat {
    /// Opens its part of the set below the coordinator's folder. Errors as [`PhaseFile::open`] and the log have them.
    pub fn open(folder: &Path, peers: Peers, metrics: Arc<Metrics>) -> Result<Arc<Seat>> {
        let folder = folder.join("raft");
        std::fs::create_dir_all(&folder).doing(|| format!("making {}", folder.display()))?;
        let phase = PhaseFile::open(&folder, &peers.list())?;
        let within = |name: &str| {
            let path: PathBuf = folder.join(name);
            move || -> Result<Box<dyn Disk>> {
                let opened = Folder::open(&path).doing(|| format!("opening {}", path.display()))?;
                Ok(Box::new(opened))
            }
        };
        let doing = || format!("opening the replicated log in {}", folder.display());
        let journal = Journal::open(within("log")).doing(doing)?;
        let replica = Replica::open(within("state")()?).doing(doing)?;
        let silent_until = phase.get().map(|_| Instant::now() + ELECTION.1);
        let (standing, _) = watch::channel(Standing::Forming("it has just been started".to_owned()));
        Ok(Arc::new(Seat {
            peers: Arc::new(peers),
            journal,
            replica,
            phase,
            raft: OnceCell::new(),
            acks: Arc::default(),
            standing,
            log_end: Arc::default(),
            silent_until,
            metrics,
        }))
    }

    /// Starts the protocol on what the disk holds.
    pub(super) async fn begin(&self) -> Result<&Raft> {
        let joins = matches!(self.phase.get(), Some(Phase::Joining(_)));
        let config = Config {
            cluster_name: self.peers.set(),
            heartbeat_interval: HEARTBEAT.as_millis() as u64,
            election_timeout_min: ELECTION.0.as_millis() as u64,
            election_timeout_max: ELECTION.1.as_millis() as u64,
            install_snapshot_timeout: INSTALL.as_millis() as u64,
            max_payload_entries: AT_ONCE,
            replication_lag_threshold: SNAPSHOT_AFTER * 2,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
            snapshot_max_chunk_size: CHUNK,
            max_in_snapshot_log_to_keep: KEPT,
            enable_elect: !joins,
            ..Config::default()
        };
        let config =
            config.validate().map_err(|error| Error::internal(format!("starting a set: {error}")))?;
        let network =
            Network { peers: self.peers.clone(), acks: self.acks.clone(), log_end: self.log_end.clone() };
        let (journal, replica) = (self.journal.clone(), self.replica.clone());
        let raft = Raft::new(self.peers.me, Arc::new(config), network, journal, replica).await;
        let raft =
            raft.map_err(|error| Error::unavailable(format!("starting the replicated log: {error}")))?;
        Ok(self.raft.get_or_init(|| async { raft }).await)
    }

    pub(super) fn may_vote(&self) -> bool {
        self.silent_until.is_none_or(|until| Instant::now() >= until)
            && !matches!(self.phase.get(), Some(Phase::Joining(_)))
    }

    /// It knows now all that it may have known before its home was lost.
    pub(super) fn joined(&self) -> Result<()> {
        self.phase.set(Phase::Founded)?;
        if let Some(raft) = self.raft.get() {
            raft.runtime_config().elect(true);
        }
        tracing::info!("has caught up with its set: it votes from now on");
        Ok(())
    }

    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(super) fn stands(&self, standing: Standing) {
        self.standing.send_if_modified(|now| {
            let is_new = *now != standing;
            if is_new {
                match &standing {
                    Standing::Forming(why) => tracing::info!("not yet one of the set: {why}"),
                    Standing::Leads => tracing::info!("leads the set"),
                    Standing::Follows(url) => tracing::info!("follows {url}"),
                    Standing::Leaderless => {
                        tracing::warn!("knows of no leader that a majority of the set obeys")
                    }
                }
                *now = standing;
            }
            is_new
        });
    }

    /// What is to be said while no engine runs here.
    pub fn look(&self) {
        let Some(raft) = self.raft.get() else { return };
        let metrics = raft.metrics().borrow().clone();
        let leader = metrics.current_leader.filter(|leader| *leader != self.peers.me);
        let url = leader.and_then(|leader| self.peers.urls.get(&leader));
        self.stands(url.map_or(Standing::Leaderless, |url| Standing::Follows(url.clone())));
    }

    /// Whether this one is the leader of the term, as far as it knows itself.
    pub(super) fn is_leader_of(&self, term: u64) -> bool {
        self.leading_term() == Some(term)
    }

    /// The term that it leads.
    pub(super) fn leading_term(&self) -> Option<u64> {
        let metrics = self.raft.get()?.metrics();
        let metrics = metrics.borrow();
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        leads.then_some(metrics.current_term)
    }

    /// Since a majority last obeyed it as the leader of `term`.
    pub(super) fn obeyed(&self, term: u64) -> Option<Duration> {
        self.acks.age(term, self.peers.majority())
    }

    /// For `status`: the others as this leader knows them.
    pub fn coordinators(&self) -> Vec<v1::CoordinatorStatus> {
        let Some(raft) = self.raft.get() else { return Vec::new() };
        let metrics = raft.metrics().borrow().clone();
        let reached = metrics.replication.unwrap_or_default();
        let reached: BTreeMap<u64, u64> =
            reached.into_iter().map(|(number, at)| (number, at.map_or(0, |at| at.index + 1))).collect();
        let end = metrics.last_log_index.map_or(0, |last| last + 1);
        let one = |(number, url): (&u64, &String)| {
            let is_me = *number == self.peers.me;
            let silent = match is_me {
                true => Some(Duration::ZERO),
                false => self.acks.silence(*number, metrics.current_term),
            };
            v1::CoordinatorStatus {
                url: url.clone(),
                state: match (is_me, silent) {
                    (true, _) => "leader",
                    (false, Some(silent)) if silent < ALONE => "follower",
                    _ => "away",
                }
                .to_owned(),
                behind: if is_me { 0 } else { end.saturating_sub(reached.get(number).copied().unwrap_or(0)) },
            }
        };
        self.peers.urls.iter().map(one).collect()
    }

    /// Ends the protocol.
    pub async fn end(&self) {
        if let Some(raft) = self.raft.get() {
            // A task of it that has panicked has been told by then.
            let _ = raft.shutdown().await;
        }
    }

    /// Keeps metrics, the phase and snapshots in step with the protocol until `stop`. Fails when the protocol has ended by itself.
    pub async fn watch(&self, stop: CancellationToken) -> Result<()> {
        let Some(raft) = self.raft.get() else { return Ok(()) };
        let mut changes = raft.metrics();
        loop {
            let metrics = changes.borrow_and_update().clone();
            let end = metrics.last_log_index.map_or(0, |last| last + 1);
            let applied = metrics.last_applied.map_or(0, |at| at.index + 1);
            self.log_end.store(end, Ordering::Relaxed);
            self.metrics.set_term.set(metrics.current_term as i64);
            self.metrics.set_leads.set((metrics.state == ServerState::Leader).into());
            self.metrics.set_lag.set(end.saturating_sub(applied) as i64);
            if let Err(fatal) = &metrics.running_state {
                return Err(Error::unavailable(format!("replicating the coordinator's log: {fatal}"))
                    .hint("start the coordinator again: it goes on from what is durable"));
            }
            if self.phase.get() == Some(Phase::Founding) && self.replica.is_founded() {
                self.phase.set(Phase::Founded)?;
            }
            if self.replica.unsaved() > SNAPSHOT_AFTER_BYTES {
                // An error is the protocol's end, which the next look tells.
                let _ = raft.trigger().snapshot().await;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = changes.changed() => if changed.is_err() {
                    return Err(Error::unavailable("replicating the coordinator's log: it has ended"));
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}
