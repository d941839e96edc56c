//! What an operator's commands ask, over real sockets.

mod coordinator;

use std::path::PathBuf;
use std::time::Duration;

use coordinator::{Cluster, Sidecar};
use strata_core::client::{ClientTls, Operator, Place, Uninterrupted};
use strata_core::error::{Kind, Result};
use strata_core::ids::{JobName, Step};
use strata_core::proto::v1::{self, node_report::Report};

async fn ask<T: Send + 'static>(
    places: Vec<Place>,
    call: impl FnOnce(Operator) -> Result<T> + Send + 'static,
) -> Result<T> {
    let asked = move || {
        let patience = Duration::from_secs(20);
        call(Operator::connect(&places, &ClientTls::default(), patience, &Uninterrupted)?)
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

fn nothing_there() -> Vec<Place> {
    vec![
        Place::Coordinator("http://127.0.0.1:1".into()),
        Place::Socket(PathBuf::from("/nowhere/sidecar.sock")),
    ]
}

#[tokio::test]
async fn nothing_that_answers_is_unavailable_naming_every_place_and_why() {
    let error = ask(nothing_there(), |_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    for said in ["127.0.0.1:1: ", "refused", "/nowhere/sidecar.sock: No such file"] {
        assert!(error.message.contains(said), "{error}");
    }
    assert!(error.hint.is_some());
}

#[tokio::test]
async fn first_place_that_answers_is_asked() {
    let cluster = Cluster::start().await;
    let mut places = nothing_there();
    places.push(Place::Coordinator(cluster.url()));
    let (place, status) =
        ask(places, |operator| Ok((operator.place().to_string(), operator.status(None, &Uninterrupted)?)))
            .await
            .unwrap();
    assert_eq!((place, status.role.as_str()), (cluster.url(), "coordinator"));
}

#[tokio::test]
async fn dry_run_says_what_a_removal_would_do_and_removes_nothing() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    sidecar.join(&cluster, "j", 0, 1, &uuid::Uuid::new_v4().to_string()).await;
    let open = sidecar.opened().await;
    for step in [10, 20] {
        sidecar.sealed("j", open.generation, 0, step).await;
        sidecar.durable("j", open.generation, 0, step).await;
        let order = sidecar.write_commit().await;
        sidecar.committed(&order).await;
        sidecar.outcome().await;
    }
    let (stored, refused, left) = ask(vec![Place::Coordinator(cluster.url())], |operator| {
        let job: JobName = "j".parse()?;
        let stored = operator.delete(&job, Step(10), false, true, &Uninterrupted)?;
        let refused = operator.delete(&job, Step(20), false, true, &Uninterrupted).unwrap_err();
        operator.delete(&job, Step(20), true, true, &Uninterrupted)?;
        let left: Vec<u64> = operator.steps(&job, &Uninterrupted)?.iter().map(|info| info.step).collect();
        Ok((stored, refused, left))
    })
    .await
    .unwrap();
    assert_eq!((stored, refused.kind, left), (1000, Kind::Conflict, vec![10, 20]));
}

#[tokio::test]
async fn removal_is_done_by_any_sidecar_when_none_has_a_rank_of_the_job() {
    let mut cluster = Cluster::start().await;
    let uuid = uuid::Uuid::new_v4().to_string();
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    sidecar.join(&cluster, "j", 0, 1, &uuid).await;
    let open = sidecar.opened().await;
    for step in [10, 20] {
        sidecar.sealed("j", open.generation, 0, step).await;
        sidecar.durable("j", open.generation, 0, step).await;
        let order = sidecar.write_commit().await;
        sidecar.committed(&order).await;
        sidecar.outcome().await;
    }
    drop(sidecar);
    cluster.restart().await;
    let mut other = Sidecar::attach(&cluster, "node-b").await;
    other.announce().await;
    let url = cluster.url();
    let removal = tokio::spawn(ask(vec![Place::Coordinator(url)], |operator| {
        operator.delete(&"j".parse()?, Step(10), false, false, &Uninterrupted)
    }));
    let order = other.remove_step().await;
    assert_eq!((order.step, order.store.as_str(), order.job_uuid), (10, "file:///store", uuid));
    let done = v1::RemovalDone {
        job: "j".into(),
        step: 10,
        generation: order.generation,
        committed: true,
        freed_bytes: 7,
        ..Default::default()
    };
    other.send(Report::Removal(done)).await;
    assert_eq!(removal.await.unwrap().unwrap(), 7);
}
