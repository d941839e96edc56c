//! Messages of the others. Nothing is heard that does not carry the set's secret, is of another set, or meant for another one.

use std::sync::Arc;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};

use super::entry::{Raft, Types};
use super::network::{MESSAGE_LIMIT, VERSION};
use super::peers::Peers;
use super::phase::Phase;
use super::seat::Seat;
use crate::error::{Error, Result};
use crate::proto::v1::replication_server::ReplicationServer;
use crate::proto::v1::{self, PeerCall, PeerPhase};

/// The service of one coordinator of a set.
#[derive(Clone)]
pub struct Doors(pub Arc<Seat>);

/// Lets in who has the set's secret.
#[derive(Clone)]
pub struct Guard(Arc<Peers>);

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.0.admit(request.metadata())?;
        Ok(request)
    }
}

#[tonic::async_trait]
impl v1::replication_server::Replication for Doors {
    async fn greet(&self, request: Request<v1::PeerGreeting>) -> Result<Response<v1::PeerStanding>, Status> {
        self.meant_for_us(&request.into_inner())?;
        let phase = match self.0.phase.get() {
            None => PeerPhase::Empty,
            Some(Phase::Founding) => PeerPhase::Founding,
            Some(Phase::Founded) => PeerPhase::Founded,
            Some(Phase::Joining(_)) => PeerPhase::Joining,
        };
        let vote = self.0.journal.vote().map(|vote| serde_json::to_vec(&vote).expect("a vote is plain data"));
        Ok(Response::new(v1::PeerStanding { phase: phase.into(), vote: vote.unwrap_or_default() }))
    }

    async fn tell(&self, request: Request<v1::PeerMessage>) -> Result<Response<v1::PeerAnswer>, Status> {
        let message = request.into_inner();
        self.meant_for_us(message.peer.as_ref().unwrap_or(&v1::PeerGreeting::default()))?;
        let no_part = || Error::unavailable("speaking to a coordinator of the set: it takes no part yet");
        let raft = self.0.raft.get().ok_or_else(no_part)?;
        let body = match message.call() {
            PeerCall::Append => self.append(raft, message).await?,
            PeerCall::Vote => self.vote(raft, &message.body).await?,
            PeerCall::Snapshot => {
                let mut snapshot: InstallSnapshotRequest<Types> = read(&message.body)?;
                snapshot.data = message.chunk;
                write(&raft.install_snapshot(snapshot).await)
            }
            PeerCall::Unspecified => {
                return Err(Error::invalid("speaking to a coordinator: a call of no kind").into());
            }
        };
        Ok(Response::new(v1::PeerAnswer { body }))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| Error::invalid(format!("speaking to a coordinator of the set: {error}")))
}

fn write(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("answers are plain data")
}

impl Doors {
    /// Who has not the secret is turned away before anything of its message is read: it may be large.
    pub fn service(self) -> InterceptedService<ReplicationServer<Doors>, Guard> {
        let guard = Guard(self.0.peers.clone());
        let service = ReplicationServer::new(self)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        InterceptedService::new(service, guard)
    }

    fn meant_for_us(&self, peer: &v1::PeerGreeting) -> Result<()> {
        let (own, refuse) = (&self.0.peers, |what: String| {
            Err(Error::invalid(format!("speaking to a coordinator of the set: {what}")))
        });
        if peer.version != VERSION {
            return refuse(format!("messages of version {}, this build speaks {VERSION}", peer.version))
                .map_err(|error| error.hint("run the same version of strata in the whole set"));
        }
        if peer.set != own.set() || peer.to != own.me || !own.urls.contains_key(&peer.from) {
            return refuse(format!(
                "{} is of the set {}, and was asked as number {} of another",
                own.url(),
                own.list(),
                peer.to
            ))
            .map_err(|error| error.hint("start all coordinators of a set with the same list of peers"));
        }
        Ok(())
    }

    async fn append(&self, raft: &Raft, message: v1::PeerMessage) -> Result<Vec<u8>> {
        let request: AppendEntriesRequest<Types> = read(&message.body)?;
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let answer = raft.append_entries(request).await;
        let joins = matches!(self.0.phase.get(), Some(Phase::Joining(_)));
        let holds = last.map_or(0, |last| last.index + 1);
        // All that the leader had when it sent this is here.
        if joins
            && matches!(answer, Ok(AppendEntriesResponse::Success))
            && holds > 0
            && holds >= message.log_end
        {
            self.0.joined()?;
        }
        Ok(write(&answer))
    }

    async fn vote(&self, raft: &Raft, body: &[u8]) -> Result<Vec<u8>> {
        let request: VoteRequest<u64> = read(body)?;
        if !self.0.may_vote() {
            return Err(Error::unavailable(
                "asking a coordinator of the set for its vote: it votes for nobody yet",
            ));
        }
        Ok(write(&raft.vote(request).await))
    }
}
