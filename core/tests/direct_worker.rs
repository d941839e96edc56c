//! Workers that speak to the coordinator themselves, over real sockets.

mod coordinator;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coordinator::Cluster;
use strata_core::client::direct::{DatasetRegistry, DirectWorker, Line, ShardRequest, WorkerOptions};
use strata_core::client::{ClientTls, Interrupt, Uninterrupted};
use strata_core::coordinator::Timings;
use strata_core::data::{About, DatasetSpec, Dtype, Format, OnDamage, resolve};
use strata_core::error::{Error, Kind, Result};
use strata_core::ids::{Rank, WorldSize};
use strata_core::proto::v1;

const PATIENCE: Duration = Duration::from_secs(30);

fn line(url: &str) -> Arc<Line> {
    Arc::new(Line::open(url, ClientTls::default()).unwrap())
}

fn join(url: &str, rank: u32, world: u32) -> Result<DirectWorker> {
    let options = WorkerOptions {
        job: "j".parse().unwrap(),
        rank: Rank(rank),
        world_size: WorldSize(world),
        worker_id: format!("worker-{rank}"),
        ip: "10.0.0.1".into(),
        port: 5000,
        token: None,
    };
    DirectWorker::join(line(url), options, PATIENCE, &Uninterrupted)
}

/// Blocking calls belong on a thread of their own.
async fn apart<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.unwrap()
}

fn join_all(url: &str, world: u32) -> Vec<Arc<DirectWorker>> {
    (0..world).map(|rank| Arc::new(join(url, rank, world).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn barrier_holds_until_the_last_rank_and_its_name_can_be_used_again() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    apart(move || {
        let workers = join_all(&url, 4);
        for round in 0..3 {
            let last_arrived = Arc::new(AtomicBool::new(false));
            let others: Vec<_> = workers[1..]
                .iter()
                .cloned()
                .map(|worker| {
                    let last_arrived = last_arrived.clone();
                    std::thread::spawn(move || {
                        worker.barrier("epoch", None, &Uninterrupted).unwrap();
                        assert!(last_arrived.load(Ordering::SeqCst), "released before the last rank came");
                    })
                })
                .collect();
            let early = workers[0].barrier("other", Some(Duration::from_millis(100)), &Uninterrupted);
            assert_eq!(early.unwrap_err().kind, Kind::Timeout, "round {round}");
            last_arrived.store(true, Ordering::SeqCst);
            workers[0].barrier("epoch", None, &Uninterrupted).unwrap();
            for other in others {
                other.join().unwrap();
            }
        }
        for worker in workers {
            worker.leave(None, &Uninterrupted).unwrap();
            worker.leave(None, &Uninterrupted).unwrap();
            assert_eq!(worker.barrier("epoch", None, &Uninterrupted).unwrap_err().kind, Kind::Fenced);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_does_not_wait_and_the_world_names_who_is_missing() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    apart(move || {
        let worker = join(&url, 1, 3).unwrap();
        let error = worker.barrier("b", Some(Duration::from_millis(100)), &Uninterrupted).unwrap_err();
        assert_eq!(error.kind, Kind::Timeout);
        assert!(error.message.contains("0 and 2"), "{error}");
        assert_eq!(worker.generation().unwrap().0, 0);
        let twice = join(&url, 1, 3).map(|_| ()).unwrap_err();
        assert_eq!(twice.kind, Kind::Conflict);
        let others = [0, 2].map(|rank| join(&url, rank, 3).unwrap());
        assert_eq!(worker.wait_world(None, &Uninterrupted).unwrap().0, 1);
        assert_eq!(others[0].wait_world(None, &Uninterrupted).unwrap().0, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rank_fences_a_waiting_barrier_and_every_later_call_by_name() {
    let timings = Timings {
        lease: Duration::from_secs(2),
        suspect_after: Duration::from_millis(500),
        heartbeat: Duration::from_millis(100),
        ..Timings::default()
    };
    let cluster = Cluster::with(timings).await;
    let url = cluster.url();
    apart(move || {
        let mut workers = join_all(&url, 2);
        workers[0].wait_world(None, &Uninterrupted).unwrap();
        // As if its process had died: nothing beats for it any more.
        drop(workers.pop());
        let error = workers[0].barrier("b", Some(PATIENCE), &Uninterrupted).unwrap_err();
        assert_eq!(error.kind, Kind::Fenced, "{error}");
        assert!(error.message.contains("rank 1"), "{error}");
        let later = workers[0].wait_world(None, &Uninterrupted).map(|_| ());
        let again = workers[0].barrier("b", Some(PATIENCE), &Uninterrupted);
        for outcome in [later, again] {
            assert_eq!(outcome.unwrap_err().kind, Kind::Fenced, "P6");
        }
        // The numbers are free again, and the next generation is another one.
        let next = join_all(&url, 2);
        assert!(next[0].wait_world(None, &Uninterrupted).unwrap().0 > 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_and_a_waiting_barrier_outlive_a_restart_of_the_coordinator() {
    let timings = Timings { heartbeat: Duration::from_millis(100), ..Timings::default() };
    let mut cluster = Cluster::with(timings).await;
    let url = cluster.url();
    let workers = apart(move || join_all(&url, 2)).await;
    let (left, right) = (workers[0].clone(), workers[1].clone());
    let waiting = tokio::task::spawn_blocking(move || left.barrier("b", Some(PATIENCE), &Uninterrupted));
    apart({
        let right = right.clone();
        move || right.wait_world(None, &Uninterrupted).unwrap()
    })
    .await;
    cluster.restart().await;
    apart(move || right.barrier("b", Some(PATIENCE), &Uninterrupted)).await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_coordinator_is_named_with_the_cause() {
    let mut cluster = Cluster::start().await;
    let url = cluster.url();
    cluster.stop().await;
    apart(move || {
        let short = Duration::from_millis(300);
        let error = line(&url).cluster(short, &Uninterrupted).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains(&url) && error.message.contains("refused"), "{error}");
        let nonsense = Line::open("http://", ClientTls::default()).map(|_| ()).unwrap_err();
        assert_eq!(nonsense.kind, Kind::Invalid);
    })
    .await;
}

struct Stop(AtomicBool);

impl Interrupt for Stop {
    fn check(&self) -> Result<()> {
        match self.0.swap(true, Ordering::SeqCst) {
            true => Err(Error::cancelled("stopped by the test")),
            false => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_barrier_ends_and_the_same_round_is_joined_later() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    apart(move || {
        let workers = join_all(&url, 2);
        let error = workers[0].barrier("b", Some(PATIENCE), &Stop(AtomicBool::new(false))).unwrap_err();
        assert_eq!(error.kind, Kind::Cancelled);
        let other = workers[1].clone();
        let other = std::thread::spawn(move || other.barrier("b", Some(PATIENCE), &Uninterrupted));
        workers[0].barrier("b", Some(PATIENCE), &Uninterrupted).unwrap();
        other.join().unwrap().unwrap();
    })
    .await;
}

fn imagenet(path: &str) -> DatasetSpec {
    let format = Format::new("parquet", About::default()).unwrap();
    let bare = DatasetSpec::new("imagenet", path, format, 10_000);
    resolve(DatasetSpec { total_samples: 1_281_167, shuffle: true, ..bare }, OnDamage::Raise).unwrap().0
}

fn wanted(rank: u32, epoch: u64, world: Option<u32>) -> ShardRequest {
    ShardRequest { rank: Rank(rank), epoch, world_size: world.map(WorldSize), generation: None }
}

fn ranges(shards: &[v1::Shard]) -> Vec<(u64, u64)> {
    shards.iter().map(|shard| (shard.start, shard.stop)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn p8_shards_of_an_epoch_are_disjoint_complete_and_the_same_when_asked_again() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    apart(move || {
        let registry = DatasetRegistry::new(line(&url), "j".parse().unwrap(), None);
        let register = |path: &str| registry.register(imagenet(path), PATIENCE, &Uninterrupted);
        let shards = |wanted| registry.shards("imagenet", wanted, PATIENCE, &Uninterrupted);
        register("/data/imagenet").unwrap();
        register("/data/imagenet").unwrap();
        assert_eq!(register("/data/elsewhere").unwrap_err().kind, Kind::Conflict);
        let epoch = |epoch| -> Vec<Vec<(u64, u64)>> {
            let held = (0..8).map(|rank| shards(wanted(rank, epoch, Some(8))).unwrap());
            held.map(|reply| ranges(&reply.shards)).collect()
        };
        let first = epoch(0);
        assert_eq!(first, epoch(0));
        assert_ne!(first, epoch(1), "another epoch comes in another order");
        assert!(first.iter().all(|held| (16..=17).contains(&held.len())), "129 shards over 8 ranks");
        let mut all: Vec<(u64, u64)> = first.concat();
        all.sort_unstable();
        assert_eq!((all[0].0, all.last().unwrap().1, all.len()), (0, 1_281_167, 129));
        assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn world_of_the_shards_is_the_open_generation_s_or_said_to_be_unknown() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    apart(move || {
        let registry = DatasetRegistry::new(line(&url), "j".parse().unwrap(), None);
        registry.register(imagenet("/data/imagenet"), PATIENCE, &Uninterrupted).unwrap();
        let ask = || registry.shards("imagenet", wanted(0, 0, None), PATIENCE, &Uninterrupted);
        let error = ask().unwrap_err();
        assert!(error.kind == Kind::Invalid && error.message.contains("nobody has joined"), "{error}");
        let workers = join_all(&url, 3);
        assert_eq!(ask().unwrap().world_size, 3);
        let generation = workers[0].wait_world(None, &Uninterrupted).unwrap();
        for worker in &workers {
            worker.leave(None, &Uninterrupted).unwrap();
        }
        let zombie = ShardRequest { generation: Some(generation), ..wanted(0, 0, Some(3)) };
        let error = registry.shards("imagenet", zombie, PATIENCE, &Uninterrupted).unwrap_err();
        assert_eq!(error.kind, Kind::Fenced, "P6");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rank_that_can_not_read_the_files_registers_the_same_dataset() {
    let cluster = Cluster::start().await;
    let url = cluster.url();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.bin"), [0; 64]).unwrap();
    apart(move || {
        let registry = DatasetRegistry::new(line(&url), "j".parse().unwrap(), None);
        let register = |spec| registry.register(spec, PATIENCE, &Uninterrupted);
        let tokens = DatasetSpec {
            id: "corpus".into(),
            path: folder.path().to_owned(),
            format: Format::Tokens { dtype: Dtype::Uint8, sample_len: 8 },
            shard_size: 3,
            ..imagenet("x")
        };
        let (scanned, _) = resolve(DatasetSpec { total_samples: 8, ..tokens }, OnDamage::Raise).unwrap();
        assert_eq!(scanned.files.len(), 1);
        register(scanned.clone()).unwrap();
        let unread = DatasetSpec { files: Vec::new(), ..scanned.clone() };
        assert_eq!(register(unread.clone()).unwrap().files.len(), 1);
        let other = DatasetSpec { shard_size: 4, ..unread };
        assert_eq!(register(other).unwrap_err().kind, Kind::Conflict);
        let shards = registry.shards("corpus", wanted(0, 0, Some(1)), PATIENCE, &Uninterrupted).unwrap();
        let rows: u64 =
            shards.shards.iter().flat_map(|shard| &shard.files).map(|f| f.row_stop - f.row_start).sum();
        assert_eq!(rows, 8);
    })
    .await;
}
