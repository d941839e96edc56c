//! What the coordinator makes of sidecars that answer when they are asked what their ranks do, and of those that don't.

mod coordinator;

use coordinator::{Cluster, Sidecar, register};
use strata_core::error::{Error, Kind};
use strata_core::proto::v1::{self, node_command::Command as Push, node_report::Report};
use strata_core::version;

const UUID: &str = "6f1f8a34-9bd3-4a56-8f0a-3d1f6f7e2b11";

async fn ask(cluster: &Cluster, ranks: &[u32]) -> Result<v1::GetStacksReply, Error> {
    let request = v1::GetStacksRequest { job: "j".into(), ranks: ranks.to_vec() };
    Ok(cluster.admin().await.get_stacks(request).await?.into_inner())
}

async fn asked(sidecar: &mut Sidecar) -> v1::TakeStack {
    sidecar
        .wait(|push| match push {
            Push::Stack(order) => Some(order),
            _ => None,
        })
        .await
}

async fn opened(sidecar: &mut Sidecar) {
    sidecar.wait(|push| matches!(push, Push::GenerationOpened(_)).then_some(())).await;
}

fn taken(request: u64, stack: &str) -> Report {
    let stack = v1::RankStack { stack: stack.into(), process: "sleeping".into(), ..Default::default() };
    Report::Stack(v1::StackTaken { request, stack: Some(stack) })
}

/// Rank 0 through a sidecar of this build, 1 through an older one, 2 without any.
async fn three_kinds(cluster: &Cluster) -> (Sidecar, Sidecar) {
    let mut new = Sidecar::attach_as(cluster, "new", Vec::new(), version::ours()).await;
    let plain = v1::Version { features: Vec::new(), ..version::ours() };
    let old = Sidecar::attach_as(cluster, "old", Vec::new(), plain).await;
    new.announce().await;
    old.announce().await;
    new.join(cluster, "j", 0, 3, UUID).await;
    old.join(cluster, "j", 1, 3, UUID).await;
    let direct = v1::RegisterWorkerRequest { store: "file:///store".into(), ..register("j", 2, 3) };
    cluster.coordinator().await.register_worker(direct).await.unwrap();
    opened(&mut new).await;
    (new, old)
}

#[tokio::test]
async fn each_rank_has_its_stack_or_the_reason_why_not_and_who_is_older_is_not_asked() {
    let cluster = Cluster::start().await;
    let (mut new, old) = three_kinds(&cluster).await;
    let answers = async {
        let order = asked(&mut new).await;
        assert_eq!((order.job.as_str(), order.rank), ("j", 0));
        // Another node can't speak for this one.
        old.send(taken(order.request, "forged")).await;
        // What a terminal would obey is not passed on.
        new.send(taken(order.request, "main\x1b[2J\n")).await;
    };
    let (told, ()) = tokio::join!(ask(&cluster, &[]), answers);
    let stacks = told.unwrap().stacks;
    assert_eq!(stacks.iter().map(|stack| stack.rank).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((stacks[0].stack.as_str(), stacks[0].host.as_str()), ("main\u{fffd}[2J\n", "host-0"));
    assert!(stacks[1].missing.contains("can't take one"), "{:?}", stacks[1]);
    assert!(stacks[2].missing.contains("without a sidecar"), "{:?}", stacks[2]);
}

#[tokio::test]
async fn a_sidecar_that_does_not_answer_is_given_up_and_its_late_answer_is_nobodys() {
    let cluster = Cluster::start().await;
    let (mut new, _old) = three_kinds(&cluster).await;
    let told = ask(&cluster, &[0]).await.unwrap();
    assert!(told.stacks[0].missing.contains("did not answer"), "{told:?}");
    let first = asked(&mut new).await;
    let answers = async {
        let second = asked(&mut new).await;
        new.send(taken(first.request, "late")).await;
        new.send(taken(second.request, "in time")).await;
    };
    let (told, ()) = tokio::join!(ask(&cluster, &[0, 0]), answers);
    let stacks = told.unwrap().stacks;
    assert_eq!(stacks.iter().map(|stack| stack.stack.as_str()).collect::<Vec<_>>(), ["in time"]);
    drop(new);
    let told = ask(&cluster, &[0]).await.unwrap();
    assert!(told.stacks[0].missing.contains("not attached"), "{told:?}");
}

#[tokio::test]
async fn unknown_jobs_and_ranks_are_errors_and_of_many_ranks_the_rest_is_named() {
    let cluster = Cluster::start().await;
    assert_eq!(ask(&cluster, &[]).await.unwrap_err().kind, Kind::NotFound);
    let world = 70;
    for rank in 0..world {
        assert!(rank == 0 || ask(&cluster, &[]).await.is_err_and(|error| error.kind == Kind::Conflict));
        cluster.coordinator().await.register_worker(register("j", rank, world)).await.unwrap();
    }
    let mut told = ask(&cluster, &[]).await;
    while told.as_ref().is_err_and(|error| error.kind == Kind::Conflict) {
        told = ask(&cluster, &[]).await;
    }
    let told = told.unwrap();
    assert_eq!((told.stacks.len(), told.not_asked), (64, (64..70).collect::<Vec<u32>>()));
    assert_eq!(ask(&cluster, &[3, 70]).await.unwrap_err().kind, Kind::NotFound);
}
