//! The servers of [`crate::server`] and those who ask them: 100 workers with connections of their own, and ranks
//! behind sidecars. Clients run in this process, the servers in another.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use strata_core::proto::v1::coordinator_client::CoordinatorClient;
use strata_core::proto::v1::dataset_client::DatasetClient;
use strata_core::proto::v1::{self};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::empty::Sizes;
use crate::floor::Sockets;
use crate::operations;
use crate::server::{FLOORS, Servers};
use crate::sidecars::Folded;

pub const BARRIER_RANKS: u32 = 100;
pub const JOB: &str = "bench";
pub const DATASET: &str = "imagenet";

pub struct Cluster {
    pub workers: Arc<Vec<Worker>>,
    /// 100 and 1,000 ranks behind sidecars of eight each.
    pub folded: [Arc<Folded>; 2],
    /// As many bare sockets as those have sidecars.
    pub floors: [Arc<Sockets>; 2],
    /// Rounds and epochs: each used once.
    pub counter: Arc<AtomicU64>,
    pub sizes: Sizes,
    _servers: Servers,
}

pub struct Worker {
    pub rank: u32,
    pub generation: u64,
    pub incarnation: String,
    pub coordinator: CoordinatorClient<Channel>,
    pub dataset: DatasetClient<Channel>,
    pub nothing: DatasetClient<Channel>,
}

impl Worker {
    pub fn caller(&self) -> Option<v1::Caller> {
        Some(v1::Caller {
            job: JOB.into(),
            generation: self.generation,
            rank: self.rank,
            token: String::new(),
        })
    }
}

pub fn register(job: &str, rank: u32) -> v1::RegisterWorkerRequest {
    v1::RegisterWorkerRequest {
        job: job.into(),
        rank,
        world_size: BARRIER_RANKS,
        host: format!("host-{}", rank / 8),
        ip: "127.0.0.1".into(),
        port: 29_500,
        worker_id: format!("worker-{rank}"),
        idempotency_key: format!("{job}-{rank}"),
        ..Default::default()
    }
}

impl Cluster {
    /// Fresh servers, whose clients have all connected and joined.
    pub fn start(clients: &Runtime) -> Cluster {
        let servers = Servers::start();
        clients.block_on(async {
            let workers = Arc::new(join(&servers.coordinator, &servers.empty).await);
            let [few, many] = &servers.floors;
            let counter = Arc::default();
            Cluster {
                sizes: operations::sizes(&workers, &counter).await,
                workers,
                folded: [
                    Arc::new(Folded::join(&servers.coordinator, "folded-100", 100).await),
                    Arc::new(Folded::join(&servers.coordinator, "folded-1000", 1000).await),
                ],
                floors: [
                    Arc::new(Sockets::connect(few, FLOORS[0]).await),
                    Arc::new(Sockets::connect(many, FLOORS[1]).await),
                ],
                counter,
                _servers: servers,
            }
        })
    }
}

async fn join(coordinator: &str, empty: &str) -> Vec<Worker> {
    let mut workers = Vec::new();
    for rank in 0..BARRIER_RANKS {
        let channel = connect(coordinator).await;
        let mut client = CoordinatorClient::new(channel.clone());
        let joined = client.register_worker(register(JOB, rank)).await.expect("the rank is new").into_inner();
        workers.push(Worker {
            rank,
            generation: joined.joining,
            incarnation: joined.incarnation,
            coordinator: client,
            dataset: DatasetClient::new(channel),
            nothing: DatasetClient::new(connect(empty).await),
        });
    }
    let spec = v1::DatasetSpec {
        id: DATASET.into(),
        path: "/data/imagenet".into(),
        format: "parquet".into(),
        total_samples: 1_281_167,
        shard_size: 10_000,
        shuffle: true,
        ..Default::default()
    };
    let request = v1::RegisterDatasetRequest { job: JOB.into(), spec: Some(spec), token: String::new() };
    workers[0].dataset.clone().register_dataset(request).await.expect("the dataset is new");
    workers
}

pub async fn connect(address: &str) -> Channel {
    let endpoint = Channel::from_shared(address.to_owned()).expect("an address is a URI");
    endpoint.tcp_nodelay(true).connect().await.expect("the server listens")
}
