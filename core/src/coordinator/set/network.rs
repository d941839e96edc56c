//! Messages to the others. Bodies are JSON with a version beside them; a snapshot's bytes travel as they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Code;

use super::acks::Acks;
use super::entry::Types;
use super::peers::Peers;
use crate::proto::v1::replication_client::ReplicationClient;
use crate::proto::v1::{self, PeerCall};

/// Of the encoding of messages; another one is refused.
pub const VERSION: u32 = 1;
/// One entry is a batch of up to some hundred commands.
pub const MESSAGE_LIMIT: usize = 1 << 30;
/// A peer that can't be reached is tried again so soon.
const AGAIN: Duration = Duration::from_millis(200);

type Failed<E> = RPCError<u64, openraft::BasicNode, RaftError<u64, E>>;

/// Makes the ways to the others.
#[derive(Clone)]
pub struct Network {
    pub peers: Arc<Peers>,
    pub acks: Arc<Acks>,
    /// Index behind the last entry of this one's log, for those that join.
    pub log_end: Arc<std::sync::atomic::AtomicU64>,
}

pub struct Way {
    network: Network,
    target: u64,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _: &openraft::BasicNode) -> Way {
        Way { network: self.clone(), target }
    }
}

pub fn greeting(peers: &Peers, to: u64) -> v1::PeerGreeting {
    v1::PeerGreeting { version: VERSION, set: peers.set(), from: peers.me, to }
}

impl Way {
    async fn tell<A, E>(&self, call: PeerCall, body: &impl Serialize, chunk: Vec<u8>) -> Result<A, Failed<E>>
    where
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let peers = &self.network.peers;
        let nobody = || Unreachable::new(&std::io::Error::other(format!("there is no peer {}", self.target)));
        let channel = peers.channel(self.target).ok_or_else(nobody)?;
        let message = v1::PeerMessage {
            peer: Some(greeting(peers, self.target)),
            call: call.into(),
            body: serde_json::to_vec(body).map_err(|error| NetworkError::new(&error))?,
            chunk,
            log_end: self.network.log_end.load(std::sync::atomic::Ordering::Relaxed),
        };
        let mut client = ReplicationClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let answer = client.tell(peers.sealed(message)).await.map_err(|status| match status.code() {
            Code::Unavailable | Code::PermissionDenied | Code::InvalidArgument => {
                RPCError::Unreachable(Unreachable::new(&status))
            }
            _ => RPCError::Network(NetworkError::new(&status)),
        })?;
        let body = answer.into_inner().body;
        let answer: Result<A, RaftError<u64, E>> =
            serde_json::from_slice(&body).map_err(|error| NetworkError::new(&error))?;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, openraft::BasicNode, RaftError<u64>>> {
        let sent = Instant::now();
        let answer = self.tell(PeerCall::Append, &request, Vec::new()).await?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.network.acks.note(self.target, request.vote.leader_id.term, sent);
        }
        Ok(answer)
    }

    async fn install_snapshot(
        &mut self,
        mut request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, openraft::BasicNode, RaftError<u64, InstallSnapshotError>>,
    > {
        let chunk = std::mem::take(&mut request.data);
        self.tell(PeerCall::Snapshot, &request, chunk).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, openraft::BasicNode, RaftError<u64>>> {
        self.tell(PeerCall::Vote, &request, Vec::new()).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(AGAIN))
    }
}
