//! Who may write under a prefix, and which stores can't be trusted to tell.

use std::fs;
use std::sync::Arc;

use super::fixture::*;
use crate::checkpoint::tests::faults::Lying;
use crate::checkpoint::{Claimant, JobStore, Takeover};
use crate::error::Kind;
use crate::format::Owner;
use crate::ids::{ClusterId, Generation, JobUuid, NodeId};
use crate::storage::{StoreOptions, StoreUrl};

#[test]
fn another_cluster_is_refused_until_it_takes_over_and_the_job_keeps_its_uuid() {
    let job = local();
    let (ours, theirs) = (ClusterId::new(), ClusterId::new());
    let first = run(job.store.attach(ours, Takeover::No, OWN)).unwrap();
    assert_eq!(first.highest_generation, Generation(0));
    assert_eq!(run(job.store.attach(ours, Takeover::No, OWN)).unwrap().job_uuid, first.job_uuid);
    let error = run(job.store.attach(theirs, Takeover::No, OWN)).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains(&ours.to_string()), "{error}");
    assert!(error.hint.unwrap().contains("--take-over-store"));
    assert_eq!(run(job.store.attach(theirs, Takeover::Yes, OWN)).unwrap().job_uuid, first.job_uuid);
    assert_eq!(run(job.store.attach(ours, Takeover::No, OWN)).unwrap_err().kind, Kind::Conflict);
    assert_eq!(run(job.store.owner()).unwrap().unwrap().cluster, theirs);
}

/// P1: a store that is away is told from an empty one, and from another job's.
#[test]
fn a_prefix_is_confirmed_only_while_its_owner_is_there_and_the_same() {
    let job = local();
    let (ours, theirs) = (ClusterId::new(), ClusterId::new());
    let uuid = run(job.store.attach(ours, Takeover::No, OWN)).unwrap().job_uuid;
    run(job.store.confirm(Some(ours), uuid)).unwrap();
    run(job.store.must_exist()).unwrap();
    assert_eq!(run(job.store.confirm(Some(theirs), uuid)).unwrap_err().kind, Kind::Conflict);
    assert_eq!(run(job.store.confirm(Some(ours), JobUuid::new())).unwrap_err().kind, Kind::Conflict);
    let (place, away) = (job.folder.path().join(JOB), job.folder.path().join("away"));
    fs::rename(&place, &away).unwrap();
    let missing = [run(job.store.confirm(Some(ours), uuid)), run(job.store.must_exist())];
    for error in missing.map(Result::unwrap_err) {
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.hint.unwrap().contains("mounted"));
    }
    assert!(persist(&job.store, attempt(uuid, 1, 1), 1, one_node(1, 1, &[spec("a", 10)])).is_err());
    assert!(!place.exists(), "nothing is made where it was");
    fs::rename(&away, &place).unwrap();
    run(job.store.confirm(Some(ours), uuid)).unwrap();
}

/// P9
#[test]
fn who_serves_several_users_gives_each_their_own_jobs_and_root_any() {
    let job = local();
    let (cluster, other) = (ClusterId::new(), ClusterId::new());
    let served = |uid| Claimant::Served { uid };
    let attach = |cluster, takeover, claimant| run(job.store.attach(cluster, takeover, claimant));
    let uuid = attach(cluster, Takeover::No, served(1000)).unwrap().job_uuid;
    for (cluster, takeover) in [(cluster, Takeover::No), (other, Takeover::Yes)] {
        let error = attach(cluster, takeover, served(1001)).unwrap_err();
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert!(error.message.contains("uid 1000") && error.message.contains("uid 1001"), "{error}");
        assert!(error.hint.unwrap().contains("STRATA_JOB"));
    }
    assert_eq!(run(job.store.owner()).unwrap().unwrap().cluster, cluster, "nothing was taken over");
    for claimant in [served(1000), served(0), Claimant::Own { uid: 1001 }] {
        assert_eq!(attach(cluster, Takeover::No, claimant).unwrap().job_uuid, uuid);
    }
    attach(other, Takeover::Yes, served(0)).unwrap();
    assert_eq!(run(job.store.owner()).unwrap().unwrap().uid, Some(1000), "it stays its user's");
}

/// An OWNER of before users were told apart.
#[test]
fn an_owner_that_names_no_user_is_its_folders_users() {
    let job = local();
    let cluster = ClusterId::new();
    let place = job.folder.path().join(JOB);
    let mine = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&place).unwrap());
    let old = Owner { cluster, job_uuid: job.uuid, uid: None };
    fs::write(place.join("OWNER"), old.encode()).unwrap();
    run(job.store.attach(cluster, Takeover::No, Claimant::Served { uid: mine })).unwrap();
    let error = run(job.store.attach(cluster, Takeover::No, Claimant::Served { uid: mine + 7 })).unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.hint.unwrap().contains("chown"));
}

#[test]
fn nodes_that_attach_at_once_agree_on_the_job() {
    let job = local();
    let cluster = ClusterId::new();
    let uuids: Vec<_> = std::thread::scope(|scope| {
        let attach = |_| scope.spawn(|| run(job.store.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid);
        (0..8).map(attach).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0]));
}

#[test]
fn attaching_tells_the_steps_and_the_highest_generation_and_leaves_nothing_behind() {
    let job = local();
    let cluster = ClusterId::new();
    let attached = run(job.store.attach(cluster, Takeover::No, OWN)).unwrap();
    let uuid = attached.job_uuid;
    save(&job.store, uuid, 10, 1, one_node(1, 10, &[spec("a", 10)]));
    persist(&job.store, attempt(uuid, 11, 6), 1, one_node(1, 11, &[spec("a", 10)])).unwrap();
    let attached = run(job.store.attach(cluster, Takeover::No, OWN)).unwrap();
    assert_eq!(attached.highest_generation, Generation(6));
    assert_eq!(attached.steps.len(), 1);
    assert!(!job.folder.path().join(JOB).join("probe").exists());
}

#[test]
fn a_damaged_owner_is_corrupt_and_is_mended_by_a_takeover_from_a_commit() {
    let job = local();
    let cluster = ClusterId::new();
    let uuid = run(job.store.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid;
    save(&job.store, uuid, 1, 1, one_node(1, 1, &[spec("a", 10)]));
    fs::write(job.folder.path().join(JOB).join("OWNER"), "{}").unwrap();
    assert_eq!(run(job.store.attach(cluster, Takeover::No, OWN)).unwrap_err().kind, Kind::Corrupt);
    assert_eq!(run(job.store.attach(cluster, Takeover::Yes, OWN)).unwrap().job_uuid, uuid);
    assert_eq!(run(job.store.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid, uuid);
}

#[test]
fn a_store_that_overwrites_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for says_exists in [false, true] {
        let store = over(Arc::new(Lying::over(folder.path(), says_exists)));
        let error = run(store.attach(ClusterId::new(), Takeover::No, OWN)).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        assert!(error.message.contains("create-only"), "{error}");
        assert!(run(store.owner()).unwrap().is_none(), "it is refused before it is taken");
    }
}

#[test]
fn a_token_is_seen_where_the_path_is_shared_only() {
    let (here, there) = (local(), local());
    let node = NodeId::new();
    run(here.store.leave_token(node)).unwrap();
    assert!(run(open(here.folder.path()).sees_token(node)).unwrap());
    assert!(!run(there.store.sees_token(node)).unwrap());
    run(here.store.remove_token(node)).unwrap();
    assert!(!run(here.store.sees_token(node)).unwrap());
}

#[test]
fn jobs_of_a_store_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (url, options) = (StoreUrl::local(folder.path()).unwrap(), StoreOptions::default());
    for job in ["b", "a"] {
        let store = JobStore::open(&url, &options, &job.parse().unwrap()).unwrap();
        run(store.attach(ClusterId::new(), Takeover::No, OWN)).unwrap();
    }
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    fs::create_dir(folder.path().join("no-owner")).unwrap();
    let jobs = run(JobStore::jobs(&url, &options)).unwrap();
    assert_eq!(jobs.iter().map(|job| job.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let nowhere = StoreUrl::local(folder.path().join("nowhere")).unwrap();
    assert_eq!(run(JobStore::jobs(&nowhere, &options)).unwrap_err().kind, Kind::NotFound);
}
