//! What a coordinator tells each of many sidecars does not grow with their number.

mod coordinator;

use coordinator::{Cluster, Sidecar};
use futures::future::join_all;
use prost::Message;
use strata_core::proto::v1;
use strata_core::version;

const RANKS_OF_ONE: u32 = 8;
const UUID: &str = "6f0c3f4e-8a55-4f4f-9d0c-6f6a5b0d1c11";

/// What each sidecar of a job hears when its world has opened.
async fn opened(cluster: &Cluster, job: &str, sidecars: u32, version: v1::Version) -> Vec<v1::Generation> {
    let world = sidecars * RANKS_OF_ONE;
    let attached = (0..sidecars).map(async |number| {
        let node = format!("{job}-node-{number:05}");
        let sidecar = Sidecar::attach_as(cluster, &node, Vec::new(), version.clone()).await;
        sidecar.announce().await;
        sidecar
    });
    let mut attached = join_all(attached).await;
    join_all(attached.iter().zip(0..).map(async |(sidecar, number)| {
        for rank in number * RANKS_OF_ONE..(number + 1) * RANKS_OF_ONE {
            sidecar.join(cluster, job, rank, world, UUID).await;
        }
    }))
    .await;
    join_all(attached.iter_mut().map(Sidecar::opened)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sidecar_is_told_of_a_generation_does_not_grow_with_the_world() {
    let cluster = Cluster::start().await;
    let longest = |told: &[v1::Generation]| told.iter().map(Message::encoded_len).max().unwrap();
    let few = opened(&cluster, "few", 20, version::ours()).await;
    let many = opened(&cluster, "many", 250, version::ours()).await;
    assert!(
        longest(&many) <= longest(&few) + 2 * many[0].members.len() + 16,
        "ranks have more digits, no more"
    );
    for (number, told) in many.iter().enumerate() {
        let first = number as u32 * RANKS_OF_ONE;
        let ranks: Vec<u32> = told.members.iter().map(|member| member.rank).collect();
        assert_eq!(ranks, (first..first + RANKS_OF_ONE).collect::<Vec<_>>());
        let place = told.place.as_ref().unwrap();
        assert_eq!((place.number, place.nodes, told.world_size), (Some(number as u32), 250, 2000));
        assert_eq!(place.neighbours[0], format!("many-node-{:05}", (number + 1) % 250));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecar_of_before_is_told_all_members() {
    let cluster = Cluster::start().await;
    let before = v1::Version { features: vec![version::STACKS.to_owned()], ..version::ours() };
    for told in opened(&cluster, "old", 3, before).await {
        assert_eq!((told.members.len(), told.place), (24, None));
    }
}

#[tokio::test]
async fn place_among_those_that_save_is_told_to_who_asks_and_to_no_zombie() {
    let cluster = Cluster::start().await;
    opened(&cluster, "j", 3, version::ours()).await;
    let mut client = cluster.coordinator().await;
    let request = |generation: u64| v1::GetPlaceRequest {
        job: "j".into(),
        generation,
        node: "j-node-00002".into(),
        ranks: vec![3, 16, 23],
    };
    let place = client.get_place(request(1)).await.unwrap().into_inner();
    assert_eq!((place.number, place.nodes), (Some(1), 2));
    let error = strata_core::error::Error::from(client.get_place(request(2)).await.unwrap_err());
    assert_eq!(error.kind, strata_core::error::Kind::Fenced, "P6");
}

#[tokio::test]
async fn ranks_that_register_together_are_refused_one_by_one() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach_as(&cluster, "n", Vec::new(), version::ours()).await;
    sidecar.announce().await;
    let of = |rank: u32, world: u32| v1::RegisterWorkerRequest {
        node: "n".into(),
        store: "file:///store".into(),
        findings: Some(v1::StoreFindings { job_uuid: UUID.into(), ..Default::default() }),
        ..coordinator::register("j", rank, world)
    };
    let foreign = v1::RegisterWorkerRequest { node: "elsewhere".into(), ..of(2, 3) };
    let newer = v1::Version { version: "999.0.0".into(), ..version::ours() };
    let newer = v1::RegisterWorkerRequest { version: Some(newer), ..of(2, 3) };
    let registrations = vec![of(0, 3), of(1, 7), of(1, 3), foreign, newer, of(2, 3)];
    let mut client = cluster.coordinator().await;
    let request = v1::RegisterWorkersRequest { registrations };
    let outcomes = client.register_workers(request).await.unwrap().into_inner().outcomes;
    let registered: Vec<bool> = outcomes.iter().map(|outcome| outcome.registered.is_some()).collect();
    assert_eq!(registered, [true, false, true, false, false, true]);
    let opened = sidecar.opened().await;
    assert_eq!((opened.world_size, opened.members.len()), (3, 3));
}
