//! Who may come in, and what ranks do together, through a real sidecar and a real coordinator.

mod sidecar;

use std::time::Duration;

use sidecar::{Cluster, PATIENCE, State, Trainer, Tune};
use strata_core::client::{RestoreOptions, Uninterrupted};
use strata_core::error::Kind;
use strata_core::ids::Step;
use strata_core::proto::v1;
use strata_core::storage::StoreOptions;
use tokio_util::sync::CancellationToken;

#[test]
fn second_sidecar_on_the_socket_or_on_the_arenas_is_conflict_naming_it() {
    let cluster = Cluster::start();
    let stop = CancellationToken::new();
    let mut settings = cluster.settings();
    settings.arenas = cluster.arenas().with_extension("other");
    let error = cluster.try_sidecar(settings, &stop).err().unwrap();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains("sidecar.sock"), "{error}");
    let mut settings = cluster.settings();
    settings.socket = cluster.socket().with_extension("other");
    let error = cluster.try_sidecar(settings, &stop).err().unwrap();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains(&cluster.arenas().display().to_string()), "{error}");
    let mut settings = cluster.settings();
    settings.socket = cluster.socket().with_file_name("x".repeat(200));
    settings.arenas = cluster.arenas().with_extension("third");
    assert_eq!(cluster.try_sidecar(settings, &stop).err().unwrap().kind, Kind::Invalid);
}

#[test]
fn client_of_another_version_is_refused_with_both_versions() {
    let cluster = Cluster::start();
    let mut options = Trainer::options(&cluster, "j", 0, 1);
    options.version = Some("0.999.0".into());
    let error = Trainer::connect(options).err().unwrap();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("client 0.999.0 can't speak to sidecar"), "{error}");
    assert!(error.hint.unwrap().contains("strata wheel"));
}

#[test]
fn two_ranks_that_claim_one_number_are_conflict() {
    let cluster = Cluster::start();
    let _first = Trainer::join(&cluster, "j", 0, 2);
    let error = Trainer::connect(Trainer::options(&cluster, "j", 0, 2)).err().unwrap();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains("rank 0") && error.message.contains("here"), "{error}");
}

#[test]
fn process_that_closes_or_drops_its_session_may_join_again() {
    let cluster = Cluster::start();
    let first = Trainer::world(&cluster, "j", 1).pop().unwrap();
    first.close();
    let second = Trainer::world(&cluster, "j", 1).pop().unwrap();
    drop(second);
    sidecar::eventually("its stream has ended", || {
        Trainer::connect(Trainer::options(&cluster, "j", 0, 1)).is_ok()
    });
}

#[test]
fn ranks_that_name_different_stores_or_another_coordinator_are_conflict() {
    let cluster = Cluster::start();
    let _first = Trainer::join(&cluster, "j", 0, 2);
    let mut options = Trainer::options(&cluster, "j", 1, 2);
    options.store = Some("/tmp/strata-elsewhere".into());
    let error = Trainer::connect(options).err().unwrap();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains("strata-elsewhere") && error.message.contains("checkpoints"), "{error}");
    assert!(!std::path::Path::new("/tmp/strata-elsewhere").exists(), "nothing is claimed in the wrong place");
    let mut options = Trainer::options(&cluster, "j", 1, 2);
    options.coordinator = Some("http://127.0.0.1:1".into());
    assert_eq!(Trainer::connect(options).err().unwrap().kind, Kind::Conflict);
}

#[test]
fn no_store_at_all_is_invalid_naming_the_variable() {
    let cluster = Cluster::tuned(Tune { sidecar: |settings| settings.store = None, ..Tune::default() });
    let error = Trainer::connect(Trainer::options(&cluster, "j", 0, 1)).err().unwrap();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.hint.unwrap().contains("STRATA_STORE"));
}

#[test]
fn p5_unreachable_store_is_unavailable_at_connect_and_no_hang() {
    let cluster = Cluster::tuned(Tune {
        sidecar: |settings| {
            settings.store = Some("s3://bucket/prefix".into());
            settings.store_options = StoreOptions {
                endpoint: Some("http://127.0.0.1:1".into()),
                region: Some("us-east-1".into()),
                access_key_id: Some("a".into()),
                secret_access_key: Some("b".into()),
                allow_http: true,
                retry_budget: Duration::from_millis(300),
                ..settings.store_options.clone()
            };
        },
        ..Tune::default()
    });
    let error = Trainer::connect(Trainer::options(&cluster, "j", 0, 1)).err().unwrap();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(error.message.contains("s3://bucket/prefix"), "{error}");
}

#[test]
fn unreachable_coordinator_is_unavailable_naming_it() {
    let mut cluster = Cluster::start();
    cluster.stop_coordinator();
    let ready = cluster.sidecar.as_ref().unwrap();
    sidecar::eventually("the line is known to be down", || {
        ready.ready().iter().any(|(_, problem)| problem.is_some())
    });
    let error = Trainer::connect(Trainer::options(&cluster, "j", 0, 1)).err().unwrap();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains(&cluster.url()), "{error}");
    cluster.start_coordinator();
    Trainer::join(&cluster, "j", 0, 1).close();
}

#[test]
fn waits_that_time_out_name_who_is_missing() {
    let cluster = Cluster::start();
    let lonely = Trainer::join(&cluster, "j", 0, 2);
    let soon = Some(Duration::from_millis(100));
    let error = lonely.session.wait_world(soon, &Uninterrupted).err().unwrap();
    assert_eq!(error.kind, Kind::Timeout);
    assert!(error.message.contains("rank 1"), "{error}");
    let other = Trainer::join(&cluster, "j", 1, 2);
    let error = lonely.session.barrier("b", soon, &Uninterrupted).err().unwrap();
    assert_eq!(error.kind, Kind::Timeout);
    assert!(error.message.contains("1 (here)"), "{error}");
    std::thread::scope(|scope| {
        scope.spawn(|| lonely.session.barrier("b", Some(PATIENCE), &Uninterrupted).unwrap());
        scope.spawn(|| other.session.barrier("b", Some(PATIENCE), &Uninterrupted).unwrap());
    });
}

#[test]
fn stop_signal_on_one_rank_stops_all_at_the_same_later_step() {
    let cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    let reached = |rank: usize, step| {
        ranks[rank].session.reached_preemption(Step(step), Some(PATIENCE), &Uninterrupted).unwrap()
    };
    for step in 1..4 {
        assert!(!reached(0, step));
    }
    assert!(!reached(1, 1));
    ranks[1].session.notify_preemption().unwrap();
    let stops: Vec<u64> = std::thread::scope(|scope| {
        let run = |rank: usize, from: u64| {
            scope.spawn(move || {
                let mut step = from;
                while !reached(rank, step) {
                    step += 1;
                    std::thread::sleep(Duration::from_millis(2));
                }
                step
            })
        };
        [run(0, 4), run(1, 2)].map(|rank| rank.join().unwrap()).into()
    });
    assert_eq!(stops[0], stops[1]);
    assert!(stops[0] >= 4);
}

#[test]
fn p9_one_jobs_trainers_can_not_use_anothers_session() {
    let cluster = Cluster::start();
    let trainer = &Trainer::world(&cluster, "j", 1)[0];
    let state = State::of(0, 1, false);
    sidecar::trainer::committed(&trainer.save(1, &state).unwrap()).unwrap();
    let other = &Trainer::world(&cluster, "other", 1)[0];
    assert!(other.restore(RestoreOptions::default()).unwrap().is_none());
    assert_eq!(other.session.latest_step(None, &Uninterrupted).unwrap(), None);
}

#[test]
fn look_up_waits_no_longer_than_it_is_told_to() {
    let mut cluster = Cluster::start();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    cluster.stop_coordinator();
    let brief = Some(std::time::Duration::from_millis(1));
    let errors = [
        trainer.session.latest_step(brief, &Uninterrupted).err(),
        trainer.session.all_steps(brief, &Uninterrupted).err(),
        trainer.session.pin(Step(1), brief, &Uninterrupted).err(),
        trainer.session.delete(Step(1), false, brief, &Uninterrupted).err(),
    ];
    for error in errors {
        assert_eq!(error.unwrap().kind, Kind::Timeout, "sooner than the sidecar gives the coordinator up");
    }
}

fn shards(trainer: &Trainer, epoch: u64) -> v1::GetShardsReply {
    trainer.session.get_shards("d", epoch, Some(PATIENCE), &Uninterrupted).unwrap()
}

fn ids(reply: &v1::GetShardsReply) -> Vec<u64> {
    reply.shards.iter().map(|shard| shard.id).collect()
}

#[test]
fn node_knows_the_shards_of_its_ranks_as_the_coordinator_does_also_while_that_is_away() {
    let mut cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", 2);
    let spec = v1::DatasetSpec {
        id: "d".into(),
        path: "/d".into(),
        format: "parquet".into(),
        total_samples: 1000,
        shard_size: 10,
        shuffle: true,
        seed: 7,
        ..Default::default()
    };
    ranks[0].session.register_dataset(spec, &Uninterrupted).unwrap();
    let told = [shards(&ranks[0], 3), shards(&ranks[1], 3)];
    let mut all: Vec<u64> = told.iter().flat_map(ids).collect();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<u64>>(), "each is held once");
    for (rank, known) in told.iter().enumerate() {
        let request = v1::GetShardsRequest {
            job: "j".into(),
            dataset: "d".into(),
            rank: rank as u32,
            epoch: 3,
            world_size: 2,
            ..Default::default()
        };
        let asked = cluster.block(async {
            let mut coordinator = v1::dataset_client::DatasetClient::connect(cluster.url()).await.unwrap();
            coordinator.get_shards(request).await.unwrap().into_inner()
        });
        assert_eq!(asked, *known);
    }
    cluster.stop_coordinator();
    assert_eq!(shards(&ranks[1], 3), told[1]);
    assert_ne!(ids(&shards(&ranks[1], 4)), ids(&told[1]), "another epoch, another order");
    cluster.start_coordinator();
    ranks.into_iter().for_each(Trainer::close);
    let larger = Trainer::world(&cluster, "j", 3);
    assert_eq!(shards(&larger[0], 3).world_size, 3, "a map belongs to its generation");
}
