//! Sidecars as the coordinator sees them: a line each, on a connection of its own, that speaks for eight ranks.

use std::time::{Duration, Instant};

use futures::future::join_all;
use strata_core::proto::v1::{self, node_command::Command, node_report::Report};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cluster::{connect, register};

pub const RANKS_OF_ONE: u32 = 8;
/// Frames in flight on a line before their being applied is waited for.
const FRAMES: u64 = 250;

/// A job all of whose ranks are behind sidecars.
pub struct Folded {
    job: String,
    generation: u64,
    sidecars: Vec<Sidecar>,
    /// Of the last barriers: from the first release to the last.
    pub skews: std::sync::Mutex<Vec<Duration>>,
}

struct Sidecar {
    ranks: Vec<u32>,
    reports: mpsc::Sender<v1::NodeReport>,
    commands: Mutex<Streaming<v1::NodeCommand>>,
}

impl Folded {
    /// Joins `ranks` ranks as a job of that name.
    pub async fn join(address: &str, job: &str, ranks: u32) -> Folded {
        let mut sidecars = Vec::new();
        for first in (0..ranks).step_by(RANKS_OF_ONE as usize) {
            let ranks: Vec<u32> = (first..ranks.min(first + RANKS_OF_ONE)).collect();
            sidecars.push(Sidecar::attach(address, &format!("{job}-{first}"), ranks).await);
        }
        let mut client = v1::coordinator_client::CoordinatorClient::new(connect(address).await);
        let mut generation = 0;
        for sidecar in &sidecars {
            for rank in &sidecar.ranks {
                let node = format!("{job}-{}", sidecar.ranks[0]);
                let request = v1::RegisterWorkerRequest {
                    node,
                    world_size: ranks,
                    session: 1 + u64::from(*rank),
                    ..register(job, *rank)
                };
                generation =
                    client.register_worker(request).await.expect("the rank is new").into_inner().joining;
            }
        }
        Folded { job: job.to_owned(), generation, sidecars, skews: Default::default() }
    }

    /// Every sidecar tells that its ranks have come, and hears of the release.
    pub async fn barrier(&self, round: u64) {
        let released = join_all(self.sidecars.iter().map(|sidecar| self.meet(sidecar, round))).await;
        let first = released.iter().min().expect("a job has sidecars");
        let skew = released.iter().max().expect("a job has sidecars").duration_since(*first);
        self.skews.lock().expect("no holder panics").push(skew);
    }

    async fn meet(&self, sidecar: &Sidecar, round: u64) -> Instant {
        let arrival = v1::BarrierArrival {
            job: self.job.clone(),
            generation: self.generation,
            name: "epoch".into(),
            round,
            ranks: sidecar.ranks.clone(),
            released: false,
        };
        sidecar.report(Report::Arrival(arrival)).await;
        sidecar.hear(|command| matches!(command, Command::Barrier(told) if told.round >= round)).await;
        Instant::now()
    }

    /// Frames of all sidecars, each with eight ranks and their steps, and then a barrier behind them on each line:
    /// when that is released all have been applied. Returns how many beats of ranks that were.
    pub async fn beat(&self, round: u64) -> u64 {
        join_all(self.sidecars.iter().map(async |sidecar| {
            for sequence in 0..FRAMES {
                let step = round * FRAMES + sequence;
                let ranks = sidecar.ranks.iter().map(|rank| v1::Progress {
                    rank: *rank,
                    step,
                    phase: v1::RankPhase::Training.into(),
                    age_ms: 3,
                    ..Default::default()
                });
                let job = v1::JobFrame {
                    job: self.job.clone(),
                    generation: self.generation,
                    ranks: ranks.collect(),
                    ..Default::default()
                };
                sidecar.report(Report::Frame(v1::Frame { sequence, jobs: vec![job] })).await;
            }
        }))
        .await;
        self.barrier(round).await;
        FRAMES * self.sidecars.iter().map(|sidecar| sidecar.ranks.len() as u64).sum::<u64>()
    }
}

impl Sidecar {
    async fn attach(address: &str, node: &str, ranks: Vec<u32>) -> Sidecar {
        let (reports, up) = mpsc::channel(1024);
        let mut client = v1::coordinator_client::CoordinatorClient::new(connect(address).await);
        let hello = v1::NodeHello {
            node: node.to_owned(),
            incarnation: "1".into(),
            host: node.to_owned(),
            version: Some(strata_core::version::ours()),
            ..Default::default()
        };
        let sidecar_reports = reports.clone();
        for report in [Report::Hello(hello), Report::Slots(v1::SlotsAnnounced::default())] {
            sidecar_reports.send(v1::NodeReport { report: Some(report) }).await.expect("the line holds two");
        }
        let attached = client.attach(ReceiverStream::new(up)).await.expect("the coordinator takes sidecars");
        let sidecar = Sidecar { ranks, reports, commands: Mutex::new(attached.into_inner()) };
        sidecar.hear(|command| matches!(command, Command::Welcome(_))).await;
        sidecar
    }

    async fn report(&self, report: Report) {
        self.reports.send(v1::NodeReport { report: Some(report) }).await.expect("the line is up");
    }

    async fn hear(&self, is_it: impl Fn(&Command) -> bool) {
        let mut commands = self.commands.lock().await;
        loop {
            let told = commands.message().await.expect("the line is up").expect("the line is up");
            if told.command.as_ref().is_some_and(&is_it) {
                return;
            }
        }
    }
}
