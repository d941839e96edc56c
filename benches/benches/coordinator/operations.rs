//! The measured calls, each as a worker makes it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures::future::join_all;
use strata_core::proto::v1;

use crate::cluster::{BARRIER_RANKS, Cluster, DATASET, JOB, Worker, register};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A unary call that does nothing, through the same stack: the limit of the calls below.
    Empty,
    Heartbeat,
    GetShards,
    /// One block written and fdatasynced: the limit of what must be durable.
    Sync,
    /// New workers, 100 to a job; durable when answered.
    Register,
    /// An empty call by each of 100 workers, until the last is answered: the limit of a barrier.
    EmptyByAll,
    /// 100 workers meet, until the last is released.
    Barrier,
}

impl Operation {
    pub const ALL: [Operation; 7] = [
        Operation::Empty,
        Operation::Heartbeat,
        Operation::GetShards,
        Operation::Sync,
        Operation::Register,
        Operation::EmptyByAll,
        Operation::Barrier,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Empty => "limit: empty call",
            Operation::Heartbeat => "heartbeat",
            Operation::GetShards => "get shard",
            Operation::Sync => "limit: 4 KiB + fdatasync",
            Operation::Register => "registration",
            Operation::EmptyByAll => "limit: 100 empty calls at once",
            Operation::Barrier => "barrier, 100 workers",
        }
    }
}

/// An operation on a cluster, ready to be called by several callers at once.
#[derive(Clone)]
pub struct Target {
    operation: Operation,
    workers: Arc<Vec<Worker>>,
    counter: Arc<AtomicU64>,
    file: Arc<File>,
}

/// Names the jobs of [`Operation::Register`] over the whole run.
static JOBS: AtomicU32 = AtomicU32::new(0);

impl Target {
    pub fn new(cluster: &Cluster, operation: Operation) -> Target {
        Target {
            operation,
            workers: cluster.workers.clone(),
            counter: cluster.counter.clone(),
            file: Arc::new(tempfile::tempfile().expect("a temporary file can be made")),
        }
    }

    /// One call. `caller` is below the number of workers and called by one task at a time.
    pub async fn call(&self, caller: usize) {
        let worker = &self.workers[caller];
        match self.operation {
            Operation::Empty => empty(worker).await,
            Operation::Heartbeat => heartbeat(worker).await,
            Operation::GetShards => self.get_shards(worker).await,
            Operation::Sync => sync(&self.file),
            Operation::Register => self.register(worker).await,
            Operation::EmptyByAll => {
                join_all(self.workers.iter().map(empty)).await;
            }
            Operation::Barrier => {
                let round = self.counter.fetch_add(1, Ordering::Relaxed);
                join_all(self.workers.iter().map(|worker| barrier(worker, round))).await;
            }
        }
    }

    async fn get_shards(&self, worker: &Worker) {
        let epoch = self.counter.fetch_add(1, Ordering::Relaxed);
        let request = v1::GetShardsRequest {
            job: JOB.into(),
            dataset: DATASET.into(),
            rank: worker.rank,
            epoch,
            generation: worker.generation,
            ..Default::default()
        };
        let shards =
            worker.dataset.clone().get_shards(request).await.expect("the rank has shards").into_inner();
        assert!(!shards.shards.is_empty(), "129 shards over 100 ranks leave none without");
    }

    async fn register(&self, worker: &Worker) {
        let number = JOBS.fetch_add(1, Ordering::Relaxed);
        let job = format!("job-{}", number / BARRIER_RANKS);
        let request = register(&job, number % BARRIER_RANKS);
        worker.coordinator.clone().register_worker(request).await.expect("the rank is new");
    }
}

async fn empty(worker: &Worker) {
    worker.nothing.clone().get_dataset(v1::GetDatasetRequest::default()).await.expect("it always answers");
}

async fn heartbeat(worker: &Worker) {
    let progress = v1::Progress {
        rank: worker.rank,
        step: 1000,
        phase: v1::RankPhase::Training.into(),
        ..Default::default()
    };
    let beat = v1::HeartbeatRequest {
        caller: worker.caller(),
        incarnation: worker.incarnation.clone(),
        progress: Some(progress),
        metrics: [("loss".to_owned(), 0.5)].into(),
    };
    worker.coordinator.clone().heartbeat(beat).await.expect("the worker is a member");
}

async fn barrier(worker: &Worker, round: u64) {
    let request =
        v1::BarrierRequest { caller: worker.caller(), name: "epoch".into(), round, timeout_ms: 60_000 };
    worker.coordinator.clone().barrier(request).await.expect("all ranks arrive");
}

fn sync(file: &File) {
    file.write_all_at(&[7; 4096], 0).expect("the temporary directory has room");
    file.sync_data().expect("the disk takes it");
}
