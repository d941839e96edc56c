//! A file of the cache while it is being fetched: under a temporary name and a lock, which falls with the process that has it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::{Errno, retry_on_intr};

use super::room::Room;
use super::settings::{CAP_SETTING, FOLDER_SETTING};
use crate::config::ByteSize;
use crate::error::{Doing, Error, Result};

const ENDING: &str = "part";
/// Between two looks whether others have made room.
const LOOK: Duration = Duration::from_millis(20);
/// A file of unknown length is given twice what it has, but no more than so much at once.
const LEAST_STEP: u64 = 1 << 20;
const LARGEST_STEP: u64 = 64 << 20;

pub struct Part<'a> {
    room: &'a Room,
    path: PathBuf,
    /// Of what is fetched, for messages.
    name: &'a Path,
    file: File,
    /// What it has of the cache's room, which is the file's length.
    pub reserved: u64,
    written: u64,
    /// It must begin anew: others have the room that it needs.
    pub is_crowded: bool,
    is_whole: bool,
}

pub fn is_part(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == ENDING)
}

/// Of a file that will be named by `stem` and more.
pub fn path(stem: &Path) -> PathBuf {
    stem.with_extension(ENDING)
}

/// Whether it was there and nobody is fetching it any more; then it is gone.
pub fn remove_dead(path: &Path) -> Result<bool> {
    let doing = || format!("removing {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.doing(doing)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        taken => taken.doing(doing)?,
    }
    let removed = if is_at(&file, path).doing(doing)? { remove(path) } else { Ok(()) };
    flock(&file, FlockOperation::Unlock).doing(doing)?;
    removed.map(|()| true)
}

/// One that is not there is removed.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.doing(|| format!("removing {}", path.display())),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(there) => {
            let own = file.metadata()?;
            Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
        }
    }
}

impl<'a> Part<'a> {
    /// Waits for whoever is fetching it. What a dead one left is begun anew.
    pub fn begin(room: &'a Room, path: PathBuf, name: &'a Path) -> Result<Part<'a>> {
        let doing = || format!("caching {} as {}", name.display(), path.display());
        loop {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.doing(doing)?;
            retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).doing(doing)?;
            // Under the lock nobody else renames or removes it, but somebody had it before.
            if is_at(&file, &path).doing(doing)? {
                room.resize(&file, 0)?;
                let (is_crowded, is_whole) = (false, false);
                return Ok(Part { room, path, name, file, reserved: 0, written: 0, is_crowded, is_whole });
            }
            flock(&file, FlockOperation::Unlock).doing(doing)?;
        }
    }

    /// Room for so many bytes in all. Waits for others that are being fetched, unless it has some itself: then it fails, crowded.
    ///
    /// Fails with Invalid for more than the cache may hold, Overloaded where the disk is full.
    pub fn reserve(&mut self, bytes: u64) -> Result<()> {
        let cap = self.room.cap();
        if bytes > cap {
            return Err(Error::invalid(format!(
                "caching {}: it takes {} and more, and the data cache at most {}",
                self.name.display(),
                ByteSize(bytes),
                ByteSize(cap)
            ))
            .hint(format!("raise {CAP_SETTING}")));
        }
        if bytes <= self.reserved {
            return Ok(());
        }
        while !self.room.resize(&self.file, bytes)? {
            if self.reserved > 0 {
                self.is_crowded = true;
                return Err(Error::overloaded(format!(
                    "caching {}: the data cache is full of files that are being fetched",
                    self.name.display()
                )));
            }
            thread::sleep(LOOK);
        }
        let before = std::mem::replace(&mut self.reserved, bytes);
        // The disk is asked now, so that a full one is found before anything is fetched.
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), before, bytes - before)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            outcome => outcome.map_err(|errno| self.failed(&errno.into())),
        }
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.written + bytes.len() as u64;
        if end > self.reserved {
            let step = self.reserved.clamp(LEAST_STEP, LARGEST_STEP);
            self.reserve((self.reserved + step).min(self.room.cap()).max(end))?;
        }
        self.file.write_all_at(bytes, self.written).map_err(|error| self.failed(&error))?;
        self.written = end;
        Ok(())
    }

    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts it in its place, whole. Atomic.
    pub fn finish(mut self, place: &Path) -> Result<File> {
        let file = self.file.try_clone().map_err(|error| self.failed(&error))?;
        self.room.settle(&self.file, self.written, &self.path, place)?;
        self.is_whole = true;
        Ok(file)
    }

    fn failed(&self, error: &io::Error) -> Error {
        let (name, folder) = (self.name.display(), self.room.folder.display());
        let failed = Error::io(format!("caching {name} in {folder}"), error);
        failed.hint(format!(
            "free space on that disk or move the cache: {FOLDER_SETTING}; {CAP_SETTING} bounds what it takes"
        ))
    }

    fn give_up(&mut self) -> Result<()> {
        if !self.is_whole {
            self.room.remove(&self.file, &self.path)?;
        }
        // By name: a forked child has the same open file, and would keep the lock.
        flock(&self.file, FlockOperation::Unlock).doing(|| format!("giving back {}", self.path.display()))
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.give_up() {
            tracing::warn!("a file that was not fetched whole: {error}");
        }
    }
}
