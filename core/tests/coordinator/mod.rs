//! A coordinator under test and a sidecar's side of the Attach stream.
#![allow(dead_code, reason = "every test file uses its own part of it")]

use std::time::Duration;

use strata_core::clock::MachineClock;
use strata_core::coordinator::{Coordinator, CoordinatorSettings, Timings};
use strata_core::proto::v1::{self, node_command::Command as Push, node_report::Report};
use strata_core::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::transport::Channel;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    _home: tempfile::TempDir,
    settings: CoordinatorSettings,
    running: Coordinator,
    stop: DropGuard,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::with(Timings::default()).await
    }

    pub async fn with(timings: Timings) -> Cluster {
        let home = tempfile::tempdir().unwrap();
        let settings = CoordinatorSettings { timings, ..CoordinatorSettings::new(home.path()) };
        let (running, stop) = start(&settings).await;
        Cluster { _home: home, settings, running, stop }
    }

    /// Ends it; `address` is free from here on.
    pub async fn stop(&mut self) {
        drop(std::mem::replace(&mut self.stop, CancellationToken::new().drop_guard()));
        self.running.stopped().await.unwrap();
        self.settings.listen = self.running.grpc_addr();
    }

    /// On the same home and the same address.
    pub async fn restart(&mut self) {
        self.stop().await;
        (self.running, self.stop) = start(&self.settings).await;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.running.grpc_addr())
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.url()).unwrap().connect().await.unwrap()
    }

    pub async fn coordinator(&self) -> v1::coordinator_client::CoordinatorClient<Channel> {
        v1::coordinator_client::CoordinatorClient::new(self.channel().await)
    }

    pub async fn admin(&self) -> v1::admin_client::AdminClient<Channel> {
        v1::admin_client::AdminClient::new(self.channel().await)
    }

    pub async fn checkpoint(&self) -> v1::checkpoint_client::CheckpointClient<Channel> {
        v1::checkpoint_client::CheckpointClient::new(self.channel().await)
    }
}

async fn start(settings: &CoordinatorSettings) -> (Coordinator, DropGuard) {
    let stop = CancellationToken::new();
    let running = Coordinator::start(settings.clone(), MachineClock::shared(), Metrics::new(), stop.clone());
    let running = running.await.unwrap();
    (running, stop.drop_guard())
}

pub fn caller(job: &str, generation: u64, rank: u32) -> Option<v1::Caller> {
    Some(v1::Caller { job: job.into(), generation, rank, token: String::new() })
}

pub fn register(job: &str, rank: u32, world_size: u32) -> v1::RegisterWorkerRequest {
    v1::RegisterWorkerRequest {
        job: job.into(),
        rank,
        world_size,
        host: format!("host-{rank}"),
        idempotency_key: format!("key-{rank}"),
        ..Default::default()
    }
}

pub fn begun(job: &str, generation: u64, rank: u32, step: u64) -> v1::SaveBegun {
    v1::SaveBegun { caller: caller(job, generation, rank), step, ..Default::default() }
}

pub fn durable(job: &str, generation: u64, rank: u32, step: u64) -> v1::DurableReport {
    v1::DurableReport {
        caller: caller(job, generation, rank),
        step,
        manifest_path: format!("data/{step:020}.g{generation}/rank-{rank}.00000001.manifest"),
        manifest_blake3: "00".repeat(32),
        manifest_bytes: 100,
        state_bytes: 1000,
        stored_bytes: 1000,
        begun: Some(begun(job, generation, rank, step)),
    }
}

pub struct Sidecar {
    node: String,
    up: mpsc::Sender<v1::NodeReport>,
    down: Streaming<v1::NodeCommand>,
    seen: Vec<Push>,
}

impl Sidecar {
    pub async fn attach(cluster: &Cluster, node: &str) -> Sidecar {
        Sidecar::attach_with(cluster, node, Vec::new()).await
    }

    /// As if these further targets stood in its configuration.
    pub async fn attach_with(cluster: &Cluster, node: &str, targets: Vec<v1::Target>) -> Sidecar {
        Sidecar::attach_as(cluster, node, targets, strata_core::coordinator::our_version()).await
    }

    /// As if it were this build.
    pub async fn attach_as(
        cluster: &Cluster,
        node: &str,
        targets: Vec<v1::Target>,
        version: v1::Version,
    ) -> Sidecar {
        let (up, reports) = mpsc::channel(64);
        let hello = v1::NodeHello {
            targets,
            node: node.into(),
            incarnation: uuid::Uuid::new_v4().to_string(),
            host: format!("host-{node}"),
            version: Some(version),
            sessions: Vec::new(),
        };
        up.send(v1::NodeReport { report: Some(Report::Hello(hello)) }).await.unwrap();
        let down =
            cluster.coordinator().await.attach(ReceiverStream::new(reports)).await.unwrap().into_inner();
        let mut sidecar = Sidecar { node: node.into(), up, down, seen: Vec::new() };
        sidecar.wait(|push| matches!(push, Push::Welcome(_)).then_some(())).await;
        sidecar
    }

    pub async fn send(&self, report: Report) {
        self.up.send(v1::NodeReport { report: Some(report) }).await.unwrap();
    }

    pub async fn announce(&self) {
        self.send(Report::Slots(v1::SlotsAnnounced::default())).await;
    }

    pub async fn join(
        &self,
        cluster: &Cluster,
        job: &str,
        rank: u32,
        world: u32,
        uuid: &str,
    ) -> v1::RegisterWorkerReply {
        let request = v1::RegisterWorkerRequest {
            node: self.node.clone(),
            store: "file:///store".into(),
            findings: Some(v1::StoreFindings { job_uuid: uuid.into(), ..Default::default() }),
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            ..register(job, rank, world)
        };
        cluster.coordinator().await.register_worker(request).await.unwrap().into_inner()
    }

    pub async fn sealed(&self, job: &str, generation: u64, rank: u32, step: u64) {
        let report = v1::SealedReport {
            caller: caller(job, generation, rank),
            step,
            bytes: 1000,
            begun: Some(begun(job, generation, rank, step)),
        };
        self.send(Report::Sealed(report)).await;
    }

    pub async fn durable(&self, job: &str, generation: u64, rank: u32, step: u64) {
        self.send(Report::Durable(durable(job, generation, rank, step))).await;
    }

    pub async fn committed(&self, order: &v1::WriteCommit) {
        let outcome = v1::CommitOutcome {
            job: order.job.clone(),
            step: order.step,
            generation: order.generation,
            committed: true,
            ..Default::default()
        };
        self.send(Report::Commit(outcome)).await;
    }

    pub async fn wait<T>(&mut self, pick: impl Fn(Push) -> Option<T>) -> T {
        if let Some(at) = self.seen.iter().position(|push| pick(push.clone()).is_some()) {
            return pick(self.seen.remove(at)).unwrap();
        }
        loop {
            let next = tokio::time::timeout(PATIENCE, self.down.next()).await.expect("a push in time");
            let push = next.expect("the line stands").unwrap().command.unwrap();
            match pick(push.clone()) {
                Some(found) => return found,
                None => self.seen.push(push),
            }
        }
    }

    pub async fn opened(&mut self) -> v1::Generation {
        self.wait(|push| match push {
            Push::GenerationOpened(open) => Some(open),
            _ => None,
        })
        .await
    }

    pub async fn outcome(&mut self) -> v1::StepOutcome {
        self.wait(|push| match push {
            Push::Step(outcome) => Some(outcome),
            _ => None,
        })
        .await
    }

    pub async fn remove_step(&mut self) -> v1::RemoveStep {
        self.wait(|push| match push {
            Push::RemoveStep(order) => Some(order),
            _ => None,
        })
        .await
    }

    pub async fn target_order(&mut self) -> v1::TargetOrder {
        self.wait(|push| match push {
            Push::Target(order) => Some(order),
            _ => None,
        })
        .await
    }

    pub async fn write_commit(&mut self) -> v1::WriteCommit {
        self.wait(|push| match push {
            Push::WriteCommit(order) => Some(order),
            _ => None,
        })
        .await
    }
}
