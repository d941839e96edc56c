//! etcd with one member, as its package has it: its log and its store are in a folder on the disk that ours are on.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::PATIENCE;
use super::process::{Ending, Process};
use crate::cluster::{BARRIER_RANKS, connect};
use crate::empty::longest;
use crate::foreign::unary;
use crate::load::{self, Load};

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const PUT: &str = "/etcdserverpb.KV/Put";
/// As long as our own in this bench: none runs out.
const TTL_SECONDS: i64 = 3600;
const LOOPBACK: &str = "http://127.0.0.1";

/// Of etcd's API v3, the fields that are asked for here.
#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(string, tag = "4")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseKeepAliveResponse {
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(int64, tag = "3")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

pub struct Etcd {
    /// As many as our workers have: callers beyond share them, as ours do.
    channels: Arc<Vec<Channel>>,
    keys: Arc<AtomicU64>,
    /// Bytes of a request to put.
    request: usize,
    _process: Process,
}

impl Etcd {
    pub fn start(clients: &Runtime, path: &Path, request: usize) -> Etcd {
        let [client, peer] = free_ports().map(|port| format!("{LOOPBACK}:{port}"));
        let command = |folder: &Path| {
            // It would outlive a bench that is killed.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(path);
            command.args(["--name", "bench", "--logger", "zap", "--log-level", "error"]);
            command.arg("--data-dir").arg(folder.join("data"));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("bench={peer}")]);
            command
        };
        let mut process = Process::start(Ending::Kill, command);
        clients.block_on(ready(&mut process, &client));
        let channels = clients.block_on(join_all((0..BARRIER_RANKS).map(|_| connect(&client))));
        Etcd { channels: Arc::new(channels), keys: Arc::default(), request, _process: process }
    }

    /// Each caller has a lease, and a stream on which it says so again when the last time was answered.
    pub fn keep_alive(&self, clients: &Runtime, callers: usize, time: Duration) -> Load {
        let channels = self.channels.iter().cycle().take(callers);
        let leases = Arc::new(clients.block_on(join_all(channels.map(Lease::grant))));
        let keep = move |caller: usize| {
            let leases = leases.clone();
            async move { leases[caller].keep().await }
        };
        clients.block_on(load::run(callers, time, keep))
    }

    /// A new key each, in a request as long as that of a registration.
    pub fn put(&self, clients: &Runtime, callers: usize, time: Duration) -> Load {
        let request = |letters| PutRequest { key: key(0), value: vec![b'x'; letters] };
        let value = vec![b'x'; longest(self.request, request)];
        let (channels, keys) = (self.channels.clone(), self.keys.clone());
        let put = move |caller: usize| {
            let (channels, keys, value) = (channels.clone(), keys.clone(), value.clone());
            async move {
                let request = PutRequest { key: key(keys.fetch_add(1, Ordering::Relaxed)), value };
                let answered: PutResponse =
                    unary(&channels[caller % channels.len()], PUT, request).await.expect("etcd puts");
                assert!(answered.header.is_some_and(|header| header.revision > 0), "it has been committed");
                1
            }
        };
        clients.block_on(load::run(callers, time, put))
    }
}

/// As long as that of a worker.
fn key(number: u64) -> Vec<u8> {
    format!("job-{:06}/{:02}", number / 100, number % 100).into_bytes()
}

struct Lease {
    id: i64,
    asks: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Mutex<Streaming<LeaseKeepAliveResponse>>,
}

impl Lease {
    async fn grant(channel: &Channel) -> Lease {
        let granted: LeaseGrantResponse =
            unary(channel, GRANT, LeaseGrantRequest { ttl: TTL_SECONDS }).await.expect("etcd grants leases");
        assert!(granted.error.is_empty(), "etcd grants no lease: {}", granted.error);
        let (asks, up) = mpsc::channel(1);
        let mut client = Grpc::new(channel.clone());
        client.ready().await.expect("etcd is there");
        // Its answer begins with the first request's.
        asks.send(LeaseKeepAliveRequest { id: granted.id }).await.expect("the stream holds one");
        let path = PathAndQuery::from_static(KEEP_ALIVE);
        let opened =
            client.streaming(Request::new(ReceiverStream::new(up)), path, ProstCodec::default()).await;
        let lease =
            Lease { id: granted.id, asks, answers: Mutex::new(opened.expect("a stream").into_inner()) };
        lease.answered().await;
        lease
    }

    async fn keep(&self) -> u64 {
        self.asks.send(LeaseKeepAliveRequest { id: self.id }).await.expect("the stream is up");
        self.answered().await;
        1
    }

    async fn answered(&self) {
        let message = self.answers.lock().await.message().await.expect("the stream is up");
        let kept = message.expect("the stream is up");
        assert!(kept.id == self.id && kept.ttl > 0, "lease {} is kept, not {kept:?}", self.id);
    }
}

/// Has a leader and so grants leases.
async fn ready(process: &mut Process, address: &str) {
    let began = Instant::now();
    loop {
        process.check();
        let endpoint = Channel::from_shared(address.to_owned()).expect("an address is a URI");
        if let Ok(channel) = endpoint.connect().await {
            let request = LeaseGrantRequest { ttl: TTL_SECONDS };
            if unary::<_, LeaseGrantResponse>(&channel, GRANT, request).await.is_ok() {
                return;
            }
        }
        assert!(began.elapsed() < PATIENCE, "waiting for etcd at {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// etcd can't be told to take any and say which; both are held at once, so they differ.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}
