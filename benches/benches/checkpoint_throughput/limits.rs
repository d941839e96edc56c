//! What disk and server allow for the same bytes, without anything that Strata adds.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, WriteMultipart};

use crate::s3::Server;

/// O_DIRECT wants memory, offsets and lengths in multiples of this.
const PAGE: usize = 4096;
/// One request; larger ones are no faster here.
const BLOCK: usize = 4 << 20;
const THREADS: usize = 4;

/// A new file of these bytes (rounded up to whole pages): written directly by several threads, file and directory
/// synced.
pub fn write(path: &Path, bytes: &[u8]) -> Duration {
    // The last measurement's file; there is none the first time.
    let _ = fs::remove_file(path);
    let blocks: Vec<Aligned> = bytes.chunks(BLOCK).map(Aligned::holding).collect();
    let started = Instant::now();
    let file = open(path, OpenOptions::new().write(true).create_new(true));
    on_threads(&blocks, |number, block| {
        file.write_all_at(block.bytes(), (number * BLOCK) as u64).expect("the disk has room");
    });
    file.sync_all().expect("the disk takes it");
    let folder = File::open(path.parent().expect("it lies in a directory")).expect("it can be opened");
    folder.sync_all().expect("directories can be synced");
    started.elapsed()
}

/// The file that [`write`] left, read directly.
pub fn read(path: &Path, bytes: usize) -> Duration {
    let sizes: Vec<usize> = (0..bytes).step_by(BLOCK).map(|start| BLOCK.min(bytes - start)).collect();
    let started = Instant::now();
    let file = open(path, OpenOptions::new().read(true));
    on_threads(&sizes, |number, &size| {
        let mut block = Aligned::of(size);
        file.read_exact_at(block.bytes_mut(), (number * BLOCK) as u64).expect("the file is whole");
    });
    started.elapsed()
}

fn open(path: &Path, options: &mut OpenOptions) -> File {
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    options
        .custom_flags(flags)
        .open(path)
        .expect("the file system does direct IO; set TMPDIR to one that does")
}

fn on_threads<T: Sync>(parts: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(parts.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(part) = parts.get(number) else { return };
                    work(number, part);
                }
            });
        }
    });
}

/// Whole pages at a page's start.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Aligned {
    fn of(bytes: usize) -> Aligned {
        let bytes = bytes.next_multiple_of(PAGE);
        let memory = vec![0; bytes + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        Aligned { memory, start, bytes }
    }

    fn holding(content: &[u8]) -> Aligned {
        let mut block = Aligned::of(content.len());
        block.bytes_mut()[..content.len()].copy_from_slice(content);
        block
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.bytes]
    }
}

/// A client of the same server without our packs, manifests and checksums.
pub struct Plain {
    client: AmazonS3,
    key: Key,
    pub tuning: Tuning,
}

/// How a client of a bucket is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    pub part_bytes: usize,
    /// In flight at once.
    pub requests: usize,
}

impl Plain {
    pub fn new(server: &Server) -> Plain {
        let options = &server.options;
        let mut builder =
            AmazonS3Builder::new().with_bucket_name(&server.bucket).with_allow_http(options.allow_http);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let (Some(id), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token);
        }
        Plain {
            client: builder.build().expect("the options name a server"),
            key: Key::from(format!("{}/limit", server.prefix)),
            tuning: Tuning { part_bytes: 16 << 20, requests: 8 },
        }
    }

    /// One request, or a multipart upload.
    pub async fn upload(&self, bytes: &[u8]) -> Duration {
        let content = Bytes::copy_from_slice(bytes);
        let started = Instant::now();
        if bytes.len() <= self.tuning.part_bytes {
            self.client.put(&self.key, content.into()).await.expect("the server takes it");
        } else {
            let upload = self.client.put_multipart(&self.key).await.expect("the server takes it");
            let mut parts = WriteMultipart::new_with_chunk_size(upload, self.tuning.part_bytes);
            for start in (0..content.len()).step_by(self.tuning.part_bytes) {
                parts.wait_for_capacity(self.tuning.requests).await.expect("the server takes it");
                parts.put(content.slice(start..content.len().min(start + self.tuning.part_bytes)));
            }
            parts.finish().await.expect("the server takes it");
        }
        started.elapsed()
    }

    /// What [`Plain::upload`] left, in ranges of one part, several in flight.
    pub async fn download(&self, bytes: usize) -> Duration {
        use futures::stream::{StreamExt, TryStreamExt};
        let started = Instant::now();
        let ranges = (0..bytes).step_by(self.tuning.part_bytes).map(|start| {
            let range = start as u64..bytes.min(start + self.tuning.part_bytes) as u64;
            self.client.get_range(&self.key, range)
        });
        let read: Vec<Bytes> = futures::stream::iter(ranges)
            .buffered(self.tuning.requests)
            .try_collect()
            .await
            .expect("the object is there");
        assert_eq!(read.iter().map(Bytes::len).sum::<usize>(), bytes);
        started.elapsed()
    }
}
