//! The session stream of a trainer: Hello, events, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::super::node::Node;
use super::super::peer::Peer;
use super::super::state::{EVENTS, Events, State};
use super::super::{join, leave};
use crate::error::{Error, Result};
use crate::ids::SessionId;
use crate::proto::v1::node_report::Report;
use crate::proto::v1::session_event::Event;
use crate::proto::v1::session_request::Request as Said;
use crate::proto::v1::{self, SessionEvent, SessionRequest};

/// A stream on which nobody says Hello is cut.
const HELLO: Duration = Duration::from_secs(10);

static STREAMS: AtomicU64 = AtomicU64::new(1);

/// What a trainer reads.
pub(in super::super) type Down = ReceiverStream<Result<SessionEvent, Status>>;

/// Answers with the stream once the trainer is in: a refusal is the call's own error.
pub(super) async fn open(
    node: &Arc<Node>,
    peer: Peer,
    mut requests: Streaming<SessionRequest>,
) -> Result<Down> {
    let first = tokio::time::timeout(HELLO, requests.next())
        .await
        .map_err(|_| Error::timeout("opening a session: the trainer did not say hello"))?;
    let said = first.and_then(std::result::Result::ok).and_then(|first| first.request);
    let Some(Said::Hello(hello)) = said else {
        return Err(Error::invalid("opening a session: its first word is no hello"));
    };
    // A trainer that gives up in the middle leaves a whole session, which its next hello replaces.
    let joining = node.clone();
    let joined = node.finish(async move { join::hello(&joining, &peer, hello).await });
    let (session, resumed) = joined.await.inspect_err(|error| {
        node.metrics.sessions_refused.inc();
        tracing::info!("refused a trainer: {}", error.message);
    })?;
    let (send, receive) = mpsc::channel(EVENTS);
    let stream = STREAMS.fetch_add(1, Ordering::Relaxed);
    let watched = node.change(|state| begin(state, session, resumed, stream, send, node))?;
    if resumed && let Some(pidfd) = watched {
        join::watch(node, session, pidfd);
    }
    let (reading, ours) = (node.clone(), session);
    node.spawn(async move { listen(reading, ours, stream, requests).await });
    Ok(ReceiverStream::new(receive))
}

/// Welcome, and everything that an earlier stream may have missed. The process to watch, if it can be.
fn begin(
    state: &mut State,
    id: SessionId,
    resumed: bool,
    stream: u64,
    send: mpsc::Sender<Result<SessionEvent, Status>>,
    node: &Node,
) -> Result<Option<Arc<std::os::fd::OwnedFd>>> {
    let welcome = welcome(state, id, resumed, node)?;
    let session = state
        .sessions
        .get_mut(&id)
        .ok_or_else(|| Error::unavailable("opening a session: its process has ended"))?;
    let pidfd = session.pidfd.clone();
    session.events = Some(Events { id: stream, send });
    session.push(Event::Welcome(welcome));
    state.tell_again(id);
    state.count_sessions();
    Ok(pidfd)
}

fn welcome(state: &State, id: SessionId, resumed: bool, node: &Node) -> Result<v1::Welcome> {
    let session = state
        .sessions
        .get(&id)
        .ok_or_else(|| Error::unavailable("opening a session: its process has ended"))?;
    let record = &session.record;
    let arena = state.own_arena(id).map(|(_, arena)| arena.path().display().to_string());
    let life = state.life_line(id).filter(|_| session.life.is_some());
    let job = state.jobs.get(&record.job);
    let timeout = job.map(|job| job.timeout()).unwrap_or_default();
    Ok(v1::Welcome {
        session: id.0,
        version: Some(crate::version::ours()),
        job_uuid: record.job_uuid.to_string(),
        arena: arena.unwrap_or_default(),
        store: record.store.clone(),
        save_wait_ms: node.settings.save_wait(job).as_millis() as u64,
        commit_timeout_ms: node.settings.commit_timeout(job).as_millis() as u64,
        timeout_ms: timeout.as_millis() as u64,
        generation: record.generation.unwrap_or(record.joining).0,
        resumed,
        life: life.map(|path| path.display().to_string()).unwrap_or_default(),
    })
}

/// Until the trainer says goodbye or its stream ends.
async fn listen(node: Arc<Node>, session: SessionId, stream: u64, mut requests: Streaming<SessionRequest>) {
    while let Some(Ok(request)) = requests.next().await {
        if matches!(request.request, Some(Said::Goodbye(_))) {
            // The stream's end tells the trainer that it is taken note of.
            leave::leave(&node, session).await;
            return;
        }
    }
    node.change(|state| ended(state, session, stream));
}

/// Proves nothing about the trainer: it may come back, and its process may still be there.
fn ended(state: &mut State, id: SessionId, stream: u64) {
    let Some(session) = state.sessions.get_mut(&id) else { return };
    if session.events.as_ref().is_none_or(|events| events.id != stream) {
        return;
    }
    session.events = None;
    if session.fenced.is_none() {
        let caller = Some(session.caller());
        state.line.report(Report::Suspect(v1::RankSuspect { caller, session: id.0 }));
    }
    state.count_sessions();
    state.forget_idle_sessions();
}
