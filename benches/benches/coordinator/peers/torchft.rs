//! torchft's lighthouse, which Python starts and which is a gRPC server in Rust: replicas tell it that they live, and
//! meet in a quorum.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::process::{Ending, Process};
use super::unary;
use crate::cluster::connect;
use crate::load::{self, Load};

pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/lighthouse.py");
const HEARTBEAT: &str = "/torchft.LighthouseService/Heartbeat";
const QUORUM: &str = "/torchft.LighthouseService/Quorum";

#[derive(Clone, PartialEq, prost::Message)]
struct HeartbeatRequest {
    #[prost(string, tag = "1")]
    replica_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeartbeatResponse {}

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
struct Quorum {
    #[prost(int64, tag = "1")]
    quorum_id: i64,
    /// Counted, but not decoded: a replica would, on a machine of its own.
    #[prost(bytes = "vec", repeated, tag = "2")]
    participants: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QuorumResponse {
    #[prost(message, optional, tag = "1")]
    quorum: Option<Quorum>,
}

/// A lighthouse that waits for all of its replicas, each with a connection.
pub struct Lighthouse {
    replicas: Arc<Vec<Channel>>,
    _process: Process,
}

impl Lighthouse {
    pub fn start(clients: &Runtime, python: &Path, replicas: usize) -> Lighthouse {
        let command = |_: &Path| {
            let mut command = Command::new(python);
            command.args([SCRIPT, "serve", &replicas.to_string()]);
            command
        };
        let mut process = Process::start(Ending::Input, command);
        let address = format!("http://127.0.0.1:{}", process.line().trim());
        let connected = clients.block_on(join_all((0..replicas).map(|_| connect(&address))));
        Lighthouse { replicas: Arc::new(connected), _process: process }
    }

    pub fn beat(&self, clients: &Runtime, callers: usize, time: Duration) -> Load {
        let replicas = self.replicas.clone();
        let beat = move |caller: usize| {
            let replicas = replicas.clone();
            async move {
                let (number, channel) = at(&replicas, caller);
                let request = HeartbeatRequest { replica_id: name(number) };
                let answered: Result<HeartbeatResponse, _> = unary(channel, HEARTBEAT, request).await;
                answered.expect("the lighthouse takes heartbeats");
                1
            }
        };
        clients.block_on(load::run(callers, time, beat))
    }

    /// All replicas ask at once, until the last is answered. The first time, which none had met before, is not measured.
    pub fn quorum(&self, clients: &Runtime, time: Duration) -> Load {
        let replicas = self.replicas.clone();
        clients.block_on(meet(replicas.clone()));
        clients.block_on(load::run(1, time, move |_| meet(replicas.clone())))
    }
}

async fn meet(replicas: Arc<Vec<Channel>>) -> u64 {
    join_all(replicas.iter().enumerate().map(async |(number, channel)| {
        let member = QuorumMember {
            replica_id: name(number),
            address: format!("http://host-{number}:29512"),
            store_address: format!("host-{number}:29500"),
            step: 1000,
            world_size: 1,
        };
        let request = QuorumRequest { requester: Some(member) };
        let answered: QuorumResponse = unary(channel, QUORUM, request).await.expect("all replicas ask");
        let quorum = answered.quorum.expect("an answer holds a quorum");
        assert_eq!((quorum.quorum_id, quorum.participants.len()), (1, replicas.len()), "nobody leaves it");
    }))
    .await;
    1
}

fn at(replicas: &[Channel], caller: usize) -> (usize, &Channel) {
    let number = caller % replicas.len();
    (number, &replicas[number])
}

fn name(number: usize) -> String {
    format!("replica-{number}")
}
