//! A sidecar as the coordinator sees it: a connection with a line on it, through which its ranks register and beat.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strata_core::proto::v1::coordinator_client::CoordinatorClient;
use strata_core::proto::v1::{self, node_command::Command, node_report::Report};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

const JOB: &str = "ranks";
const UUID: &str = "6f0c3f4e-8a55-4f4f-9d0c-6f6a5b0d1c11";
/// As sidecars send them.
const FRAME: Duration = Duration::from_millis(250);
/// Reports that wait: a frame that finds no room is one that could not be sent in its time.
const REPORTS: usize = 4;

/// Nanoseconds of the machine's clock, the same in all processes.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What the sidecars of this process have heard.
#[derive(Default)]
pub struct Heard {
    opened: AtomicUsize,
    ended: AtomicUsize,
    begun: AtomicU64,
    last_opened: AtomicU64,
    last_ended: AtomicU64,
    longest: AtomicUsize,
    generation: AtomicU64,
    changed: Notify,
}

impl Heard {
    fn take(&self, command: &Command) {
        match command {
            Command::GenerationOpened(opened) => {
                self.generation.store(opened.generation, Ordering::Relaxed);
                self.longest.fetch_max(prost::Message::encoded_len(opened), Ordering::Relaxed);
                self.last_opened.fetch_max(now(), Ordering::Relaxed);
                self.opened.fetch_add(1, Ordering::Relaxed);
            }
            Command::GenerationEnded(_) => {
                self.last_ended.fetch_max(now(), Ordering::Relaxed);
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
            _ => return,
        }
        self.changed.notify_waiters();
    }

    async fn until(&self, count: &AtomicUsize, all: usize) {
        loop {
            let changed = self.changed.notified();
            if count.load(Ordering::Relaxed) >= all {
                return;
            }
            changed.await;
        }
    }

    pub async fn all_opened(&self, all: usize) {
        self.until(&self.opened, all).await;
    }

    pub async fn all_ended(&self, all: usize) {
        self.until(&self.ended, all).await;
    }

    /// Another process may be the one that begins.
    pub fn forget_begin(&self) {
        self.begun.store(u64::MAX, Ordering::Relaxed);
    }

    pub fn begin(&self) {
        self.begun.store(now(), Ordering::Relaxed);
    }

    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub fn last_opened(&self) -> u64 {
        self.last_opened.load(Ordering::Relaxed)
    }

    pub fn last_ended(&self) -> u64 {
        self.last_ended.load(Ordering::Relaxed)
    }

    /// Bytes of a told generation, at most.
    pub fn longest(&self) -> usize {
        self.longest.load(Ordering::Relaxed)
    }
}

pub struct Sidecar {
    number: u32,
    ranks: Range<u32>,
    world: u32,
    client: CoordinatorClient<Channel>,
    reports: mpsc::Sender<v1::NodeReport>,
    heard: Arc<Heard>,
}

impl Sidecar {
    pub async fn attach(
        address: &str,
        from: IpAddr,
        number: u32,
        ranks: Range<u32>,
        world: u32,
        heard: Arc<Heard>,
    ) -> Sidecar {
        let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address is a URI");
        let channel = endpoint.local_address(Some(from)).tcp_nodelay(true).connect().await;
        let mut client = CoordinatorClient::new(channel.expect("the coordinator listens"));
        let (reports, up) = mpsc::channel(REPORTS);
        let hello = v1::NodeHello {
            node: node(number),
            incarnation: "1".into(),
            host: format!("host-{number}"),
            version: Some(strata_core::version::ours()),
            ..Default::default()
        };
        for report in [Report::Hello(hello), Report::Slots(v1::SlotsAnnounced::default())] {
            reports.send(v1::NodeReport { report: Some(report) }).await.expect("the line holds two");
        }
        let attached = client.attach(ReceiverStream::new(up)).await.expect("the coordinator takes sidecars");
        let (welcome, welcomed) = oneshot::channel();
        tokio::spawn(listen(attached.into_inner(), welcome, heard.clone()));
        welcomed.await.expect("the coordinator welcomes sidecars");
        Sidecar { number, ranks, world, client, reports, heard }
    }

    /// All its ranks: the first that comes alone, those that have come meanwhile together.
    pub async fn register(&self) {
        let mut next = self.ranks.clone().map(|rank| self.registration(rank));
        for together in [next.by_ref().take(1).collect(), next.collect::<Vec<_>>()] {
            if together.is_empty() {
                return;
            }
            let request = v1::RegisterWorkersRequest { registrations: together };
            let reply = self.client.clone().register_workers(request).await;
            let outcomes = reply.expect("the coordinator answers").into_inner().outcomes;
            assert!(outcomes.iter().all(|outcome| outcome.registered.is_some()), "all ranks are new");
        }
    }

    fn registration(&self, rank: u32) -> v1::RegisterWorkerRequest {
        v1::RegisterWorkerRequest {
            job: JOB.into(),
            rank,
            world_size: self.world,
            host: format!("host-{}", self.number),
            ip: "10.0.0.1".into(),
            port: 29_500,
            node: node(self.number),
            session: 1 + u64::from(rank),
            store: "file:///store".into(),
            idempotency_key: format!("{:032x}", rank),
            worker_id: format!("worker-{rank}"),
            findings: Some(v1::StoreFindings { job_uuid: UUID.into(), ..Default::default() }),
            version: Some(strata_core::version::ours()),
            uid: 1000,
            ..Default::default()
        }
    }

    /// A frame every 250 ms, at a moment of its own.
    pub async fn beat(&self, time: Duration) {
        let phase = FRAME * (self.number % 250) / 250;
        let (begin, mut sequence) = (Instant::now() + phase, 0);
        let mut ticks = interval_at(begin, FRAME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while begin.elapsed() + phase < time {
            ticks.tick().await;
            sequence += 1;
            let frame = v1::NodeReport { report: Some(Report::Frame(self.frame(sequence))) };
            self.reports.send(frame).await.expect("the line is up");
        }
    }

    fn frame(&self, sequence: u64) -> v1::Frame {
        let ranks = self.ranks.clone().map(|rank| v1::Progress {
            rank,
            step: sequence,
            phase: v1::RankPhase::Training.into(),
            age_ms: 3,
            ..Default::default()
        });
        let generation = self.heard.generation.load(Ordering::Relaxed);
        let job = v1::JobFrame { job: JOB.into(), generation, ranks: ranks.collect(), ..Default::default() };
        v1::Frame { sequence, jobs: vec![job] }
    }

    /// Its first rank has died.
    pub async fn lose(&self) {
        let generation = self.heard.generation.load(Ordering::Relaxed);
        let rank = self.ranks.start;
        let caller = v1::Caller { job: JOB.into(), generation, rank, token: String::new() };
        let died = v1::RankDied {
            caller: Some(caller),
            session: 1 + u64::from(rank),
            evidence: "the bench says so".into(),
            incarnation: String::new(),
        };
        self.reports.send(v1::NodeReport { report: Some(Report::Died(died)) }).await.expect("the line is up");
    }
}

fn node(number: u32) -> String {
    format!("5b0d1c11-0000-4000-8000-{number:012x}")
}

async fn listen(mut commands: Streaming<v1::NodeCommand>, welcome: oneshot::Sender<()>, heard: Arc<Heard>) {
    let mut welcome = Some(welcome);
    // Ends with the connection.
    while let Ok(Some(told)) = commands.message().await {
        let Some(command) = told.command else { continue };
        match (&command, welcome.take()) {
            (Command::Welcome(_), Some(welcome)) => welcome.send(()).expect("attach waits for it"),
            (_, back) => welcome = back,
        }
        heard.take(&command);
    }
}
