//! The coordinator over real sockets: every service, restarts on the same home, fencing, conflicts.

mod coordinator;

use std::time::Duration;

use coordinator::{Cluster, Sidecar, caller, register};
use strata_core::coordinator::Timings;
use strata_core::error::{Error, Kind};
use strata_core::proto::v1::{self, node_command::Command as Push, node_report::Report, step_outcome};

#[tokio::test]
async fn number_of_a_silent_rank_is_refused_until_its_lease_runs_out_and_the_refusal_says_so() {
    let timings = Timings {
        lease: Duration::from_secs(4),
        suspect_after: Duration::from_millis(200),
        ..Timings::default()
    };
    let cluster = Cluster::with(timings).await;
    let mut client = cluster.coordinator().await;
    client.register_worker(register("j", 0, 1)).await.unwrap();
    let again = v1::RegisterWorkerRequest { idempotency_key: "another".into(), ..register("j", 0, 1) };
    let error = Error::from(client.register_worker(again.clone()).await.unwrap_err());
    let after = error.retry_after.expect("the holder has not been heard of since it registered");
    assert_eq!(error.kind, Kind::Conflict);
    assert!(after <= Duration::from_secs(4), "{after:?}");
    loop {
        match client.register_worker(again.clone()).await.map_err(Error::from) {
            Ok(reply) => return assert_eq!(reply.into_inner().joining, 2),
            Err(error) => assert!(error.retry_after.is_some(), "{error}"),
        }
    }
}

#[tokio::test]
async fn workers_join_beat_meet_and_leave() {
    let cluster = Cluster::start().await;
    let mut client = cluster.coordinator().await;
    let a = client.register_worker(register("j", 0, 2)).await.unwrap().into_inner();
    let repeated = client.register_worker(register("j", 0, 2)).await.unwrap().into_inner();
    assert_eq!(a.incarnation, repeated.incarnation, "a retry with the same key is the same registration");
    let info =
        client.get_recovery_info(v1::GetRecoveryInfoRequest { job: "j".into() }).await.unwrap().into_inner();
    assert_eq!((info.missing_ranks, info.current), (vec![1], None));
    let wait = v1::WaitGenerationRequest {
        job: "j".into(),
        rank: 0,
        incarnation: a.incarnation.clone(),
        timeout_ms: 100,
        place: false,
    };
    let error = Error::from(client.wait_generation(wait.clone()).await.unwrap_err());
    assert_eq!(error.kind, Kind::Timeout);
    assert!(error.message.contains("rank 1"), "{error}");
    let b = client.register_worker(register("j", 1, 2)).await.unwrap().into_inner();
    let open = client
        .wait_generation(v1::WaitGenerationRequest { timeout_ms: 0, ..wait })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((open.generation, open.members.len()), (a.joining, 2));

    let beat = v1::HeartbeatRequest {
        caller: caller("j", 1, 0),
        incarnation: a.incarnation.clone(),
        ..Default::default()
    };
    let reply = client.heartbeat(beat.clone()).await.unwrap().into_inner();
    assert_eq!(reply.generation, 1);
    let barrier = |rank| v1::BarrierRequest {
        caller: caller("j", 1, rank),
        name: "b".into(),
        round: 0,
        timeout_ms: 300,
    };
    let error = Error::from(client.barrier(barrier(0)).await.unwrap_err());
    assert_eq!(error.kind, Kind::Timeout);
    assert!(error.message.contains("1 (host-1)"), "{error}");
    let mut other = client.clone();
    let (left, right) = tokio::join!(client.barrier(barrier(0)), other.barrier(barrier(1)));
    assert_eq!((left.unwrap().into_inner().generation, right.unwrap().into_inner().round), (1, 0));

    for (rank, who) in [(0, &a.incarnation), (1, &b.incarnation)] {
        let leave = v1::RemoveWorkerRequest { caller: caller("j", 1, rank), incarnation: who.clone() };
        client.remove_worker(leave.clone()).await.unwrap();
        client.remove_worker(leave).await.unwrap();
    }
    assert_eq!(Error::from(client.heartbeat(beat).await.unwrap_err()).kind, Kind::Fenced, "P6");
    assert_eq!(Error::from(client.barrier(barrier(0)).await.unwrap_err()).kind, Kind::Fenced, "P6");
}

#[tokio::test]
async fn bad_registrations_are_named() {
    let cluster = Cluster::start().await;
    let mut client = cluster.coordinator().await;
    let mut refused = async |request| Error::from(client.register_worker(request).await.unwrap_err());
    assert_eq!(refused(register("j", 2, 2)).await.kind, Kind::Invalid);
    let version = Some(v1::Version { version: "9.1.0".into(), ..Default::default() });
    let error = refused(v1::RegisterWorkerRequest { version, ..register("j", 0, 2) }).await;
    assert!(error.message.contains("9.1.0"), "{error}");
    let mut client = cluster.coordinator().await;
    client
        .register_worker(v1::RegisterWorkerRequest { token: "t".into(), ..register("j", 0, 2) })
        .await
        .unwrap();
    let mut refused = async |request| Error::from(client.register_worker(request).await.unwrap_err());
    assert_eq!(refused(register("j", 1, 2)).await.kind, Kind::Denied);
    let with_token =
        |rank, world| v1::RegisterWorkerRequest { token: "t".into(), ..register("j", rank, world) };
    assert_eq!(refused(with_token(1, 3)).await.kind, Kind::Conflict);
    let twice = v1::RegisterWorkerRequest { idempotency_key: "other".into(), ..with_token(0, 2) };
    let error = refused(twice).await;
    assert!(error.kind == Kind::Conflict && error.message.contains("host-0"), "{error}");
}

#[tokio::test]
async fn p7_acknowledged_commits_and_pins_survive_a_restart() {
    let mut cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    let uuid = uuid::Uuid::new_v4().to_string();
    sidecar.join(&cluster, "j", 0, 1, &uuid).await;
    let open = sidecar.opened().await;
    assert_eq!(open.job_uuid, uuid);
    sidecar.durable("j", open.generation, 0, 10).await;
    let order = sidecar.write_commit().await;
    assert_eq!(order.path, "steps/00000000000000000010/COMMIT");

    // Killed between intent and outcome: the intent is driven again, with the same bytes.
    cluster.restart().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.durable("j", open.generation, 0, 10).await;
    let again = sidecar.write_commit().await;
    assert_eq!(again.content, order.content);
    sidecar.committed(&again).await;
    let outcome = sidecar.outcome().await;
    assert_eq!((outcome.state(), outcome.step), (step_outcome::State::Committed, 10));
    let mut steps = cluster.checkpoint().await;
    steps
        .pin_step(v1::PinStepRequest { job: "j".into(), step: 10, pinned: true, holder: String::new() })
        .await
        .unwrap();

    cluster.restart().await;
    let mut steps = cluster.checkpoint().await;
    let info = steps.get_step(v1::GetStepRequest { job: "j".into(), step: 10 }).await.unwrap().into_inner();
    assert!(info.pinned && info.commit_blake3 == blake3::hash(&order.content).to_hex().to_string());
    // A repeated report is answered with the step's outcome; the number is taken for good.
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.durable("j", open.generation, 0, 10).await;
    assert_eq!(sidecar.outcome().await.state(), step_outcome::State::Committed);
    let delete = v1::DeleteStepRequest { job: "j".into(), step: 10, force: false, dry_run: false };
    let error = Error::from(steps.delete_step(delete.clone()).await.unwrap_err());
    assert!(error.kind == Kind::Conflict && error.message.contains("pinned"), "{error}");
    // A person's force is another matter.
    let forced = steps.delete_step(v1::DeleteStepRequest { force: true, dry_run: true, ..delete });
    assert_eq!(forced.await.unwrap().into_inner().freed_bytes, 1000);
}

#[tokio::test]
async fn proof_of_death_ends_the_generation_and_pending_steps_are_adopted_or_abandoned() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    let uuid = uuid::Uuid::new_v4().to_string();
    let first = sidecar.join(&cluster, "j", 0, 2, &uuid).await;
    sidecar.join(&cluster, "j", 1, 2, &uuid).await;
    let open = sidecar.opened().await;
    for rank in [0, 1] {
        sidecar.sealed("j", open.generation, rank, 10).await;
    }
    sidecar.sealed("j", open.generation, 0, 20).await;
    let died = v1::RankDied {
        caller: caller("j", open.generation, 0),
        evidence: "pidfd: exited".into(),
        incarnation: first.incarnation,
        ..Default::default()
    };
    sidecar.send(Report::Died(died)).await;
    let ended = sidecar
        .wait(|push| match push {
            Push::GenerationEnded(ended) => Some(ended),
            _ => None,
        })
        .await;
    assert_eq!(ended.lost.iter().map(|lost| lost.rank).collect::<Vec<_>>(), [0]);

    sidecar.join(&cluster, "j", 0, 2, &uuid).await;
    sidecar.join(&cluster, "j", 1, 2, &uuid).await;
    let outcome = sidecar.outcome().await;
    assert_eq!((outcome.state(), outcome.step), (step_outcome::State::Adopted, 10));
    let outcome = sidecar.outcome().await;
    assert_eq!((outcome.state(), outcome.step), (step_outcome::State::Abandoned, 20));
    let next = sidecar.opened().await;
    assert!(next.generation > open.generation);

    let mut steps = cluster.checkpoint().await;
    let ask = |source: v1::RestoreSource, round| v1::ResolveRestoreRequest {
        caller: caller("j", next.generation, 0),
        round,
        source: source.into(),
        timeout_ms: 400,
        ..Default::default()
    };
    let staged = steps.resolve_restore(ask(v1::RestoreSource::Staged, 0)).await.unwrap().into_inner();
    assert_eq!((staged.step, staged.committed), (Some(10), false));
    // The abandoned number is saved again and commits.
    for rank in [0, 1] {
        sidecar.durable("j", next.generation, rank, 20).await;
    }
    let order = sidecar.write_commit().await;
    assert_eq!((order.step, order.generation), (20, next.generation));
    sidecar.committed(&order).await;
    assert_eq!(sidecar.outcome().await.state(), step_outcome::State::Committed);
    let newest = steps.resolve_restore(ask(v1::RestoreSource::Committed, 1)).await.unwrap().into_inner();
    assert_eq!((newest.step, newest.committed), (Some(20), true));
}

#[tokio::test]
async fn data_positions_that_differ_abandon_the_step() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    let uuid = uuid::Uuid::new_v4().to_string();
    for rank in [0, 1] {
        sidecar.join(&cluster, "j", rank, 2, &uuid).await;
    }
    let open = sidecar.opened().await;
    for rank in [0, 1] {
        let mut report = coordinator::durable("j", open.generation, rank, 5);
        let position = v1::DataPosition { dataset: "d".into(), step: rank.into(), ..Default::default() };
        report.begun.as_mut().unwrap().data = vec![position];
        sidecar.send(Report::Durable(report)).await;
    }
    let outcome = sidecar.outcome().await;
    assert_eq!((outcome.state(), outcome.kind.as_str()), (step_outcome::State::Abandoned, "Invalid"));
    assert!(outcome.reason.contains("rank 1"), "{}", outcome.reason);
}

#[tokio::test]
async fn step_that_a_rank_has_not_saved_when_it_leaves_is_abandoned_at_once() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    let uuid = uuid::Uuid::new_v4().to_string();
    sidecar.join(&cluster, "j", 0, 2, &uuid).await;
    sidecar.join(&cluster, "j", 1, 2, &uuid).await;
    let generation = sidecar.opened().await.generation;
    sidecar.sealed("j", generation, 1, 10).await;
    for step in [10, 20] {
        sidecar.durable("j", generation, 0, step).await;
    }
    sidecar.send(Report::Left(v1::RankLeft { caller: caller("j", generation, 1) })).await;
    let outcome = sidecar.outcome().await;
    assert_eq!((outcome.state(), outcome.step), (step_outcome::State::Abandoned, 20));
    assert!(outcome.reason.contains("rank 1 has left"), "{}", outcome.reason);
    // So is one that is begun afterwards; what the rank had sealed before is still committed.
    sidecar.durable("j", generation, 0, 30).await;
    let outcome = sidecar.outcome().await;
    assert_eq!((outcome.state(), outcome.step), (step_outcome::State::Abandoned, 30));
    sidecar.durable("j", generation, 1, 10).await;
    let order = sidecar.write_commit().await;
    assert_eq!(order.step, 10);
    sidecar.committed(&order).await;
    let of_ten = |push| match push {
        Push::Step(outcome) if outcome.step == 10 => Some(outcome),
        _ => None,
    };
    assert_eq!(sidecar.wait(of_ten).await.state(), step_outcome::State::Committed);
}

/// Commits these steps of job "j", as the one rank of a world of one.
async fn commit(sidecar: &mut Sidecar, generation: u64, steps: &[u64]) {
    for step in steps {
        sidecar.durable("j", generation, 0, *step).await;
        let order = sidecar.write_commit().await;
        sidecar.committed(&order).await;
        let of_it = |push| match push {
            Push::Step(outcome) if outcome.step == *step => Some(outcome),
            _ => None,
        };
        assert_eq!(sidecar.wait(of_it).await.state(), step_outcome::State::Committed);
    }
}

#[tokio::test]
async fn removal_that_fails_does_not_hold_up_the_one_that_would_mend_it() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    sidecar.join(&cluster, "j", 0, 1, &uuid::Uuid::new_v4().to_string()).await;
    let open = sidecar.opened().await;
    commit(&mut sidecar, open.generation, &[10, 20, 30]).await;
    for step in [10, 20] {
        let mut steps = cluster.checkpoint().await;
        let delete = v1::DeleteStepRequest { job: "j".into(), step, force: false, dry_run: false };
        tokio::spawn(async move { steps.delete_step(delete).await });
        if step == 10 {
            assert_eq!(sidecar.remove_step().await.step, 10);
        }
    }
    // Step 20's COMMIT is damaged: nobody can say what it needs, so nothing goes before it does.
    let done = |step| v1::RemovalDone {
        job: "j".into(),
        step,
        generation: open.generation,
        committed: true,
        ..Default::default()
    };
    let mut failed = done(10);
    (failed.kind, failed.reason) = ("corrupt".into(), "step 20 can't be read".into());
    sidecar.send(Report::Removal(failed)).await;
    assert_eq!(sidecar.remove_step().await.step, 20);
    sidecar.send(Report::Removal(done(20))).await;
    assert_eq!(sidecar.remove_step().await.step, 10);
}

/// Its objects are no use to anybody: a generation of weeks must not keep them on the disk.
#[tokio::test]
async fn what_was_given_up_goes_when_a_later_step_is_committed_and_once_more_with_its_generation() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    let joined = sidecar.join(&cluster, "j", 0, 1, &uuid::Uuid::new_v4().to_string()).await;
    let open = sidecar.opened().await;
    let failed = v1::SaveFailed {
        caller: caller("j", open.generation, 0),
        step: 20,
        kind: "Overloaded".into(),
        reason: "no slot is free".into(),
        skipped: true,
    };
    sidecar.send(Report::Failed(failed)).await;
    assert_eq!(sidecar.outcome().await.state(), step_outcome::State::Abandoned);
    // An earlier step says nothing of whoever may be writing it.
    commit(&mut sidecar, open.generation, &[10, 30]).await;
    let done = v1::RemovalDone {
        job: "j".into(),
        step: 20,
        generation: open.generation,
        committed: false,
        ..Default::default()
    };
    for ended in [false, true] {
        if ended {
            let died = v1::RankDied {
                caller: caller("j", open.generation, 0),
                evidence: "pidfd: exited".into(),
                incarnation: joined.incarnation.clone(),
                ..Default::default()
            };
            sidecar.send(Report::Died(died)).await;
        }
        let order = sidecar.remove_step().await;
        assert_eq!((order.step, order.generation, order.committed), (20, open.generation, false));
        assert_eq!(order.remaining, [10, 30]);
        sidecar.send(Report::Removal(done.clone())).await;
    }
}

#[tokio::test]
async fn p1_job_that_goes_on_in_another_store_commits_nothing_there_that_lies_in_the_old_one() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    let uuid = uuid::Uuid::new_v4().to_string();
    let joined =
        [sidecar.join(&cluster, "j", 0, 2, &uuid).await, sidecar.join(&cluster, "j", 1, 2, &uuid).await];
    let open = sidecar.opened().await;
    sidecar.durable("j", open.generation, 0, 10).await;
    sidecar.sealed("j", open.generation, 1, 10).await;
    let mut coordinator = cluster.coordinator().await;
    for (rank, reply) in joined.into_iter().enumerate() {
        let request = v1::RemoveWorkerRequest {
            caller: caller("j", open.generation, rank as u32),
            incarnation: reply.incarnation,
        };
        coordinator.remove_worker(request).await.unwrap();
    }
    // All of it is in memory or in the old store: without the change it would be adopted.
    let other = uuid::Uuid::new_v4().to_string();
    for rank in [0, 1] {
        let request = v1::RegisterWorkerRequest {
            node: "node-a".into(),
            store: "file:///other".into(),
            findings: Some(v1::StoreFindings { job_uuid: other.clone(), ..Default::default() }),
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            ..register("j", rank, 2)
        };
        coordinator.register_worker(request).await.unwrap();
    }
    let outcome = sidecar.outcome().await;
    assert_eq!((outcome.state(), outcome.step), (step_outcome::State::Abandoned, 10));
    assert!(outcome.reason.contains("another store"), "{}", outcome.reason);
    // The old store took the rest meanwhile: too late.
    sidecar.durable("j", open.generation, 1, 10).await;
    assert_eq!(sidecar.outcome().await.state(), step_outcome::State::Abandoned);
}

#[tokio::test]
async fn rank_that_asks_for_another_step_in_a_round_is_not_handed_what_the_others_were() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    sidecar.join(&cluster, "j", 0, 1, &uuid::Uuid::new_v4().to_string()).await;
    let open = sidecar.opened().await;
    commit(&mut sidecar, open.generation, &[10, 20]).await;
    let mut steps = cluster.checkpoint().await;
    for (asked, damaged, given) in [(None, 0, 20), (Some(10), 0, 10), (None, 0, 20), (Some(20), 20, 10)] {
        let request = v1::ResolveRestoreRequest {
            caller: caller("j", open.generation, 0),
            round: 1,
            step: asked,
            damaged: Some(damaged).into_iter().filter(|step| *step > 0).collect(),
            timeout_ms: 400,
            ..Default::default()
        };
        let reply = steps.resolve_restore(request).await.unwrap().into_inner();
        assert_eq!(reply.step, Some(given), "{asked:?}");
    }
}

#[tokio::test]
async fn p1_commit_that_is_written_again_after_its_step_was_removed_is_removed_again() {
    let cluster = Cluster::start().await;
    let mut sidecar = Sidecar::attach(&cluster, "node-a").await;
    sidecar.announce().await;
    sidecar.join(&cluster, "j", 0, 1, &uuid::Uuid::new_v4().to_string()).await;
    let open = sidecar.opened().await;
    sidecar.durable("j", open.generation, 0, 10).await;
    let order = sidecar.write_commit().await;
    sidecar.committed(&order).await;
    assert_eq!(sidecar.outcome().await.state(), step_outcome::State::Committed);
    commit(&mut sidecar, open.generation, &[20]).await;
    let mut steps = cluster.checkpoint().await;
    let delete = v1::DeleteStepRequest { job: "j".into(), step: 10, force: false, dry_run: false };
    let deleted = tokio::spawn(async move { steps.delete_step(delete).await });
    assert_eq!(sidecar.remove_step().await.step, 10);
    let done = v1::RemovalDone {
        job: "j".into(),
        step: 10,
        generation: open.generation,
        committed: true,
        ..Default::default()
    };
    sidecar.send(Report::Removal(done)).await;
    deleted.await.unwrap().unwrap();

    // The order went out twice, and the first write of it hung until now.
    sidecar.committed(&order).await;
    let again = sidecar.remove_step().await;
    assert_eq!((again.step, again.generation, again.committed), (10, open.generation, true));
}
