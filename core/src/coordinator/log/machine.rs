//! A disk for tests: what was not synced may be lost by a crash, in whole, in part, or not at all, and any write may be the
//! process's last or find no room.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use super::disk::{Disk, DiskFile};

/// What a disk writes at once, or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
pub struct Machine(Arc<Mutex<Image>>);

/// Which file of the image a name stands for.
type Number = usize;
type Names = BTreeMap<String, Number>;

#[derive(Debug, Default)]
struct Image {
    files: Vec<Content>,
    durable: Names,
    /// As a process sees them.
    seen: Names,
    unsynced: Vec<Naming>,
    /// Which opening of it may still touch it.
    life: u64,
    /// Changes and syncs until it fails; none: it does not.
    left: Option<u64>,
    /// Bytes that files may have together; none: as many as they want.
    room: Option<u64>,
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Naming {
    Create(String, Number),
    Rename(String, String),
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// One opening of the disk, by one process.
#[derive(Clone, Debug)]
pub struct Opening {
    machine: Machine,
    life: u64,
}

#[derive(Debug)]
struct Handle {
    of: Opening,
    number: Number,
}

impl Machine {
    pub fn open(&self) -> Opening {
        let mut image = self.0.lock();
        image.life += 1;
        Opening { machine: self.clone(), life: image.life }
    }

    /// The process dies at its so manieth change or sync from here on, counted from 0.
    pub fn fail_at(&self, operation: u64) {
        self.0.lock().left = Some(operation);
    }

    /// Files are given so many bytes together from here on.
    pub fn limit(&self, room: Option<u64>) {
        self.0.lock().room = room;
    }

    /// Whether the process is dead of it.
    pub fn has_failed(&self) -> bool {
        self.0.lock().left == Some(0)
    }

    /// The process has died, and its machine goes on.
    pub fn revive(&self) {
        let mut image = self.0.lock();
        image.life += 1;
        image.left = None;
    }

    /// The process has died, and its machine with it.
    pub fn crash(&self, random: &mut StdRng) {
        let mut image = self.0.lock();
        let mut names = std::mem::take(&mut image.durable);
        for naming in std::mem::take(&mut image.unsynced) {
            if random.random() {
                naming.apply(&mut names);
            }
        }
        image.files.iter_mut().for_each(|file| file.crash(random));
        image.life += 1;
        image.left = None;
        image.seen.clone_from(&names);
        image.durable = names;
    }
}

impl Image {
    fn has_room_for(&self, number: Number, end: usize) -> io::Result<()> {
        let more = end.saturating_sub(self.files[number].seen.len());
        let used: usize = self.seen.values().map(|number| self.files[*number].seen.len()).sum();
        match self.room {
            Some(room) if more > 0 && (used + more) as u64 > room => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Naming {
    fn apply(self, names: &mut Names) {
        match self {
            Naming::Create(name, number) => drop(names.insert(name, number)),
            Naming::Rename(from, to) => drop(names.remove(&from).map(|number| names.insert(to, number))),
        }
    }
}

impl Content {
    fn crash(&mut self, random: &mut StdRng) {
        let mut content = std::mem::take(&mut self.durable);
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Length(bytes) if random.random() => content.resize(bytes as usize, 0),
                Change::Length(_) => {}
                Change::Write(offset, bytes) => lose_some(&mut content, offset, &bytes, random),
            }
        }
        self.seen.clone_from(&content);
        self.durable = content;
    }
}

/// Each sector of the disk that was written to is on it or is not.
fn lose_some(content: &mut Vec<u8>, offset: u64, bytes: &[u8], random: &mut StdRng) {
    let mut at = 0;
    while at < bytes.len() {
        let left = SECTOR - (offset as usize + at) % SECTOR;
        let sector = &bytes[at..bytes.len().min(at + left)];
        if random.random() {
            put(content, offset + at as u64, sector);
        }
        at += sector.len();
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

impl Opening {
    fn of_the_living<T>(&self, work: impl FnOnce(&mut Image) -> T) -> io::Result<T> {
        let mut image = self.machine.0.lock();
        match image.life == self.life && image.left != Some(0) {
            true => Ok(work(&mut image)),
            false => Err(io::Error::other("the process is dead")),
        }
    }

    fn change<T>(&self, work: impl FnOnce(&mut Image) -> T) -> io::Result<T> {
        self.of_the_living(|image| {
            image.left = image.left.map(|left| left - 1);
            work(image)
        })
    }

    fn handle(&self, number: Number) -> Box<dyn DiskFile> {
        Box::new(Handle { of: self.clone(), number })
    }
}

impl Disk for Opening {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        let number = self.of_the_living(|image| image.seen.get(name).copied())?;
        Ok(number.map(|number| self.handle(number)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let number = self.change(|image| match image.seen.get(name).copied() {
            Some(number) => {
                image.files[number].resize(0);
                number
            }
            None => {
                let number = image.files.len();
                image.files.push(Content::default());
                image.seen.insert(name.to_owned(), number);
                image.unsynced.push(Naming::Create(name.to_owned(), number));
                number
            }
        })?;
        Ok(self.handle(number))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|image| {
            let naming = || Naming::Rename(from.to_owned(), to.to_owned());
            naming().apply(&mut image.seen);
            image.unsynced.push(naming());
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|image| {
            image.durable.clone_from(&image.seen);
            image.unsynced.clear();
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl Content {
    fn resize(&mut self, bytes: u64) {
        self.seen.resize(bytes as usize, 0);
        self.unsynced.push(Change::Length(bytes));
    }
}

impl Handle {
    fn change(&self, work: impl FnOnce(&mut Content)) -> io::Result<()> {
        self.of.change(|image| work(&mut image.files[self.number]))
    }
}

impl DiskFile for Handle {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        self.of.of_the_living(|image| image.files[self.number].seen.clone())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        self.of.of_the_living(|image| image.has_room_for(self.number, end))??;
        self.change(|file| {
            put(&mut file.seen, offset, bytes);
            file.unsynced.push(Change::Write(offset, bytes.to_owned()));
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(|file| file.resize(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|file| {
            for change in std::mem::take(&mut file.unsynced) {
                match change {
                    Change::Length(bytes) => file.durable.resize(bytes as usize, 0),
                    Change::Write(offset, bytes) => put(&mut file.durable, offset, &bytes),
                }
            }
        })
    }
}
