//! A coordinator as it is shipped, a server of empty calls beside it, and 100 workers, each with connections of its own.
//! Server and clients run on separate runtimes, as they would in separate processes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use strata_core::clock::MachineClock;
use strata_core::coordinator::{Coordinator, CoordinatorSettings};
use strata_core::proto::v1::coordinator_client::CoordinatorClient;
use strata_core::proto::v1::dataset_client::DatasetClient;
use strata_core::proto::v1::dataset_server::{Dataset, DatasetServer};
use strata_core::proto::v1::{self};
use strata_core::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::floor::Sockets;
use crate::sidecars::Folded;

pub const BARRIER_RANKS: u32 = 100;
pub const JOB: &str = "bench";
pub const DATASET: &str = "imagenet";

/// Workers of finished turns never beat again; their leases must not run out in the middle of a later turn.
const LEASE: Duration = Duration::from_secs(3600);

pub struct Cluster {
    pub clients: Runtime,
    pub workers: Arc<Vec<Worker>>,
    /// 100 and 1,000 ranks behind sidecars of eight each.
    pub folded: [Arc<Folded>; 2],
    /// As many bare sockets as those have sidecars.
    pub floors: [Arc<Sockets>; 2],
    /// Rounds and epochs: each used once.
    pub counter: Arc<AtomicU64>,
    stop: CancellationToken,
    coordinator: Coordinator,
    server: Runtime,
    _home: tempfile::TempDir,
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
    pub fn start() -> Cluster {
        let runtime = || Builder::new_multi_thread().enable_all().build().expect("threads can be started");
        let (server, clients) = (runtime(), runtime());
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let stop = CancellationToken::new();
        let mut settings = CoordinatorSettings::new(home.path());
        settings.timings.lease = LEASE;
        let (coordinator, empty) = server.block_on(async {
            let started =
                Coordinator::start(settings, MachineClock::shared(), Metrics::new(), stop.clone()).await;
            (started.expect("the home is new and the port free"), serve_nothing(stop.clone()).await)
        });
        let address = format!("http://{}", coordinator.grpc_addr());
        let workers = clients.block_on(join(&address, &empty));
        let folded = [("folded-100", 100), ("folded-1000", 1000)]
            .map(|(job, ranks)| Arc::new(clients.block_on(Folded::join(&address, job, ranks))));
        let floors = [13, 125].map(|count| Arc::new(clients.block_on(Sockets::start(&server, count))));
        Cluster {
            clients,
            workers: Arc::new(workers),
            folded,
            floors,
            counter: Arc::default(),
            stop,
            coordinator,
            server,
            _home: home,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        let stopped = self.server.block_on(self.coordinator.stopped());
        stopped.expect("the coordinator closes its log");
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

/// Answers every call at once with nothing.
struct Nothing;

#[tonic::async_trait]
impl Dataset for Nothing {
    async fn register_dataset(
        &self,
        _: Request<v1::RegisterDatasetRequest>,
    ) -> Result<Response<v1::DatasetSpec>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_dataset(
        &self,
        _: Request<v1::GetDatasetRequest>,
    ) -> Result<Response<v1::DatasetSpec>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn list_datasets(
        &self,
        _: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsReply>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_shards(
        &self,
        _: Request<v1::GetShardsRequest>,
    ) -> Result<Response<v1::GetShardsReply>, Status> {
        Ok(Response::new(Default::default()))
    }
}

async fn serve_nothing(stop: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder()
        .add_service(DatasetServer::new(Nothing))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    tokio::spawn(serving);
    format!("http://{address}")
}
