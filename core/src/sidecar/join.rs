//! Hello: who may come, and how a trainer becomes a rank of its job: the store is claimed, the coordinator told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::node::Node;
use super::peer::Peer;
use super::process::{self, ProcessId};
use super::records::SessionRecord;
use super::state::{Session, State};
use super::stores::Prior;
use super::{leave, register, stores, targets};
use crate::checkpoint::Claimant;
use crate::error::{Doing, Error, Kind, Result};
use crate::handoff::life::{self, LifeWatch};
use crate::ids::{ClusterId, Generation, JobName, Rank, SessionId, WorldSize};
use crate::proto::v1::{self, Hello};
use crate::storage::StoreUrl;
use crate::version;

/// A coordinator that is being restarted is back within this; a trainer waits 30 s in all.
const COORDINATOR: Duration = Duration::from_secs(5);
/// Of a trainer that does not say how long it waits.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const REGISTER: Duration = Duration::from_secs(8);

/// The session, and whether it was taken up again.
pub(super) async fn hello(node: &Arc<Node>, peer: &Peer, hello: Hello) -> Result<(SessionId, bool)> {
    check_version(node, &hello)?;
    check_user(node, peer)?;
    if hello.resume > 0 {
        return resume(node, peer, &hello).map(|session| (session, true));
    }
    let doing = format!("joining job {} as rank {} of {}", hello.job, hello.rank, hello.world_size);
    join(node, peer, hello).await.doing(|| doing).map(|session| (session, false))
}

fn check_version(node: &Node, hello: &Hello) -> Result<()> {
    let theirs = hello.version.as_ref().map(|version| version.version.as_str()).unwrap_or_default();
    // A worker that speaks the protos itself names none.
    if theirs.is_empty() || version::work_together(theirs, crate::VERSION) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "client {theirs} can't speak to sidecar {} at {}",
        crate::VERSION,
        node.settings.socket.display()
    ))
    .hint("run \"strata wheel .\" on this node and install it"))
}

fn check_user(node: &Node, peer: &Peer) -> Result<()> {
    let ours = node.directories.uid();
    if node.directories.serves_everyone() || peer.uid == ours {
        return Ok(());
    }
    Err(Error::denied(format!("joining through this sidecar: it runs as uid {ours}, the trainer as uid {}", peer.uid))
        .hint("run the sidecar as the trainers' user, or as root to serve several; STRATA_SOCKET names the one to use"))
}

/// Membership, slots and leases are as they were. NotFound when the session is gone.
fn resume(node: &Arc<Node>, peer: &Peer, hello: &Hello) -> Result<SessionId> {
    let process = ProcessId::of(peer);
    node.change(|state| {
        let id = state.session(hello.resume, peer.uid)?.record.id;
        let session = state.sessions.get_mut(&id).expect("just found");
        let record = &mut session.record;
        let same = record.job.as_str() == hello.job && record.rank.0 == hello.rank;
        let other = matches!((record.process, process), (Some(known), Some(now)) if known != now);
        if !same || other {
            return Err(Error::not_found(format!("taking up session {id}: it is another process's")));
        }
        record.process = process.or(record.process);
        session.token = hello.token.clone();
        session.takes_stacks = version::has(hello.version.as_ref(), version::STACKS);
        session.pidfd = peer.pidfd.clone().or(session.pidfd.take());
        state.note_session(id);
        Ok(id)
    })
}

async fn join(node: &Arc<Node>, peer: &Peer, hello: Hello) -> Result<SessionId> {
    let job: JobName = hello.job.parse()?;
    check_coordinator(node, &hello)?;
    if node.read(|state| state.draining) {
        return Err(Error::unavailable("this node's sidecar is being stopped"));
    }
    let url = node.stores.resolve(&hello.store)?;
    check_store(node, &job, peer.uid, &url)?;
    replace_own(node, peer, &job, Rank(hello.rank)).await;
    // The directory first: a user whose arenas can't be kept is refused before anybody hears of it.
    let directory = node.directories.of(peer.uid)?;
    node.change(|state| state.folders.insert(peer.uid, directory.path().to_owned()));
    let cluster = cluster(node).await?;
    // Before the trainer gives up: an unreachable store must be its answer.
    let patience = match hello.timeout_ms {
        0 => LONGEST_WAIT,
        timeout => Duration::from_millis(timeout),
    };
    let claimant = match node.directories.serves_everyone() {
        true => Claimant::Served { uid: peer.uid },
        false => Claimant::Own { uid: peer.uid },
    };
    let prior = node.read(|state| match state.jobs.get(&job) {
        Some(known) if known.store.as_ref() == Some(&url.to_string()) && !known.committed.is_empty() => {
            Prior::Steps
        }
        _ => Prior::Nothing,
    });
    let inherited = inherited(node, &url, &job, peer.uid, patience / 3).await?;
    let prior = inherited.map_or(prior, |known| Prior::Job(known.job_uuid));
    let attached = node.stores.attach(&url, &job, cluster, prior, claimant, patience / 2).await.inspect_err(
        |error| {
            node.metrics.store_failed("attach", error.kind);
            node.metrics.store_reachable.set(0);
        },
    )?;
    node.metrics.store_reachable.set(1);
    store_token(node, &url, &job, peer.uid).await?;
    let record = SessionRecord {
        id: SessionId(rand::random_range(1..u64::MAX)),
        job: job.clone(),
        job_uuid: attached.job_uuid,
        rank: Rank(hello.rank),
        world: WorldSize(hello.world_size),
        uid: peer.uid,
        process: ProcessId::of(peer),
        store: url.to_string(),
        incarnation: String::new(),
        joining: Generation(0),
        generation: None,
        arena: None,
        leases: Default::default(),
        closed: false,
    };
    let (id, uid) = (record.id, record.uid);
    node.change(|state| {
        let known = state.job(&job);
        (known.uuid, known.store, known.uid) =
            (Some(record.job_uuid), Some(record.store.clone()), record.uid);
        known.problem = None;
        for step in attached.steps.iter().filter_map(|listed| listed.commit.as_ref().ok()) {
            known.note_committed(&step.to_proto());
        }
        let mut session = Session::new(record.clone(), hello.token.clone(), peer.pidfd.clone());
        session.takes_stacks = version::has(hello.version.as_ref(), version::STACKS);
        state.sessions.insert(id, session);
        state.note_job(&job);
        // Unrecorded it would be a session that nobody watches and nothing ends.
        state.record_session(id).inspect_err(|_| state.never_joined(id))
    })?;
    draw_life_line(node, id, uid);
    let mut findings = stores::findings(&attached);
    let highest = inherited.map_or(0, |known| known.highest_generation.0);
    findings.highest_generation = findings.highest_generation.max(highest);
    let registered = register(node, &record, &hello, findings).await;
    match registered {
        Ok(reply) => {
            let caller = Session::new(record, hello.token, None).caller();
            take_membership(node, id, reply, caller, peer).await
        }
        Err(error) => {
            node.change(|state| state.never_joined(id));
            Err(error)
        }
    }
}

/// Asks the further targets about a job that its first store does not know. One that can't answer is Unavailable.
async fn inherited(
    node: &Arc<Node>,
    url: &StoreUrl,
    job: &JobName,
    uid: u32,
    patience: Duration,
) -> Result<Option<targets::Inherited>> {
    if node.settings.targets.is_empty() {
        return Ok(None);
    }
    let asked = async {
        match node.stores.open(url, job, uid)?.owner().await {
            Ok(None) => targets::inherited(node, job, uid).await,
            // It knows the job, or says itself what is wrong.
            _ => Ok(None),
        }
    };
    timeout(patience, asked).await.unwrap_or_else(|_| {
        Err(Error::unavailable(format!(
            "asking the targets of job {job}, which its first store does not know: no answer for {patience:?}"
        ))
        .hint("bring the target back, or take it out of the configuration ([[store.target]]) to begin anew"))
    })
}

fn check_coordinator(node: &Node, hello: &Hello) -> Result<()> {
    let (theirs, ours) = (hello.coordinator.trim_end_matches('/'), node.uplink.url());
    if theirs.is_empty() || is_same_address(theirs, ours) {
        return Ok(());
    }
    Err(Error::conflict(format!("this node's sidecar belongs to the coordinator at {ours}, not to {theirs}"))
        .hint("unset STRATA_COORDINATOR for the trainer, or start a sidecar for that coordinator on another STRATA_SOCKET"))
}

/// Users write `localhost` where `strata up` announces 127.0.0.1.
fn is_same_address(one: &str, other: &str) -> bool {
    let bare = |url: &str| {
        let url = url.trim_end_matches('/');
        let address = url.split_once("://").map_or(url, |(_, rest)| rest);
        address.strip_prefix("localhost:").map_or(address.to_owned(), |port| format!("127.0.0.1:{port}"))
    };
    let all = |list: &str| {
        let mut all: Vec<String> = list.split(',').map(bare).collect();
        all.sort();
        all
    };
    all(one) == all(other)
}

/// Before anything is claimed in the wrong place. Over nodes the coordinator sees to it.
fn check_store(node: &Node, job: &JobName, uid: u32, url: &StoreUrl) -> Result<()> {
    node.read(|state| {
        let members = state.sessions.values().filter(|session| session.record.job == *job);
        let living = members.filter(|session| session.is_vouched_for());
        for session in living {
            if session.record.uid != uid {
                return Err(Error::denied(format!(
                    "it belongs to uid {}, this is uid {uid}",
                    session.record.uid
                ))
                .hint("run all ranks of a job as one user, or use another job name (STRATA_JOB)"));
            }
            if session.record.store != url.to_string() {
                return Err(Error::conflict(format!(
                    "its store is {url}, but rank {} on this node uses {}",
                    session.record.rank, session.record.store
                ))
                .hint("set STRATA_STORE to one URL for all ranks"));
            }
        }
        Ok(())
    })
}

/// A process that joins again under its own number, and whose earlier stream is gone, has given that session up.
async fn replace_own(node: &Arc<Node>, peer: &Peer, job: &JobName, rank: Rank) {
    let process = ProcessId::of(peer);
    let earlier: Vec<SessionId> = node.read(|state| {
        let own = state.sessions.values().filter(|session| {
            let record = &session.record;
            record.job == *job && record.rank == rank && record.process == process && process.is_some()
        });
        own.filter(|session| session.events.is_none() && session.fenced.is_none() && !session.record.closed)
            .map(|session| session.record.id)
            .collect()
    });
    for session in earlier {
        leave::leave(node, session).await;
    }
}

/// The cluster we belong to, once the line stands.
async fn cluster(node: &Arc<Node>) -> Result<ClusterId> {
    let attached = node.wait(|state| state.line.cluster.filter(|_| state.line.attached));
    match timeout(COORDINATOR, attached).await {
        Ok(cluster) => Ok(cluster),
        Err(_) => Err(node.read(|state| state.line.problem.clone()).unwrap_or_else(|| {
            Error::unavailable(format!("the coordinator at {} does not answer", node.uplink.url()))
        })),
    }
}

/// For the other nodes of the job: see [`super::sharing`].
async fn store_token(node: &Arc<Node>, url: &StoreUrl, job: &JobName, uid: u32) -> Result<()> {
    let own = node.read(|state| state.node.parse())?;
    node.stores.open(url, job, uid)?.leave_token(own).await
}

async fn register(
    node: &Arc<Node>,
    record: &SessionRecord,
    hello: &Hello,
    findings: v1::StoreFindings,
) -> Result<v1::RegisterWorkerReply> {
    let request = v1::RegisterWorkerRequest {
        job: record.job.to_string(),
        rank: record.rank.0,
        world_size: record.world.0,
        host: node.settings.host.clone(),
        node: node.read(|state| state.node.clone()),
        session: record.id.0,
        store: record.store.clone(),
        token: hello.token.clone(),
        idempotency_key: record.id.to_string(),
        findings: Some(findings),
        version: hello.version.clone(),
        uid: record.uid,
        ..Default::default()
    };
    register::register(node, request, Instant::now() + REGISTER).await
}

async fn take_membership(
    node: &Arc<Node>,
    id: SessionId,
    reply: v1::RegisterWorkerReply,
    caller: v1::Caller,
    peer: &Peer,
) -> Result<SessionId> {
    let job_uuid = reply.job_uuid.parse()?;
    match node.change(|state| joined(state, id, &reply, job_uuid)) {
        Ok(()) => {}
        Err(error) => {
            leave::unregister(node, caller, &reply.incarnation).await;
            node.change(|state| state.never_joined(id));
            return Err(error);
        }
    }
    if let Some(pidfd) = peer.pidfd.clone() {
        watch(node, id, pidfd);
    }
    Ok(id)
}

/// Without one a death is noticed by the pidfd, or the lease, as well: later.
fn draw_life_line(node: &Arc<Node>, session: SessionId, uid: u32) {
    let path = node.read(|state| state.life_line(session));
    match path.map(|path| life::create(&path, uid)) {
        Some(Ok(())) => watch_life(node, session),
        Some(Err(error)) => tracing::warn!("{error}"),
        None => {}
    }
}

/// Reports as soon as the process that holds the session's life line is ending.
pub(super) fn watch_life(node: &Arc<Node>, session: SessionId) {
    let Some(path) = node.read(|state| state.life_line(session)) else { return };
    let (tell, told) = oneshot::channel();
    let ended = move || {
        // Who listened has gone: the sidecar is being stopped.
        let _ = tell.send(());
    };
    let watch = match LifeWatch::begin(&path, ended) {
        Ok(watch) => watch,
        // A sidecar of before has drawn none.
        Err(error) if error.kind == Kind::NotFound => return,
        Err(error) => return tracing::warn!("{error}"),
    };
    let watching = node.clone();
    node.spawn(async move {
        if told.await.is_ok() {
            watching.change(|state| state.dying(session));
        }
    });
    node.change(|state| {
        if let Some(session) = state.sessions.get_mut(&session) {
            session.life = Some(watch);
        }
    });
}

fn joined(
    state: &mut State,
    id: SessionId,
    reply: &v1::RegisterWorkerReply,
    job_uuid: crate::ids::JobUuid,
) -> Result<()> {
    let session =
        state.sessions.get_mut(&id).ok_or_else(|| Error::unavailable("its process ended while it joined"))?;
    session.record.incarnation = reply.incarnation.clone();
    session.record.joining = Generation(reply.joining);
    if session.record.job_uuid != job_uuid {
        return Err(Error::internal(format!(
            "the coordinator knows the job as {job_uuid}, its store as {}",
            session.record.job_uuid
        )));
    }
    let job = session.record.job.clone();
    if let Some(config) = reply.config.clone() {
        state.job(&job).config = config;
    }
    state.join_generation(id);
    state.claim_arenas(id);
    state.record_session(id)
}

/// Reports the session's death when its process exits.
pub(super) fn watch(node: &Arc<Node>, session: SessionId, pidfd: Arc<std::os::fd::OwnedFd>) {
    let watching = node.clone();
    node.spawn(async move {
        match process::exited(&pidfd).await {
            Ok(()) => watching.change(|state| state.died(session, "pidfd: exited")),
            Err(error) => tracing::error!("{error}"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::is_same_address;

    #[test]
    fn localhost_is_the_loopback_address_and_another_port_is_another_coordinator() {
        assert!(is_same_address("http://localhost:50051", "http://127.0.0.1:50051"));
        assert!(is_same_address("127.0.0.1:50051", "https://localhost:50051"));
        assert!(!is_same_address("http://localhost:50051", "http://127.0.0.1:50052"));
        assert!(!is_same_address("http://localhost.example:50051", "http://127.0.0.1:50051"));
    }
}
