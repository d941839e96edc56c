use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::data::cache::tests::{Counted, bucket, bucket_fetcher_with, zstd};
use crate::data::spec::DatasetSpec;
use crate::data::{Dtype, Format, OnDamage, scan};
use crate::storage::Store;

const SHARD: u64 = 5;
const BYTES: u64 = 4 * SHARD;
const WINDOW: u64 = crate::sharding::ORDER_WINDOW;
/// What a file takes of the cache.
const BLOCK: u64 = 4096;

/// Files of one shard each in a bucket, and a reader of them with room for so many.
fn dataset(files: u64, room: u64) -> (TempDir, Arc<Counted>, DatasetSpec, Arc<Reader>) {
    dataset_of(files, room, "bin", |bytes| bytes)
}

fn dataset_of(
    files: u64,
    room: u64,
    ending: &str,
    packed: impl Fn(Vec<u8>) -> Vec<u8>,
) -> (TempDir, Arc<Counted>, DatasetSpec, Arc<Reader>) {
    let (cached, bucket) = (TempDir::new().unwrap(), bucket());
    for file in 0..files {
        let numbers = (file * SHARD..(file + 1) * SHARD).map(|number| number as u32);
        let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
        bucket.replace(&format!("{file:03}.{ending}"), packed(bytes).into()).unwrap();
    }
    let format = Format::Tokens { dtype: Dtype::Uint32, sample_len: 1 };
    let spec = DatasetSpec { shuffle: true, seed: 3, ..DatasetSpec::new("d", "s3://bucket", format, SHARD) };
    let fetcher = || bucket_fetcher_with(cached.path(), &bucket, room * BLOCK);
    let (spec, _) = scan::resolve_with(spec, OnDamage::Raise, &fetcher()).unwrap();
    let reader = Arc::new(Reader::with(&spec, fetcher()).unwrap());
    (cached, bucket, spec, reader)
}

fn fetched(bucket: &Counted) -> u64 {
    bucket.bytes.load(Ordering::SeqCst) / BYTES
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} within a minute");
}

#[test]
fn the_window_that_is_read_and_the_next_one_are_fetched_and_no_other() {
    let (_cached, bucket, spec, reader) = dataset(5 * WINDOW, 100 * WINDOW);
    let prefetch = Prefetch::new(reader.clone());
    let order = spec.order(0);
    let from = order.window(0).positions.end;
    prefetch.reading(&order, 0, from + 3, || spec.order(1), |_| false);
    wait_until("two windows are fetched", || fetched(&bucket) == 2 * WINDOW);
    for position in from..order.window(from).positions.end + WINDOW * SHARD {
        reader.read(&[order.sample_at(position)]).unwrap();
    }
    assert_eq!(fetched(&bucket), 2 * WINDOW, "reading them fetched more, or another was fetched ahead");
}

#[test]
fn behind_an_epoch_comes_the_beginning_of_the_next() {
    let (_cached, bucket, spec, reader) = dataset(3 * WINDOW, 100 * WINDOW);
    let prefetch = Prefetch::new(reader.clone());
    let (order, following) = (spec.order(0), spec.order(1));
    let files = |order: &Order, position| {
        let window = order.window(position);
        window.samples.into_iter().map(|samples| samples.start / SHARD)
    };
    let last = order.samples() - 1;
    let wanted: BTreeSet<u64> = files(&order, last).chain(files(&following, 0)).collect();
    prefetch.reading(&order, 0, last, || following.clone(), |_| false);
    let count = wanted.len() as u64;
    wait_until("both windows are fetched", || fetched(&bucket) == count);
    for file in wanted {
        reader.read(&[file * SHARD]).unwrap();
    }
    assert_eq!(fetched(&bucket), count, "reading them fetched more");
}

#[test]
fn a_cache_of_three_windows_fetches_each_file_once() {
    let (_cached, bucket, spec, reader) = dataset(6 * WINDOW, 3 * WINDOW);
    let prefetch = Prefetch::new(reader.clone());
    let order = spec.order(0);
    for position in 0..order.samples() {
        prefetch.reading(&order, 0, position, || spec.order(0), |_| false);
        assert!(reader.read(&[order.sample_at(position)]).is_ok());
    }
    assert_eq!(fetched(&bucket), 6 * WINDOW);
}

#[test]
fn a_cache_without_room_for_two_files_is_left_to_who_reads() {
    let (_cached, bucket, spec, reader) = dataset(3 * WINDOW, 2);
    let prefetch = Prefetch::new(reader);
    let order = spec.order(0);
    for window in 0..3 {
        prefetch.reading(&order, 0, window * WINDOW * SHARD, || spec.order(1), |_| false);
        // The first shows how large they are.
        wait_until("one is fetched", || fetched(&bucket) == window + 1);
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(fetched(&bucket), 3);
}

#[test]
fn a_damaged_file_keeps_no_other_from_being_fetched_and_is_not_asked_for_once_it_is_left_out() {
    let (cached, bucket, spec, reader) =
        dataset_of(2 * WINDOW, 100 * WINDOW, "bin.zst", |bytes| zstd(&bytes));
    let order = spec.order(0);
    let (torn, _) = reader.files().locate(order.sample_at(0)).unwrap();
    let name = format!("{torn:03}.bin.zst");
    let whole = bucket.read(&name).unwrap();
    bucket.replace(&name, whole.slice(..whole.len() - 3)).unwrap();
    // Counting the samples has put all there.
    for entry in std::fs::read_dir(cached.path()).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    let all_but_one = || (0..2 * WINDOW as usize).filter(|file| *file != torn);
    for is_known in [false, true] {
        let before = bucket.opened.load(Ordering::SeqCst);
        let prefetch = Prefetch::new(reader.clone());
        prefetch.reading(&order, 0, 0, || spec.order(1), |file| is_known && file == torn);
        let is_done = || {
            let work = prefetch.shared.work.lock();
            work.files.is_empty() && work.in_flight == 0
        };
        wait_until("all have been tried", is_done);
        let asked = bucket.opened.load(Ordering::SeqCst) - before;
        assert_eq!(asked, if is_known { 0 } else { 2 * WINDOW }, "known: {is_known}");
        for file in all_but_one() {
            assert!(reader.files().local(file).is_ok());
        }
        assert_eq!(bucket.opened.load(Ordering::SeqCst) - before, asked, "they are at hand");
    }
}
