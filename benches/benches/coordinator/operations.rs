//! The measured calls, each as a worker makes it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use strata_core::proto::v1;

use crate::cluster::{BARRIER_RANKS, Cluster, DATASET, JOB, Worker, register};
use crate::floor::Sockets;
use crate::sidecars::Folded;

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
    /// The same behind so many sidecars, which tell of eight ranks at once, and with bare sockets in their places.
    Folded(Ranks),
    Sockets(Ranks),
    /// Beats of 100 ranks in their sidecars' frames, until all are applied.
    Frames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    Hundred,
    Thousand,
}

impl Operation {
    /// Those that criterion measures.
    pub const ONE_AT_A_TIME: [Operation; 7] = [
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
            Operation::Sockets(Ranks::Hundred) => "limit: 13 bare sockets",
            Operation::Folded(Ranks::Hundred) => "barrier, 100 by 13 sidecars",
            Operation::Sockets(Ranks::Thousand) => "limit: 125 bare sockets",
            Operation::Folded(Ranks::Thousand) => "barrier, 1,000 by 125 sidecars",
            Operation::Frames => "beats of ranks in frames",
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
    folded: [Arc<Folded>; 2],
    floors: [Arc<Sockets>; 2],
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
            folded: cluster.folded.clone(),
            floors: cluster.floors.clone(),
        }
    }

    /// One call, as so many of the operation. Callers beyond the number of workers share their connections.
    pub async fn call(&self, caller: usize) -> u64 {
        let worker = &self.workers[caller % self.workers.len()];
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
            Operation::Folded(ranks) => {
                let round = self.counter.fetch_add(1, Ordering::Relaxed);
                self.folded[ranks as usize].barrier(round).await;
            }
            Operation::Sockets(ranks) => self.floors[ranks as usize].barrier().await,
            Operation::Frames => {
                let round = self.counter.fetch_add(1, Ordering::Relaxed);
                return self.folded[Ranks::Hundred as usize].beat(round).await;
            }
        }
        1
    }

    /// Of the last barriers behind sidecars: from the first release to the last.
    pub fn skews(&self) -> Vec<Duration> {
        match self.operation {
            Operation::Folded(ranks) => {
                std::mem::take(&mut self.folded[ranks as usize].skews.lock().expect("whole"))
            }
            _ => Vec::new(),
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
