//! Stores that fail, or lie, at a chosen call: what is committed stays whole, and the same call made again succeeds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::fixture::*;
use crate::checkpoint::{JobStore, Takeover};
use crate::error::{Error, Kind, Result};
use crate::format::{StepKind, paths};
use crate::ids::{JobUuid, Step};
use crate::storage::{
    Created, Listed, Piece, Reader, Store, StoreOptions, StoreUrl, Writer, open as open_store,
};

fn directory(root: &Path) -> Arc<dyn Store> {
    open_store(&StoreUrl::local(root).unwrap(), &StoreOptions::default(), JOB).unwrap()
}

/// Fails one call: before it takes effect, or after.
#[derive(Debug)]
pub struct Failing {
    inner: Arc<dyn Store>,
    calls: Arc<AtomicUsize>,
    at: usize,
    after: bool,
}

impl Failing {
    fn over(root: &Path, at: usize, after: bool) -> Failing {
        Failing { inner: directory(root), calls: Arc::default(), at, after }
    }

    fn call<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        call(&self.calls, self.at, self.after, work)
    }
}

fn call<T>(calls: &AtomicUsize, at: usize, after: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let fails = calls.fetch_add(1, Ordering::SeqCst) == at;
    if fails && !after {
        return Err(Error::unavailable("injected"));
    }
    let outcome = work();
    if fails { outcome.and(Err(Error::unavailable("injected"))) } else { outcome }
}

struct FailingWriter {
    inner: Box<dyn Writer>,
    calls: Arc<AtomicUsize>,
    at: usize,
    after: bool,
}

impl Writer for FailingWriter {
    fn append(&self, piece: Piece) -> Result<u64> {
        call(&self.calls, self.at, self.after, || self.inner.append(piece))
    }

    fn finish(&self) -> Result<u64> {
        call(&self.calls, self.at, self.after, || self.inner.finish())
    }
}

impl Store for Failing {
    passes_on!(name_of);
    fn make_place(&self) -> Result<()> {
        self.call(|| self.inner.make_place())
    }
    fn place_uid(&self) -> Result<Option<u32>> {
        self.call(|| self.inner.place_uid())
    }
    fn create(&self, path: &str, content: Bytes) -> Result<Created> {
        self.call(|| self.inner.create(path, content))
    }
    fn replace(&self, path: &str, content: Bytes) -> Result<()> {
        self.call(|| self.inner.replace(path, content))
    }
    fn read(&self, path: &str) -> Result<Bytes> {
        self.call(|| self.inner.read(path))
    }
    fn reader(&self, path: &str) -> Result<Box<dyn Reader>> {
        self.call(|| self.inner.reader(path))
    }
    fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        let inner = self.call(|| self.inner.writer(path, at_most))?;
        Ok(Box::new(FailingWriter { inner, calls: Arc::clone(&self.calls), at: self.at, after: self.after }))
    }
    fn rewriter(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        let inner = self.call(|| self.inner.rewriter(path, at_most))?;
        Ok(Box::new(FailingWriter { inner, calls: Arc::clone(&self.calls), at: self.at, after: self.after }))
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        self.call(|| self.inner.list(folder))
    }
    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.call(|| self.inner.folders(folder))
    }
    fn delete(&self, paths: &[String]) -> Result<()> {
        // Half of it, then the failure: deletions are not atomic together.
        let (first, rest) = paths.split_at(paths.len() / 2);
        self.inner.delete(first)?;
        self.call(|| self.inner.delete(rest))
    }
    fn sweep(&self, folder: &str) -> Result<u64> {
        self.call(|| self.inner.sweep(folder))
    }
}

/// Overwrites where it should create, whatever it answers.
#[derive(Debug)]
pub struct Lying {
    inner: Arc<dyn Store>,
    says_exists: bool,
}

impl Lying {
    pub fn over(root: &Path, says_exists: bool) -> Lying {
        Lying { inner: directory(root), says_exists }
    }
}

impl Store for Lying {
    passes_on!(
        name_of, make_place, place_uid, replace, read, reader, writer, rewriter, list, folders, delete, sweep
    );
    fn create(&self, path: &str, content: Bytes) -> Result<Created> {
        let existed = self.inner.read(path).is_ok();
        self.inner.replace(path, content)?;
        Ok(if existed && self.says_exists { Created::Exists } else { Created::New })
    }
}

/// Counts the calls of `work` over a store that never fails, then lets each of them fail in turn, both ways.
fn at_every_call(prepare: impl Fn(&Path) -> JobUuid, work: impl Fn(&JobStore, &Path, JobUuid, bool)) {
    let count = {
        let folder = tempfile::tempdir().unwrap();
        let uuid = prepare(folder.path());
        let store = Failing::over(folder.path(), usize::MAX, false);
        let calls = Arc::clone(&store.calls);
        work(&over(Arc::new(store)), folder.path(), uuid, false);
        calls.load(Ordering::SeqCst)
    };
    assert!(count > 3, "{count} calls");
    for at in 0..count {
        for after in [false, true] {
            println!(
                "call {at} of {count} fails, {}",
                if after { "having worked" } else { "without effect" }
            );
            let folder = tempfile::tempdir().unwrap();
            let uuid = prepare(folder.path());
            let store = over(Arc::new(Failing::over(folder.path(), at, after)));
            work(&store, folder.path(), uuid, true);
        }
    }
}

fn state(version: u64) -> Vec<Spec> {
    vec![spec("a", 100 << 10).version(version), spec("b", 90 << 10), replicated("c", 10)]
}

/// P4: a save that fails, wherever, harms no older step, and the next try of it commits.
#[test]
fn a_save_that_fails_anywhere_harms_nothing_and_succeeds_again() {
    let prepare = |root: &Path| {
        let uuid = JobUuid::new();
        save(&open(root), uuid, 1, 2, one_node(2, 1, &state(1)));
        uuid
    };
    at_every_call(prepare, |store, root, uuid, fails| {
        let attempt = attempt(uuid, 2, 1);
        let try_once = || -> Result<()> {
            let durable = persist(store, attempt, 2, one_node(2, 2, &state(2)))?;
            publish(store, &record(attempt, 2, StepKind::Full, &durable))
        };
        let first = try_once();
        assert!(fails || first.is_ok());
        let plain = open(root);
        restore_all(&plain, 1, 2).unwrap();
        if let Err(error) = first {
            assert_eq!(error.kind, Kind::Unavailable, "{error}");
            try_once().unwrap();
        }
        (0..2).for_each(|rank| check(&plain, 2, rank, 2, rank, &state(2)));
    });
}

/// P4: a removal that fails, wherever, deletes nothing that a remaining step needs, and ends when made again.
#[test]
fn a_removal_that_fails_anywhere_harms_nothing_and_succeeds_again() {
    let prepare = |root: &Path| {
        let (store, uuid) = (open(root), JobUuid::new());
        let first = one_node(1, 1, &state(1));
        save(&store, uuid, 1, 1, one_node(1, 1, &state(1)));
        let mut second = one_node(1, 2, &state(2));
        second[0][0].base = Some(base_of(&first[0][0]));
        save(&store, uuid, 2, 1, second);
        save(&store, uuid, 3, 1, one_node(1, 3, &state(3)));
        uuid
    };
    at_every_call(prepare, |store, root, _, fails| {
        let order = removal(1, 1, true, &[2, 3]);
        let first = run(store.remove(&order));
        assert!(fails || first.is_ok());
        let plain = open(root);
        for step in [2, 3] {
            check(&plain, step, 0, 1, 0, &state(step));
        }
        if first.is_err() {
            run(store.remove(&order)).unwrap();
        }
        assert_eq!(run(plain.commit(Step(1))).unwrap_err().kind, Kind::NotFound);
        let left = directory(root).list(&paths::attempt_folder(Step(1), crate::ids::Generation(1))).unwrap();
        assert_eq!(left.len(), 1, "only the pack that step 2 refers to: {left:?}");
    });
}

/// A device that refuses to give one object, so often; counts how often it was written over.
#[derive(Debug)]
struct Refusing {
    inner: Arc<dyn Store>,
    path: String,
    left: AtomicUsize,
    replaced: AtomicUsize,
}

impl Refusing {
    fn over(root: &Path, path: &str, times: usize) -> Arc<Refusing> {
        let (path, left) = (path.to_owned(), AtomicUsize::new(times));
        Arc::new(Refusing { inner: directory(root), path, left, replaced: AtomicUsize::new(0) })
    }
}

impl Store for Refusing {
    passes_on!(
        name_of, make_place, place_uid, create, reader, writer, rewriter, list, folders, delete, sweep
    );
    fn read(&self, path: &str) -> Result<Bytes> {
        let take = |left: usize| left.checked_sub(1);
        let refused = || self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        match path == self.path && refused() {
            // As the local store says it.
            true => Err(Error::corrupt("reading x: Input/output error (os error 5)")),
            false => self.inner.read(path),
        }
    }
    fn replace(&self, path: &str, content: Bytes) -> Result<()> {
        self.replaced.fetch_add(1, Ordering::SeqCst);
        self.inner.replace(path, content)
    }
}

#[test]
fn p1_a_commit_whose_reading_back_is_refused_is_not_given_up() {
    let job = local();
    let attempt = attempt(job.uuid, 4, 1);
    let durable = persist(&job.store, attempt, 1, one_node(1, 4, &mixed(1))).unwrap();
    let record = record(attempt, 1, StepKind::Full, &durable);
    publish(&job.store, &record).unwrap();
    let refusing = |times| Refusing::over(job.folder.path(), &paths::commit(Step(4)), times);
    // The coordinator abandons an attempt for good when another COMMIT, or a damaged one, stands in its place.
    let error = publish(&over(refusing(100)), &record).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    publish(&over(refusing(2)), &record).unwrap();
}

#[test]
fn an_owner_that_the_device_refuses_is_neither_damaged_nor_written_anew() {
    let job = local();
    let (cluster, other) = (crate::ids::ClusterId::new(), crate::ids::ClusterId::new());
    let uuid = run(job.store.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid;
    save(&job.store, uuid, 1, 1, one_node(1, 1, &mixed(1)));
    let objects = Refusing::over(job.folder.path(), paths::OWNER, usize::MAX);
    let store = over(objects.clone());
    let error = run(store.attach(other, Takeover::Yes, OWN)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert_eq!(run(store.confirm(None, uuid)).unwrap_err().kind, Kind::Unavailable);
    assert_eq!(run(store.must_exist()).unwrap_err().kind, Kind::Unavailable);
    assert_eq!(objects.replaced.load(Ordering::SeqCst), 0, "whose it is stays as it was");
    assert_eq!(run(job.store.owner()).unwrap().unwrap().cluster, cluster);
}
