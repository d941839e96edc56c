//! A step copied to another place: whole, the same bytes, COMMIT last, whatever fails on the way.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::fixture::*;
use crate::checkpoint::{Copied, JobStore, Takeover};
use crate::error::{Error, Kind, Result};
use crate::format::{manifest, paths};
use crate::ids::{ClusterId, Step};
use crate::storage::{Created, Listed, Reader, Store, StoreOptions, StoreUrl, Writer, open as open_store};

fn state(step: u64) -> Vec<Spec> {
    vec![spec("frozen", 6 << 20), spec("trained", 1 << 20).version(step), spec("small", 10).version(step)]
}

/// A FULL step 1, then INCREMENTAL 2 and 3, each on the one before.
fn chain(job: &LocalJob) {
    let mut before = None;
    for step in 1..4 {
        let mut now = slot(0, 1, step, &state(step), true);
        now.base = before.as_ref().map(base_of);
        save(&job.store, job.uuid, step, 1, vec![vec![now]]);
        before = Some(slot(0, 1, step, &state(step), true));
    }
}

fn copy(from: &JobStore, to: &JobStore, step: u64) -> Result<Copied> {
    let meant = run(from.commit(Step(step))).unwrap().blake3;
    run(to.copy_from(from, Step(step), &meant, |_| ()))
}

fn contents(root: &Path) -> Vec<(String, Vec<u8>)> {
    let base = root.join(JOB);
    let name = |path: &Path| path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
    files(&base).into_iter().map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_copied_step_is_whole_without_its_bases_and_has_the_same_bytes() {
    let (first, second) = (local(), local());
    chain(&first);
    assert!(
        copy(&first.store, &second.store, 3).unwrap().bytes > 7 << 20,
        "with the packs that it refers to"
    );
    drop(fs::remove_dir_all(first.folder.path().join(JOB).join("steps")));
    check(&second.store, 3, 0, 1, 0, &state(3));
    verify(&second.store, 3).unwrap();
    assert_eq!(
        run(second.store.commit(Step(1))).unwrap_err().kind,
        Kind::NotFound,
        "a base is no step there"
    );
    let there = contents(first.folder.path());
    for (path, bytes) in contents(second.folder.path()).iter().filter(|(path, _)| path.starts_with("data/")) {
        assert!(there.iter().any(|(name, found)| name == path && found == bytes), "{path}");
    }
}

#[test]
fn several_nodes_and_ranks_are_copied_alike_and_a_second_time_nothing_is() {
    let (first, second) = (local(), local());
    let nodes = vec![
        vec![slot(0, 3, 7, &mixed(1), true), slot(1, 3, 7, &mixed(1), false)],
        vec![slot(2, 3, 7, &mixed(1), true)],
    ];
    save(&first.store, first.uuid, 7, 3, nodes);
    assert!(copy(&first.store, &second.store, 7).unwrap().bytes > 0);
    (0..3).for_each(|rank| check(&second.store, 7, rank, 3, rank, &mixed(1)));
    assert_eq!(contents(first.folder.path()), contents(second.folder.path()));
    assert_eq!(copy(&first.store, &second.store, 7).unwrap().bytes, 0);
}

#[test]
fn a_copy_that_was_cut_short_goes_on_and_replaces_what_was_torn() {
    let (first, second) = (local(), local());
    chain(&first);
    for step in 1..4 {
        copy(&first.store, &second.store, step).unwrap();
    }
    let whole = contents(second.folder.path());
    // As if the copier had died at any moment: without COMMIT, without some objects, with one cut in half.
    for (number, (path, bytes)) in whole.iter().filter(|(path, _)| path.starts_with("data/")).enumerate() {
        let base = second.folder.path().join(JOB);
        for step in 1..4 {
            drop(fs::remove_file(base.join(paths::commit(Step(step)))));
        }
        match number % 2 {
            0 => fs::remove_file(base.join(path)).unwrap(),
            _ => fs::write(base.join(path), &bytes[..bytes.len() / 2]).unwrap(),
        }
        for step in 1..4 {
            copy(&first.store, &second.store, step).unwrap();
        }
        assert!(contents(second.folder.path()) == whole, "{path}");
    }
}

#[test]
fn p1_a_step_whose_commit_is_there_already_gets_the_objects_that_are_not() {
    let (first, second) = (local(), local());
    chain(&first);
    copy(&first.store, &second.store, 3).unwrap();
    let whole = contents(second.folder.path());
    for (path, bytes) in whole.iter().filter(|(path, _)| path.starts_with("data/")) {
        let object = second.folder.path().join(JOB).join(path);
        for torn in [None, Some(&bytes[..bytes.len() / 2])] {
            match torn {
                None => fs::remove_file(&object).unwrap(),
                Some(torn) => fs::write(&object, torn).unwrap(),
            }
            copy(&first.store, &second.store, 3).unwrap();
            assert!(contents(second.folder.path()) == whole, "{path}");
        }
    }
}

#[track_caller]
fn refused(outcome: Result<Copied>, kind: Kind) -> Error {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    error
}

#[test]
fn p2_a_damaged_object_is_never_copied() {
    let first = local();
    chain(&first);
    let commit = run(first.store.commit(Step(3))).unwrap();
    let base = first.folder.path().join(JOB);
    let named = &commit.record.ranks[0].path;
    let packs = manifest::decode(&fs::read(base.join(named)).unwrap(), "m").unwrap().packs;
    for path in packs.iter().map(|pack| &pack.path).chain([named]) {
        // What is there already was copied when it was good.
        let second = local();
        let whole = fs::read(base.join(path)).unwrap();
        let mut bad = whole.clone();
        bad[0] ^= 4;
        fs::write(base.join(path), &bad).unwrap();
        let error = refused(
            run(second.store.copy_from(&first.store, Step(3), &commit.blake3, |_| ())),
            Kind::Corrupt,
        );
        assert!(error.message.contains(path.as_str()), "{error}");
        assert_eq!(
            run(second.store.commit(Step(3))).unwrap_err().kind,
            Kind::NotFound,
            "nothing is committed"
        );
        fs::write(base.join(path), whole).unwrap();
    }
    let second = local();
    run(second.store.copy_from(&first.store, Step(3), &commit.blake3, |_| ())).unwrap();
    check(&second.store, 3, 0, 1, 0, &state(3));
}

#[test]
fn p4_another_attempt_of_the_number_is_left_as_it_is() {
    let (first, second) = (local(), local());
    save(&first.store, first.uuid, 5, 1, one_node(1, 5, &state(1)));
    save(&second.store, first.uuid, 5, 1, one_node(1, 5, &state(2)));
    refused(copy(&first.store, &second.store, 5), Kind::Conflict);
    check(&second.store, 5, 0, 1, 0, &state(2));
    refused(run(second.store.copy_from(&first.store, Step(5), "another", |_| ())), Kind::Conflict);
}

#[test]
fn a_target_takes_the_jobs_identity_and_refuses_another_job() {
    let (first, second) = (local(), local());
    let cluster = ClusterId::new();
    let uuid = run(first.store.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid;
    let survey = |uuid| run(second.store.survey(cluster, uuid, Takeover::No, OWN));
    assert!(survey(uuid).unwrap().steps.is_empty());
    save(&first.store, uuid, 1, 1, one_node(1, 1, &state(1)));
    copy(&first.store, &second.store, 1).unwrap();
    // A copy that was given up, of which nobody will ever finish the rest.
    persist(&second.store, attempt(uuid, 2, 9), 1, one_node(1, 2, &state(2))).unwrap();
    let found = survey(uuid).unwrap();
    assert_eq!(found.steps.len(), 1);
    assert_eq!(found.uncommitted, [(Step(2), crate::ids::Generation(9))]);
    assert_eq!(survey(crate::ids::JobUuid::new()).unwrap_err().kind, Kind::Conflict);
    // The first store is lost: what is made in its place is the same job.
    let third = local();
    let again = run(third.store.attach_as(cluster, Takeover::No, OWN, Some(uuid))).unwrap();
    assert_eq!(again.job_uuid, uuid);
}

/// Far away: no read of a pack's stretch is answered before three are on their way.
#[derive(Debug)]
struct Distant {
    inner: Arc<dyn Store>,
    asked: Arc<(Mutex<usize>, Condvar)>,
}

impl Store for Distant {
    passes_on!(
        name_of, make_place, place_uid, create, replace, read, writer, rewriter, list, folders, delete, sweep
    );
    fn reader(&self, path: &str) -> Result<Box<dyn Reader>> {
        Ok(Box::new(DistantReader { inner: self.inner.reader(path)?, asked: Arc::clone(&self.asked) }))
    }
}

struct DistantReader {
    inner: Box<dyn Reader>,
    asked: Arc<(Mutex<usize>, Condvar)>,
}

impl Reader for DistantReader {
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        let (asked, more) = &*self.asked;
        let mut asked = asked.lock();
        *asked += 1;
        more.notify_all();
        let waited = more.wait_while_for(&mut asked, |asked| *asked < 3, Duration::from_secs(20));
        drop(asked);
        match waited.timed_out() {
            true => Err(Error::timeout("nobody asks for more")),
            false => self.inner.read_at(offset, target),
        }
    }
}

#[test]
fn a_pack_that_is_far_away_is_read_in_several_places_at_once() {
    let (first, second) = (local(), local());
    let specs = [spec("w", 12 << 20)];
    save(&first.store, first.uuid, 1, 1, one_node(1, 1, &specs));
    let inner =
        open_store(&StoreUrl::local(first.folder.path()).unwrap(), &StoreOptions::default(), JOB).unwrap();
    let distant = over(Arc::new(Distant { inner, asked: Arc::default() }));
    copy(&distant, &second.store, 1).unwrap();
    check(&second.store, 1, 0, 1, 0, &specs);
}
