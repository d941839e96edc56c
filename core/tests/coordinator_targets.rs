//! Further targets as the coordinator drives them: a sidecar that is played here says what is in each.

mod coordinator;

use coordinator::{Cluster, Sidecar, caller};
use strata_core::error::{Error, Kind};
use strata_core::proto::v1::{self, node_report::Report, step_outcome};

fn target(name: &str) -> v1::Target {
    v1::Target { name: name.into(), url: format!("file:///{name}"), hold: 2, ..v1::Target::default() }
}

/// A step of the past, as a target's COMMIT tells it.
fn step(step: u64) -> v1::StepInfo {
    v1::StepInfo {
        step,
        generation: 1,
        kind: v1::SaveKind::Full.into(),
        world_size: 1,
        commit_blake3: format!("{step:064}"),
        metrics_json: "{}".into(),
        meta_json: "{}".into(),
        ..v1::StepInfo::default()
    }
}

fn page(name: &str, steps: &[u64], page: u32, more: bool) -> Report {
    Report::Target(v1::TargetReport {
        job: "j".into(),
        target: name.into(),
        steps: steps.iter().copied().map(step).collect(),
        page,
        more,
        ..v1::TargetReport::default()
    })
}

fn away(name: &str) -> Report {
    Report::Target(v1::TargetReport {
        job: "j".into(),
        target: name.into(),
        kind: Kind::Unavailable.name().into(),
        reason: "it is not mounted".into(),
        ..v1::TargetReport::default()
    })
}

/// One rank of a job whose first store has `steps`, and one further target that nobody has listed yet.
async fn joined(cluster: &Cluster, steps: &[u64]) -> (Sidecar, u64) {
    let mut sidecar = Sidecar::attach_with(cluster, "node-a", vec![target("far")]).await;
    sidecar.announce().await;
    sidecar.join(cluster, "j", 0, 1, &uuid::Uuid::new_v4().to_string()).await;
    let open = sidecar.opened().await;
    for step in steps {
        sidecar.durable("j", open.generation, 0, *step).await;
        let order = sidecar.write_commit().await;
        sidecar.committed(&order).await;
        assert_eq!(sidecar.outcome().await.state(), step_outcome::State::Committed);
    }
    (sidecar, open.generation)
}

type Answer = tokio::task::JoinHandle<Result<v1::ResolveRestoreReply, tonic::Status>>;

async fn restore(cluster: &Cluster, generation: u64, round: u64, timeout_ms: u64) -> Answer {
    let mut steps = cluster.checkpoint().await;
    let request = v1::ResolveRestoreRequest {
        caller: caller("j", generation, 0),
        round,
        timeout_ms,
        ..v1::ResolveRestoreRequest::default()
    };
    tokio::spawn(async move { Ok(steps.resolve_restore(request).await?.into_inner()) })
}

/// As long as a test waits for what is to come.
const LONG: u64 = 40_000;

#[tokio::test]
async fn a_restore_waits_for_a_target_that_may_hold_a_newer_step_than_the_first_store() {
    let cluster = Cluster::start().await;
    let (mut sidecar, generation) = joined(&cluster, &[1, 2]).await;
    let answer = restore(&cluster, generation, 1, LONG).await;
    assert_eq!(sidecar.target_order().await.copy, None, "it is to be listed");
    sidecar.send(page("far", &[1, 2, 7], 0, false)).await;
    let reply = answer.await.unwrap().unwrap();
    assert_eq!((reply.step, reply.notes.len()), (Some(7), 0));
}

#[tokio::test]
async fn p5_a_restore_goes_on_without_a_target_that_can_not_be_listed_and_says_so() {
    let cluster = Cluster::start().await;
    let (mut sidecar, generation) = joined(&cluster, &[1, 2]).await;
    let answer = restore(&cluster, generation, 1, LONG).await;
    sidecar.target_order().await;
    sidecar.send(away("far")).await;
    let reply = answer.await.unwrap().unwrap();
    assert_eq!(reply.step, Some(2));
    let [note] = &reply.notes[..] else { panic!("{:?}", reply.notes) };
    assert!(note.contains("target far") && note.contains("not mounted") && note.contains("newer"), "{note}");
    // One that neither answers nor fails has half of the caller's time.
    let cluster = Cluster::start().await;
    let (_silent, generation) = joined(&cluster, &[1, 2]).await;
    let reply = restore(&cluster, generation, 1, 400).await.await.unwrap().unwrap();
    assert_eq!((reply.step, reply.notes.len()), (Some(2), 1));
}

#[tokio::test]
async fn a_restore_right_after_a_restart_waits_until_somebody_says_which_targets_there_are() {
    let mut cluster = Cluster::start().await;
    let (sidecar, generation) = joined(&cluster, &[1, 2]).await;
    drop(sidecar);
    cluster.restart().await;
    let answer = restore(&cluster, generation, 1, LONG).await;
    let mut sidecar = Sidecar::attach_with(&cluster, "node-a", vec![target("far")]).await;
    sidecar.target_order().await;
    sidecar.send(page("far", &[7], 0, false)).await;
    assert_eq!(answer.await.unwrap().unwrap().step, Some(7));
}

#[tokio::test]
async fn a_listing_in_pages_counts_when_all_of_it_has_come() {
    let cluster = Cluster::start().await;
    let (mut sidecar, generation) = joined(&cluster, &[1]).await;
    let answer = restore(&cluster, generation, 1, LONG).await;
    sidecar.target_order().await;
    sidecar.send(page("far", &[7, 9], 0, true)).await;
    sidecar.send(page("far", &[8], 1, true)).await;
    sidecar.send(page("far", &[3], 2, false)).await;
    assert_eq!(answer.await.unwrap().unwrap().step, Some(9));
    // The first page went with an earlier line: the rest is no listing, and it is asked for again.
    let cluster = Cluster::start().await;
    let (mut sidecar, generation) = joined(&cluster, &[1]).await;
    sidecar.target_order().await;
    sidecar.send(page("far", &[3], 1, false)).await;
    sidecar.target_order().await;
    sidecar.send(page("far", &[9], 0, false)).await;
    let reply = restore(&cluster, generation, 1, LONG).await.await.unwrap().unwrap();
    assert_eq!(reply.step, Some(9));
}

#[tokio::test]
async fn a_report_of_an_earlier_removal_ends_none_of_another_attempt() {
    let cluster = Cluster::start().await;
    let (mut sidecar, generation) = joined(&cluster, &[1, 2]).await;
    let mut steps = cluster.checkpoint().await;
    let request = v1::DeleteStepRequest { job: "j".into(), step: 1, force: false, dry_run: false };
    let deleted = tokio::spawn(async move { steps.delete_step(request).await });
    let order = sidecar.remove_step().await;
    assert_eq!((order.step, order.generation, order.committed), (1, generation, true));
    let done = v1::RemovalDone {
        job: "j".into(),
        step: 1,
        generation,
        committed: true,
        freed_bytes: 77,
        ..v1::RemovalDone::default()
    };
    for late in [
        v1::RemovalDone { generation: generation + 7, freed_bytes: 1, ..done.clone() },
        v1::RemovalDone { committed: false, freed_bytes: 2, ..done.clone() },
    ] {
        sidecar.send(Report::Removal(late)).await;
    }
    sidecar.send(Report::Removal(done)).await;
    assert_eq!(deleted.await.unwrap().unwrap().into_inner().freed_bytes, 77);
}

#[tokio::test]
async fn nothing_is_known_of_a_job_without_steps_while_a_target_is_away() {
    let cluster = Cluster::start().await;
    let (mut sidecar, generation) = joined(&cluster, &[]).await;
    sidecar.target_order().await;
    sidecar.send(away("far")).await;
    let status = restore(&cluster, generation, 1, 400).await.await.unwrap().unwrap_err();
    assert_eq!(Error::from(status).kind, Kind::Unavailable);
}
