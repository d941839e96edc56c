//! The measured calls that are ours, each as a worker makes it, and what limits them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use strata_core::proto::v1;

use crate::cluster::{BARRIER_RANKS, Cluster, DATASET, JOB, Worker, register};
use crate::empty::{self, Like, Size, Sizes};
use crate::floor::Sockets;
use crate::sidecars::Folded;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A unary call that does nothing, through the same stack: the limit of the calls below.
    Empty(Like),
    Heartbeat,
    GetShards,
    /// One block written and fdatasynced: the limit of what must be durable.
    Sync,
    /// An empty call and then that: the limit of a durable call with nobody to share the write.
    EmptyAndSync(Like),
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ranks {
    Hundred,
    Thousand,
}

impl Operation {
    /// Those that criterion measures.
    pub const ONE_AT_A_TIME: [Operation; 7] = [
        Operation::Empty(Like::Heartbeat),
        Operation::Heartbeat,
        Operation::GetShards,
        Operation::Sync,
        Operation::Register,
        Operation::EmptyByAll,
        Operation::Barrier,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Empty(_) => "limit: empty call of its sizes",
            Operation::Heartbeat => "heartbeat",
            Operation::GetShards => "get shard",
            Operation::Sync => "limit: 4 KiB + fdatasync",
            Operation::EmptyAndSync(_) => "limit: empty call, then 4 KiB + fdatasync",
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
    /// What an empty call sends, where the operation makes any.
    empty: v1::GetDatasetRequest,
}

/// Names the jobs of [`Operation::Register`] over the whole run.
static JOBS: AtomicU32 = AtomicU32::new(0);

impl Target {
    pub fn new(cluster: &Cluster, operation: Operation) -> Target {
        let like = match operation {
            Operation::Empty(like) | Operation::EmptyAndSync(like) => like,
            _ => Like::Barrier,
        };
        Target {
            operation,
            workers: cluster.workers.clone(),
            counter: cluster.counter.clone(),
            file: Arc::new(tempfile::tempfile().expect("a temporary file can be made")),
            folded: cluster.folded.clone(),
            floors: cluster.floors.clone(),
            empty: cluster.sizes.of(like).request(),
        }
    }

    /// One call, as so many of the operation. Callers beyond the number of workers share their connections.
    pub async fn call(&self, caller: usize) -> u64 {
        let worker = &self.workers[caller % self.workers.len()];
        match self.operation {
            Operation::Empty(_) => empty::call(worker, self.empty.clone()).await,
            Operation::Heartbeat => {
                heartbeat(worker).await;
            }
            Operation::GetShards => {
                get_shards(worker, self.next()).await;
            }
            Operation::Sync => sync(&self.file),
            Operation::EmptyAndSync(_) => {
                empty::call(worker, self.empty.clone()).await;
                sync(&self.file);
            }
            Operation::Register => {
                register_next(worker).await;
            }
            Operation::EmptyByAll => {
                join_all(self.workers.iter().map(|worker| empty::call(worker, self.empty.clone()))).await;
            }
            Operation::Barrier => {
                let round = self.next();
                join_all(self.workers.iter().map(|worker| barrier(worker, round))).await;
            }
            Operation::Folded(ranks) => self.folded[ranks as usize].barrier(self.next()).await,
            Operation::Sockets(ranks) => self.floors[ranks as usize].barrier().await,
            Operation::Frames => return self.folded[Ranks::Hundred as usize].beat(self.next()).await,
        }
        1
    }

    fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
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
}

/// What each call sends and is answered, as the mean over the workers: the shards of a rank are one or two.
pub async fn sizes(workers: &[Worker], counter: &AtomicU64) -> Sizes {
    let next = || counter.fetch_add(1, Ordering::Relaxed);
    let (epoch, round) = (next(), next());
    let heartbeats = workers.iter().map(async |worker| Size::of(&beat_of(worker), &heartbeat(worker).await));
    let shards = workers
        .iter()
        .map(async |worker| Size::of(&shards_of(worker, epoch), &get_shards(worker, epoch).await));
    let registered = workers
        .iter()
        .map(async |worker| Size::of(&register(JOB, worker.rank), &register_next(worker).await));
    let barriers = workers
        .iter()
        .map(async |worker| Size::of(&arrival_of(worker, round), &barrier(worker, round).await));
    Sizes {
        heartbeat: Size::mean(&join_all(heartbeats).await),
        get_shards: Size::mean(&join_all(shards).await),
        register: Size::mean(&join_all(registered).await),
        barrier: Size::mean(&join_all(barriers).await),
    }
}

fn beat_of(worker: &Worker) -> v1::HeartbeatRequest {
    let progress = v1::Progress {
        rank: worker.rank,
        step: 1000,
        phase: v1::RankPhase::Training.into(),
        ..Default::default()
    };
    v1::HeartbeatRequest {
        caller: worker.caller(),
        incarnation: worker.incarnation.clone(),
        progress: Some(progress),
        metrics: [("loss".to_owned(), 0.5)].into(),
    }
}

async fn heartbeat(worker: &Worker) -> v1::HeartbeatReply {
    let answered = worker.coordinator.clone().heartbeat(beat_of(worker)).await;
    answered.expect("the worker is a member").into_inner()
}

fn shards_of(worker: &Worker, epoch: u64) -> v1::GetShardsRequest {
    v1::GetShardsRequest {
        job: JOB.into(),
        dataset: DATASET.into(),
        rank: worker.rank,
        epoch,
        generation: worker.generation,
        ..Default::default()
    }
}

async fn get_shards(worker: &Worker, epoch: u64) -> v1::GetShardsReply {
    let answered = worker.dataset.clone().get_shards(shards_of(worker, epoch)).await;
    let shards = answered.expect("the rank has shards").into_inner();
    assert!(!shards.shards.is_empty(), "129 shards over 100 ranks leave none without");
    shards
}

async fn register_next(worker: &Worker) -> v1::RegisterWorkerReply {
    let number = JOBS.fetch_add(1, Ordering::Relaxed);
    let request = register(&format!("job-{}", number / BARRIER_RANKS), number % BARRIER_RANKS);
    worker.coordinator.clone().register_worker(request).await.expect("the rank is new").into_inner()
}

fn arrival_of(worker: &Worker, round: u64) -> v1::BarrierRequest {
    v1::BarrierRequest { caller: worker.caller(), name: "epoch".into(), round, timeout_ms: 60_000 }
}

async fn barrier(worker: &Worker, round: u64) -> v1::BarrierReply {
    let answered = worker.coordinator.clone().barrier(arrival_of(worker, round)).await;
    answered.expect("all ranks arrive").into_inner()
}

fn sync(file: &File) {
    file.write_all_at(&[7; 4096], 0).expect("the temporary directory has room");
    file.sync_data().expect("the disk takes it");
}
