use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::node::NodeCache;
use super::origin::Key;
use super::part::Part;
use super::settings::Settings;
use super::*;
use crate::error::{Error, Kind, Result};
use crate::storage::conformance::noise;
use crate::storage::{self, Created, Listed, Reader, Store, StoreOptions, Writer};

const MIB: u64 = 1 << 20;

fn settings(folder: &Path, cap: u64) -> Settings {
    Settings { folder: folder.to_owned(), cap: Some(cap), store: StoreOptions::default() }
}

fn cache(folder: &TempDir, cap: u64) -> NodeCache {
    NodeCache::open(&settings(folder.path(), cap)).unwrap()
}

fn key(number: u64) -> Key {
    Key::of(&[&number.to_string()])
}

/// That one can tell from others.
fn content(number: u64, bytes: u64) -> Vec<u8> {
    noise(number, bytes as usize)
}

/// Of known length.
fn whole(content: &[u8]) -> impl Fn(&mut Part) -> Result<()> {
    move |part| {
        part.reserve(content.len() as u64)?;
        part.write(content)
    }
}

/// Of unknown length, piece by piece.
fn growing(content: &[u8]) -> impl Fn(&mut Part) -> Result<()> {
    move |part| content.chunks(300_000).try_for_each(|piece| part.write(piece))
}

fn read(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn get(cache: &NodeCache, number: u64, bytes: u64) -> Vec<u8> {
    let fetched = cache.entry(key(number), Path::new("x"), &whole(&content(number, bytes))).unwrap();
    read(&fetched.file)
}

fn is_held(cache: &NodeCache, number: u64) -> bool {
    cache.find(key(number)).unwrap().is_some()
}

/// Everything below, files that are being fetched too.
fn files(folder: &Path) -> Vec<(PathBuf, Metadata)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() => found.extend(files(&path)),
            Ok(about) if path.file_name().unwrap() != "taken" => found.push((path, about)),
            _ => {}
        }
    }
    found
}

/// One that is renamed meanwhile counts once.
fn taken(folder: &TempDir) -> u64 {
    let found = files(folder.path()).into_iter();
    let each: BTreeMap<u64, u64> = found.map(|(_, about)| (about.ino(), about.len())).collect();
    each.values().map(|bytes| bytes.next_multiple_of(4096)).sum()
}

fn ledger(folder: &Path) -> PathBuf {
    let boot = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    boot.join("taken")
}

/// Files that are being fetched, or were.
fn parts(folder: &TempDir) -> Vec<PathBuf> {
    let found = files(folder.path()).into_iter().map(|(path, _)| path);
    found.filter(|path| super::part::is_part(path)).collect()
}

#[test]
fn of_many_that_want_a_file_one_fetches_it() {
    let folder = TempDir::new().unwrap();
    let (fetches, expected) = (AtomicU64::new(0), content(1, 3 * MIB));
    let fill = |part: &mut Part| {
        fetches.fetch_add(1, Ordering::SeqCst);
        growing(&expected)(part)
    };
    thread::scope(|scope| {
        for _ in 0..16 {
            // Each like a process of its own: they share the folder alone.
            scope.spawn(|| {
                let fetched = cache(&folder, 100 * MIB).entry(key(1), Path::new("x"), &fill).unwrap();
                assert!(read(&fetched.file) == expected);
                assert!(fs::read(fetched.path).unwrap() == expected);
            });
        }
    });
    assert_eq!(fetches.into_inner(), 1);
}

#[test]
fn the_cap_holds_at_every_moment_and_every_file_comes_whole() {
    let seed: u64 = rand::random();
    println!("seed: {seed}");
    let (folder, cap) = (TempDir::new().unwrap(), 12 * MIB);
    get(&cache(&folder, cap), 99, 1);
    let (is_over, ledger) = (AtomicBool::new(false), ledger(folder.path()));
    let most = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut most, ledger) = (0, File::open(ledger).unwrap());
            while !is_over.load(Ordering::SeqCst) {
                // Nobody makes room or takes it meanwhile.
                flock(&ledger, FlockOperation::LockExclusive).unwrap();
                most = most.max(taken(&folder));
                flock(&ledger, FlockOperation::Unlock).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
            most
        });
        let work = |thread: u64| {
            let (cache, mut random) = (cache(&folder, cap), StdRng::seed_from_u64(seed.wrapping_add(thread)));
            for _ in 0..60 {
                let number = random.random_range(0..12u64);
                let expected = content(number, (number + 1) * 500_000);
                let name = Path::new("x");
                let fetched = match number % 2 {
                    0 => cache.entry(key(number), name, &whole(&expected)),
                    _ => cache.entry(key(number), name, &growing(&expected)),
                };
                assert!(read(&fetched.unwrap().file) == expected, "file {number}");
            }
        };
        let workers: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
        let outcomes: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::SeqCst);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        watcher.join().unwrap()
    });
    assert!(most > cap / 2 && most <= cap, "{most} of {cap}");
}

#[test]
fn what_was_used_least_recently_goes_first_and_stays_readable_where_it_is_open() {
    let folder = TempDir::new().unwrap();
    let cache = cache(&folder, 3 * MIB);
    let mut open = Vec::new();
    for number in 0..3 {
        get(&cache, number, MIB);
        let found = cache.find(key(number)).unwrap().unwrap();
        let age = Duration::from_secs(100 - number);
        File::options().write(true).open(&found.path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        open.push(found.file);
    }
    assert!(is_held(&cache, 0), "it is used again");
    get(&cache, 3, MIB);
    let held: Vec<u64> = (0..4).filter(|number| is_held(&cache, *number)).collect();
    assert_eq!(held, [0, 2, 3]);
    for (number, file) in (0..).zip(&open) {
        assert!(read(file) == content(number, MIB));
    }
}

#[test]
fn a_file_larger_than_the_cache_is_refused_and_the_setting_named() {
    let folder = TempDir::new().unwrap();
    let cache = cache(&folder, 2 * MIB);
    get(&cache, 1, MIB);
    let large = content(2, 3 * MIB);
    let name = Path::new("/data/large.bin");
    for outcome in [cache.entry(key(2), name, &whole(&large)), cache.entry(key(2), name, &growing(&large))] {
        let error = outcome.unwrap_err();
        assert!(error.kind == Kind::Invalid && error.message.contains("large.bin"), "{error}");
        assert!(error.hint.unwrap().contains("STRATA_DATA_CACHE_BYTES"));
    }
    assert_eq!(parts(&folder), [""; 0].map(PathBuf::from));
    get(&cache, 3, 2 * MIB);
}

#[test]
fn what_a_dead_process_was_fetching_is_fetched_anew_or_makes_room() {
    let folder = TempDir::new().unwrap();
    let cache = cache(&folder, 4 * MIB);
    get(&cache, 9, 1);
    // As SIGKILL leaves it: its room in the ledger, its file half written, and nobody has the lock.
    let die = |number: u64| {
        let die = |part: &mut Part| -> Result<()> {
            part.reserve(3 * MIB)?;
            part.write(&[0xee; 1000])?;
            let [path] = &parts(&folder)[..] else { panic!("one is being fetched") };
            fs::hard_link(path, folder.path().join("kept")).unwrap();
            Err(Error::cancelled(path.to_str().unwrap()))
        };
        let error = cache.entry(key(number), Path::new("x"), &die).unwrap_err();
        fs::rename(folder.path().join("kept"), error.message).unwrap();
        fs::write(ledger(folder.path()), format!("{:020}\n", 3 * MIB + 4096)).unwrap();
    };
    die(1);
    assert!(!is_held(&cache, 1));
    assert!(get(&cache, 1, MIB) == content(1, MIB));
    assert_eq!(parts(&folder).len(), 0, "it was taken over");
    die(2);
    assert!(get(&cache, 3, 2 * MIB) == content(3, 2 * MIB));
    assert_eq!(parts(&folder).len(), 0, "it made room");
}

#[test]
fn one_that_is_being_fetched_is_not_taken_for_dead() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.part");
    let file = File::create(&path).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    assert!(!super::part::remove_dead(&path).unwrap() && path.exists());
    flock(&file, FlockOperation::Unlock).unwrap();
    assert!(super::part::remove_dead(&path).unwrap() && !path.exists());
    assert!(!super::part::remove_dead(&path).unwrap());
}

#[test]
fn an_entry_of_another_length_is_fetched_again() {
    let folder = TempDir::new().unwrap();
    let cache = cache(&folder, 10 * MIB);
    for length in [0, MIB - 1, MIB + 1] {
        get(&cache, 1, MIB);
        let path = cache.find(key(1)).unwrap().unwrap().path;
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        assert!(!is_held(&cache, 1), "{length} bytes");
        assert!(get(&cache, 1, MIB) == content(1, MIB));
    }
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn what_an_earlier_boot_left_is_removed_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    for name in ["boot-1234/ab/cdef-7", "mine/ab/cdef-7"] {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), b"unsynced").unwrap();
    }
    let cache = cache(&folder, MIB);
    assert!(!folder.path().join("boot-1234").exists() && folder.path().join("mine/ab/cdef-7").exists());
    get(&cache, 1, 10);
    assert!(is_held(&NodeCache::open(&settings(folder.path(), MIB)).unwrap(), 1), "this boot's stays");
}

#[test]
fn without_a_setting_the_cap_follows_the_disk() {
    let folder = TempDir::new().unwrap();
    let usual = Settings { cap: None, ..settings(folder.path(), 0) };
    let cache = NodeCache::open(&usual).unwrap();
    assert!(get(&cache, 1, MIB) == content(1, MIB));
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut packed = ::zstd::Encoder::new(Vec::new(), 3).unwrap();
    packed.include_checksum(true).unwrap();
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Of files in directories, with a cache in `folder`.
pub fn local_fetcher(folder: &Path) -> Fetcher {
    Fetcher::with(settings(folder, 100 * MIB), |url, _| {
        Err(Error::internal(format!("nobody asked for {url}")))
    })
    .unwrap()
}

fn unpacked(fetcher: &Fetcher, path: &Path) -> Result<Vec<u8>> {
    fetcher.open(&Origin::of(path).unwrap()).map(|file| read(&file))
}

#[test]
fn compressed_files_come_whole_also_of_several_members() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let fetcher = local_fetcher(folder.path());
    let text: Vec<u8> = content(5, 5 * MIB).iter().map(|byte| byte % 16 + b'a').collect();
    let mut long = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    long.window_log(28).unwrap();
    long.write_all(&text).unwrap();
    let packed = [
        ("a.gz", gzip(&text)),
        ("b.gz", [gzip(&text[..MIB as usize]), gzip(b""), gzip(&text[MIB as usize..])].concat()),
        ("c.zst", zstd(&text)),
        ("d.zst", [zstd(&text[..100]), zstd(&text[100..])].concat()),
        ("e.zst", long.finish().unwrap()),
    ];
    for (name, bytes) in packed {
        let path = data.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert!(unpacked(&fetcher, &path).unwrap() == text, "{name}");
        // From the cache now, whatever becomes of the bytes there; with another file under its name no more.
        let length = fs::metadata(&path).unwrap().len() as usize;
        assert!(unpacked(&fetcher, &path).unwrap() == text);
        fs::write(&path, vec![0; length]).unwrap();
        let later = SystemTime::now() + Duration::from_secs(10);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(unpacked(&fetcher, &path).unwrap_err().kind, Kind::Corrupt, "{name}");
    }
}

#[test]
fn p2_a_damaged_compressed_file_is_named_or_its_bytes_are_right() {
    let (folder, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let fetcher = local_fetcher(folder.path());
    let text = b"{\"text\": \"a line of many\"}\n".repeat(40);
    for (name, packed) in [("a.jsonl.gz", gzip(&text)), ("a.jsonl.zst", zstd(&text))] {
        let path = data.path().join(name);
        let check = |damaged: &[u8], what: String| match put(&path, damaged)
            .and_then(|()| unpacked(&fetcher, &path))
        {
            Ok(bytes) => {
                assert!(bytes == text, "{name}, {what}: wrong bytes");
                false
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::Corrupt, "{name}, {what}: {error}");
                assert!(error.message.contains(name), "{error}");
                true
            }
        };
        for length in 0..packed.len() {
            assert!(check(&packed[..length], format!("{length} bytes of it")));
        }
        let mut refused = 0;
        for at in 0..packed.len() {
            let mut flipped = packed.clone();
            flipped[at] ^= 0x20;
            refused += usize::from(check(&flipped, format!("byte {at}")));
        }
        assert!(refused > packed.len() / 2, "{name}: {refused} of {}", packed.len());
        assert!(!check(&packed, "whole".into()));
    }
}

/// Another file each time: the same inode may have the same time.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, bytes).unwrap();
    let _ = fs::rename(path, path.with_extension("old"));
    fs::rename(fresh, path).unwrap();
    Ok(())
}

/// A bucket that counts what is read of it.
#[derive(Debug)]
pub struct Counted {
    bucket: Arc<dyn Store>,
    pub opened: Arc<AtomicU64>,
    pub bytes: Arc<AtomicU64>,
    /// Names are told, bytes are not.
    pub is_away: Arc<AtomicBool>,
    /// Put under every name as soon as it is opened, once.
    replacement: parking_lot::Mutex<Option<Bytes>>,
}

struct CountedReader(Box<dyn Reader>, Arc<AtomicU64>, Arc<AtomicBool>);

impl Reader for CountedReader {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn pin(&mut self) -> Option<String> {
        self.0.pin()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        if self.2.load(Ordering::SeqCst) {
            return Err(Error::unavailable("reading from the bucket: it is away"));
        }
        self.1.fetch_add(target.len() as u64, Ordering::SeqCst);
        self.0.read_at(offset, target)
    }

    fn together(&self) -> u64 {
        self.0.together()
    }
}

impl Store for Counted {
    fn name_of(&self, path: &str) -> String {
        self.bucket.name_of(path)
    }

    fn make_place(&self) -> Result<()> {
        self.bucket.make_place()
    }

    fn place_uid(&self) -> Result<Option<u32>> {
        self.bucket.place_uid()
    }

    fn create(&self, path: &str, content: Bytes) -> Result<Created> {
        self.bucket.create(path, content)
    }

    fn replace(&self, path: &str, content: Bytes) -> Result<()> {
        self.bucket.replace(path, content)
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        self.bucket.read(path)
    }

    fn reader(&self, path: &str) -> Result<Box<dyn Reader>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let reader = self.bucket.reader(path)?;
        if let Some(replacement) = self.replacement.lock().take() {
            self.bucket.replace(path, replacement)?;
        }
        Ok(Box::new(CountedReader(reader, self.bytes.clone(), self.is_away.clone())))
    }

    fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        self.bucket.writer(path, at_most)
    }

    fn rewriter(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        self.bucket.rewriter(path, at_most)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        self.bucket.list(folder)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.bucket.folders(folder)
    }

    fn delete(&self, paths: &[String]) -> Result<()> {
        self.bucket.delete(paths)
    }

    fn sweep(&self, folder: &str) -> Result<u64> {
        self.bucket.sweep(folder)
    }
}

/// Of objects in any store, by its own client.
pub fn store_fetcher(folder: &Path, options: &StoreOptions) -> Fetcher {
    let settings = Settings { store: options.clone(), ..settings(folder, 100 * MIB) };
    Fetcher::with(settings, stores::bucket).unwrap()
}

/// An empty bucket in memory.
pub fn bucket() -> Arc<Counted> {
    let memory = Arc::new(object_store::memory::InMemory::new());
    let bucket = storage::over_object_store(memory, "", &StoreOptions::default());
    let (opened, bytes, is_away) = Default::default();
    Arc::new(Counted { bucket, opened, bytes, is_away, replacement: Default::default() })
}

/// Of files in that bucket, whatever it is called.
pub fn bucket_fetcher(folder: &Path, bucket: &Arc<Counted>) -> Fetcher {
    bucket_fetcher_with(folder, bucket, 100 * MIB)
}

pub fn bucket_fetcher_with(folder: &Path, bucket: &Arc<Counted>, cap: u64) -> Fetcher {
    let bucket = bucket.clone();
    Fetcher::with(settings(folder, cap), move |_, _| Ok(bucket.clone())).unwrap()
}

#[test]
fn each_byte_of_an_object_is_fetched_once_for_all_that_read_it() {
    let (folder, bucket) = (TempDir::new().unwrap(), bucket());
    let text = content(3, 3 * MIB + 17);
    bucket.replace("p/a.bin", text.clone().into()).unwrap();
    bucket.replace("p/b.bin.zst", zstd(&text).into()).unwrap();
    let length = text.len() + zstd(&text).len();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let fetcher = bucket_fetcher(folder.path(), &bucket);
                for name in ["s3://bucket/p/a.bin", "s3://bucket/p/b.bin.zst"] {
                    assert!(unpacked(&fetcher, Path::new(name)).unwrap() == text);
                }
            });
        }
    });
    assert_eq!(bucket.bytes.load(Ordering::SeqCst), length as u64);
    // Of a file that is there the bucket is not even asked again.
    let (fetcher, origin) =
        (bucket_fetcher(folder.path(), &bucket), Origin::of(Path::new("s3://bucket/p/a.bin")).unwrap());
    let before = bucket.opened.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert!(read(&fetcher.open(&origin).unwrap()) == text);
    }
    assert_eq!(bucket.opened.load(Ordering::SeqCst), before + 1);
}

#[test]
fn an_object_that_is_replaced_is_read_as_it_is_now_and_never_mixed() {
    let (folder, bucket) = (TempDir::new().unwrap(), bucket());
    let fetcher = bucket_fetcher(folder.path(), &bucket);
    let name = Path::new("s3://bucket/a.bin");
    for number in 0..3 {
        bucket.replace("a.bin", content(number, MIB).into()).unwrap();
        assert!(unpacked(&fetcher, name).unwrap() == content(number, MIB));
    }
    // Between the look at it and the first byte.
    bucket.replace("a.bin", content(3, MIB).into()).unwrap();
    *bucket.replacement.lock() = Some(content(4, MIB).into());
    assert!(unpacked(&fetcher, name).unwrap() == content(4, MIB));
    let mut pinned = bucket.reader("a.bin").unwrap();
    pinned.pin().unwrap();
    bucket.replace("a.bin", content(5, MIB).into()).unwrap();
    assert_eq!(pinned.read_at(0, &mut [0; 10]).unwrap_err().kind, Kind::Conflict);
    bucket.delete(&["a.bin".into()]).unwrap();
    let error = unpacked(&fetcher, name).unwrap_err();
    assert!(error.kind == Kind::NotFound && error.message.contains("a.bin"), "{error}");
}
