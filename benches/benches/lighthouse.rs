//! torchft's lighthouse as a replica asks it for a quorum: of its protocol what is needed for that.

use tonic::Status;
use tonic::transport::Channel;

use crate::foreign::unary;

pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/lighthouse.py");
const QUORUM: &str = "/torchft.LighthouseService/Quorum";

#[derive(Clone, PartialEq, prost::Message)]
struct QuorumMember {
    #[prost(string, tag = "1")]
    replica_id: String,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(string, tag = "3")]
    store_address: String,
    #[prost(int64, tag = "4")]
    step: i64,
    #[prost(uint64, tag = "5")]
    world_size: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QuorumRequest {
    #[prost(message, optional, tag = "1")]
    requester: Option<QuorumMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Quorum {
    #[prost(int64, tag = "1")]
    pub quorum_id: i64,
    /// Counted, but not decoded: a replica would, on a machine of its own.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub participants: Vec<bytes::Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QuorumResponse {
    #[prost(message, optional, tag = "1")]
    quorum: Option<Quorum>,
}

/// Asks for the quorum as replica `number`, of so many ranks, and waits until there is one.
pub async fn quorum(channel: &Channel, number: usize, ranks: u64) -> Result<Quorum, Status> {
    let member = QuorumMember {
        replica_id: replica(number),
        address: format!("http://host-{number}:29512"),
        store_address: format!("host-{number}:29500"),
        step: 1000,
        world_size: ranks,
    };
    let answered: QuorumResponse = unary(channel, QUORUM, QuorumRequest { requester: Some(member) }).await?;
    answered.quorum.ok_or_else(|| Status::internal("an answer without a quorum"))
}

pub fn replica(number: usize) -> String {
    format!("replica-{number}")
}
