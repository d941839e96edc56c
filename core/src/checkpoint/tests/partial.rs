//! What a restore of a part reads, counted at the store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use object_store::memory::InMemory;

use super::fixture::*;
use crate::checkpoint::JobStore;
use crate::error::Result;
use crate::format::chunks::CHUNK_BYTES;
use crate::ids::{JobUuid, Step};
use crate::storage::{
    BufferBudget, Created, Listed, Part, Reader, Store, StoreOptions, StoreUrl, Writer, open as open_store,
    over_object_store,
};

/// Counts what is read through it.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Store>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Small objects, whole.
    small: AtomicU64,
    ranged: AtomicU64,
    requests: AtomicU64,
    largest: AtomicU64,
}

impl Counts {
    /// (small, ranged, requests), from zero again.
    fn take(&self) -> (u64, u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::SeqCst);
        (take(&self.small), take(&self.ranged), take(&self.requests))
    }
}

struct CountingReader {
    inner: Box<dyn Reader>,
    counts: Arc<Counts>,
}

impl CountingReader {
    fn count(&self, bytes: u64) {
        self.counts.requests.fetch_add(1, Ordering::SeqCst);
        self.counts.ranged.fetch_add(bytes, Ordering::SeqCst);
        self.counts.largest.fetch_max(bytes, Ordering::SeqCst);
    }
}

impl Reader for CountingReader {
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        self.count(target.len() as u64);
        self.inner.read_at(offset, target)
    }
    fn together(&self) -> u64 {
        self.inner.together()
    }
    fn read_together(&self, parts: &mut [Part<'_>]) -> Result<()> {
        let (first, last) = (parts.first().expect("some"), parts.last().expect("some"));
        self.count(last.offset + last.target.len() as u64 - first.offset);
        self.inner.read_together(parts)
    }
}

impl Store for Counting {
    passes_on!(
        name_of, make_place, place_uid, create, replace, writer, rewriter, list, folders, delete, sweep
    );
    fn read(&self, path: &str) -> Result<Bytes> {
        let found = self.inner.read(path)?;
        self.counts.small.fetch_add(found.len() as u64, Ordering::SeqCst);
        Ok(found)
    }
    fn reader(&self, path: &str) -> Result<Box<dyn Reader>> {
        let inner = self.inner.reader(path)?;
        Ok(Box::new(CountingReader { inner, counts: Arc::clone(&self.counts) }))
    }
}

fn counted(inner: Arc<dyn Store>, options: &StoreOptions) -> (JobStore, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let objects = Arc::new(Counting { inner, counts: Arc::clone(&counts) });
    (JobStore::over(objects, &StoreUrl::local("/over").unwrap(), options, &job()), counts)
}

fn directory(root: &Path) -> Arc<dyn Store> {
    std::fs::create_dir(root.join(JOB)).unwrap();
    open_store(&StoreUrl::local(root).unwrap(), &StoreOptions::default(), JOB).unwrap()
}

/// Ten layers of 6 MiB and a bit, and what is small.
fn layers() -> Vec<Spec> {
    let large = (0..10).map(|number| spec(&format!("layer.{number}.weight"), (6 << 20) + 1000));
    let small = (0..10).map(|number| spec(&format!("layer.{number}.bias"), 100));
    large.chain(small).collect()
}

#[test]
fn a_part_costs_its_own_chunks_and_the_manifest_and_metadata_no_pack_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let memory = over_object_store(Arc::new(InMemory::new()), "p", &StoreOptions::default());
    for inner in [directory(folder.path()), memory] {
        let (store, counts) = counted(inner, &StoreOptions::default());
        let (specs, uuid) = (layers(), JobUuid::new());
        let record = save(&store, uuid, 1, 1, one_node(1, 1, &specs));
        let manifest = record.ranks[0].bytes;
        counts.take();
        for (only, tensors) in [
            ("layer.3.weight", 1),
            ("layer.[2-4].weight", 3),
            ("layer.7.*", 2),
            ("*.bias", 10),
            ("nothing", 0),
        ] {
            let found = read(&open_step(&store, 1, 0, 1, only).unwrap()).unwrap();
            assert_eq!(found.len(), tensors);
            let wanted: u64 = found.values().map(|bytes| bytes.len() as u64).sum();
            let (small, ranged, _) = counts.take();
            assert!(ranged <= wanted + tensors as u64 * CHUNK_BYTES, "{only}: {ranged} bytes for {wanted}");
            assert!(ranged >= wanted, "{only}: {ranged} bytes for {wanted}");
            assert!(tensors > 0 || ranged == 0, "{only}: {ranged} bytes");
            assert!(small <= manifest + 8192, "{only}: COMMIT and one manifest, {small} bytes");
        }
        let inspection = run(store.inspect(Step(1))).unwrap();
        let (small, ranged, _) = counts.take();
        assert_eq!((inspection.tensors.len(), ranged), (20, 0));
        assert!(small <= manifest + 8192, "{small} bytes");
    }
}

#[test]
fn chunks_that_lie_together_in_a_bucket_come_together_and_take_no_memory() {
    for limit in [256 << 20, 5 << 20] {
        let options =
            StoreOptions { concurrency: 2, buffers: BufferBudget::new(limit), ..StoreOptions::default() };
        let (store, counts) = counted(over_object_store(Arc::new(InMemory::new()), "p", &options), &options);
        let uuid = JobUuid::new();
        let specs = [spec("a", 40 << 20), spec("b", (40 << 20) + 5)];
        save(&store, uuid, 1, 1, one_node(1, 1, &specs));
        counts.take();
        check(&store, 1, 0, 1, 0, &specs);
        let (_, ranged, calls) = counts.take();
        assert!((80 << 20..81 << 20).contains(&ranged), "{ranged} bytes");
        let most = counts.largest.load(Ordering::SeqCst);
        assert!((CHUNK_BYTES + 1..=64 << 20).contains(&most), "{most} bytes at once");
        // Two threads have stored the chunks in an order of their own.
        assert!((2..16).contains(&calls), "{calls} calls");
        assert_eq!(options.buffers.in_use(), 0);
    }
}
