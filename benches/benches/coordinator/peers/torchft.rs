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
use crate::cluster::connect;
use crate::foreign::unary;
use crate::lighthouse::{SCRIPT, quorum, replica};
use crate::load::{self, Load};

const HEARTBEAT: &str = "/torchft.LighthouseService/Heartbeat";

#[derive(Clone, PartialEq, prost::Message)]
struct HeartbeatRequest {
    #[prost(string, tag = "1")]
    replica_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeartbeatResponse {}

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
                let request = HeartbeatRequest { replica_id: replica(number) };
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
        let met = quorum(channel, number, 1).await.expect("all replicas ask");
        assert_eq!((met.quorum_id, met.participants.len()), (1, replicas.len()), "nobody leaves it");
    }))
    .await;
    1
}

fn at(replicas: &[Channel], caller: usize) -> (usize, &Channel) {
    let number = caller % replicas.len();
    (number, &replicas[number])
}
