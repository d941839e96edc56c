//! The cache's folder: a file for each thing that was fetched, named by its key and its length.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens, statvfs};

use super::origin::Key;
use super::part::{self, Part};
use super::room::Room;
use super::settings::{FOLDER_SETTING, Settings};
use crate::config::locate;
use crate::error::{Doing, Error, Result};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Of the disk, where no setting says how much.
const SHARE: u64 = 5;

#[derive(Debug)]
pub struct NodeCache {
    room: Room,
}

/// A file of the cache, or one that is read where it lies.
#[derive(Debug)]
pub struct Fetched {
    /// Stays readable when it is removed from the cache.
    pub file: File,
    pub path: PathBuf,
}

impl NodeCache {
    /// Makes the folder where there is none. What was written before the machine was started is removed: it was never synced.
    ///
    /// Fails with Invalid on a network file system.
    pub fn open(settings: &Settings) -> Result<NodeCache> {
        let folder = &settings.folder;
        let doing = || format!("opening the data cache {}", folder.display());
        let hint =
            |error: Error| error.hint(format!("set {FOLDER_SETTING} to a folder of yours on a local disk"));
        let make = |folder: &Path| DirBuilder::new().recursive(true).mode(0o700).create(folder);
        make(folder).doing(doing).map_err(hint)?;
        locate::refuse_network(folder, "the data cache", FOLDER_SETTING)?;
        let boot = fs::read_to_string(BOOT).doing(|| format!("reading {BOOT}"))?;
        let own = folder.join(format!("boot-{}", boot.trim()));
        if !own.is_dir() {
            make(&own).doing(doing).map_err(hint)?;
            remove_others(folder, &own).doing(doing).map_err(hint)?;
        }
        let cap = match settings.cap {
            Some(cap) => cap,
            None => usual_cap(&own).doing(doing)?,
        };
        Ok(NodeCache { room: Room::new(own, cap) })
    }

    pub fn cap(&self) -> u64 {
        self.room.cap()
    }

    /// The file of this key, whole, if it is there: from now on the one that was used last.
    pub fn find(&self, key: Key) -> Result<Option<Fetched>> {
        for (path, bytes) in self.entries(key)? {
            let doing = || format!("opening {}", path.display());
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.doing(doing)?,
            };
            if file.metadata().doing(doing)?.len() == bytes {
                touch(&file).doing(doing)?;
                return Ok(Some(Fetched { file, path }));
            }
        }
        Ok(None)
    }

    /// The file of this key; where there is none `fill` fetches it, in one process and thread at a time. `fill` may be called again.
    ///
    /// Fails as `fill` does, with Invalid where it is larger than the whole cache, and Overloaded where the disk is full: then
    /// nothing of it stays.
    pub fn entry(&self, key: Key, name: &Path, fill: &dyn Fn(&mut Part) -> Result<()>) -> Result<Fetched> {
        let mut least = 0;
        loop {
            if let Some(found) = self.find(key)? {
                return Ok(found);
            }
            let stem = self.stem(key);
            let shard = stem.parent().expect("it lies in a folder");
            let doing = || format!("making {}", shard.display());
            DirBuilder::new().recursive(true).mode(0o700).create(shard).doing(doing)?;
            let mut part = Part::begin(&self.room, part::path(&stem), name)?;
            // Whoever had the lock before may have fetched it.
            if let Some(found) = self.find(key)? {
                return Ok(found);
            }
            for (damaged, _) in self.entries(key)? {
                part::remove(&damaged)?;
            }
            part.reserve(least)?;
            match fill(&mut part) {
                Ok(()) => {
                    let path = PathBuf::from(format!("{}-{}", stem.display(), part.written()));
                    return Ok(Fetched { file: part.finish(&path)?, path });
                }
                // With all its room from the beginning it waits for nobody once it has begun.
                Err(_) if part.is_crowded => least = (2 * part.reserved).min(self.room.cap()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Two digits are a folder, so that none has too many files.
    fn stem(&self, key: Key) -> PathBuf {
        let digits = format!("{:032x}", key.0);
        let (shard, rest) = digits.split_at(2);
        self.room.folder.join(shard).join(rest)
    }

    /// Files of this key, and how long they must be.
    fn entries(&self, key: Key) -> Result<Vec<(PathBuf, u64)>> {
        let stem = self.stem(key);
        let (shard, stem) =
            (stem.parent().expect("it lies in a folder"), stem.file_name().expect("it has one"));
        let doing = || format!("looking into {}", shard.display());
        let listed = match fs::read_dir(shard) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.doing(doing)?,
        };
        let mut entries = Vec::new();
        for entry in listed {
            let name = entry.doing(doing)?.file_name();
            let Some((key, bytes)) = name.to_str().and_then(|name| name.split_once('-')) else { continue };
            if stem == key {
                // A number that can't be read is no file's length.
                entries.push((shard.join(&name), bytes.parse().unwrap_or(u64::MAX)));
            }
        }
        Ok(entries)
    }
}

fn touch(file: &File) -> rustix::io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    futimens(file, &Timestamps { last_access: now, last_modification: now })
}

fn usual_cap(folder: &Path) -> rustix::io::Result<u64> {
    let disk = statvfs(folder)?;
    let (whole, free) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
    Ok((whole / SHARE).min((free + Room::taken(folder)) / 2))
}

/// Of earlier boots.
fn remove_others(folder: &Path, own: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("boot-"));
        if !is_ours || path == own {
            continue;
        }
        match fs::remove_dir_all(&path) {
            // Another process removes the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
    }
    Ok(())
}
