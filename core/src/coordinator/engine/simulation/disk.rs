//! The disk under the coordinator's log: what was not synced may be lost by a crash, in whole, in part, or not at all.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use redb::StorageBackend;

/// What a disk writes at once, or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Image>>);

#[derive(Debug, Default)]
struct Image {
    durable: Vec<u8>,
    /// As a process sees it.
    seen: Vec<u8>,
    unsynced: Vec<Change>,
    /// Which opening of it may still touch it.
    life: u64,
    /// Writes and syncs until it fails; none: it does not.
    left: Option<u64>,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// One opening of the disk, by one process.
#[derive(Debug)]
pub struct Backend {
    disk: Disk,
    life: u64,
}

impl Disk {
    pub fn open(&self) -> Backend {
        let mut image = self.0.lock();
        image.life += 1;
        Backend { disk: self.clone(), life: image.life }
    }

    /// The process dies at its so manieth write or sync from here on, counted from 0.
    pub fn fail_at(&self, operation: u64) {
        self.0.lock().left = Some(operation);
    }

    /// Whether the process is dead of it.
    pub fn has_failed(&self) -> bool {
        self.0.lock().left == Some(0)
    }

    /// The process has died, and its machine with it.
    pub fn crash(&self, random: &mut StdRng) {
        let mut image = self.0.lock();
        let mut content = std::mem::take(&mut image.durable);
        for change in std::mem::take(&mut image.unsynced) {
            match change {
                Change::Length(bytes) if random.random() => content.resize(bytes as usize, 0),
                Change::Length(_) => {}
                Change::Write(offset, bytes) => {
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        if random.random() {
                            put(&mut content, offset + (number * SECTOR) as u64, sector);
                        }
                    }
                }
            }
        }
        image.life += 1;
        image.left = None;
        image.seen.clone_from(&content);
        image.durable = content;
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

impl Backend {
    fn of_the_living<T>(&self, work: impl FnOnce(&mut Image) -> T) -> Result<T, io::Error> {
        let mut image = self.disk.0.lock();
        match image.life == self.life && image.left != Some(0) {
            true => Ok(work(&mut image)),
            false => Err(io::Error::other("the process is dead")),
        }
    }

    fn change<T>(&self, work: impl FnOnce(&mut Image) -> T) -> Result<T, io::Error> {
        self.of_the_living(|image| {
            image.left = image.left.map(|left| left - 1);
            work(image)
        })
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.of_the_living(|image| image.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = out.len();
        self.of_the_living(|image| out.copy_from_slice(&image.seen[offset as usize..offset as usize + bytes]))
    }

    fn set_len(&self, bytes: u64) -> Result<(), io::Error> {
        self.change(|image| {
            image.seen.resize(bytes as usize, 0);
            image.unsynced.push(Change::Length(bytes));
        })
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.change(|image| {
            image.durable.clone_from(&image.seen);
            image.unsynced.clear();
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), io::Error> {
        self.change(|image| {
            put(&mut image.seen, offset, bytes);
            image.unsynced.push(Change::Write(offset, bytes.to_owned()));
        })
    }
}
