//! What the cache's files take together, and which of them go when that would be too much.
//!
//! One number in a file, under its lock, says what they take, those included that are being fetched: with what they may come to. It is
//! never too small, however a process ends, since it grows before a file does; where it says too much the files are looked at.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::part;
use crate::error::{Doing, Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

const LEDGER: &str = "taken";
/// Files take whole blocks.
const BLOCK: u64 = 4096;
/// With files so small beside the cache that looking at all of them costs more than fetching one, so many go at once.
const SMALL: u64 = 1024;
const AT_ONCE: u64 = 64;

#[derive(Debug)]
pub struct Room {
    pub folder: PathBuf,
    cap: u64,
}

/// Every change of a file that counts is made under the ledger's lock, so that who looks at all of them sees none twice and misses none.
impl Room {
    pub fn new(folder: PathBuf, cap: u64) -> Room {
        Room { folder, cap: cap / BLOCK * BLOCK }
    }

    /// The most that one file may have, and all together.
    pub fn cap(&self) -> u64 {
        self.cap
    }

    /// Makes a file that is being fetched so long, which is no more than the cap; where it grows, the files that were used least recently go.
    /// False: others that are being fetched leave no room yet, and nothing has changed.
    pub fn resize(&self, file: &File, after: u64) -> Result<bool> {
        let doing = || format!("changing the length of a file in {}", self.folder.display());
        let ledger = Ledger::lock(&self.folder)?;
        let before = file.metadata().doing(doing)?.len();
        if after <= before {
            file.set_len(after).doing(doing)?;
            ledger.release(cost(before) - cost(after))?;
            return Ok(true);
        }
        let more = cost(after) - cost(before);
        let total = match ledger.read()? {
            Some(total) if total.saturating_add(more) <= self.cap => total,
            _ => self.make_room(more)?,
        };
        let has_room = total.saturating_add(more) <= self.cap;
        ledger.write(if has_room { total + more } else { total })?;
        if has_room {
            file.set_len(after).doing(doing)?;
        }
        Ok(has_room)
    }

    /// Puts a file that was fetched in its place, with its length.
    pub fn settle(&self, file: &File, bytes: u64, path: &Path, place: &Path) -> Result<()> {
        let doing = || format!("naming {}", place.display());
        let ledger = Ledger::lock(&self.folder)?;
        let before = file.metadata().doing(doing)?.len();
        file.set_len(bytes).doing(doing)?;
        fs::rename(path, place).doing(doing)?;
        ledger.release(cost(before).saturating_sub(cost(bytes)))
    }

    /// Removes a file that was not fetched whole.
    pub fn remove(&self, file: &File, path: &Path) -> Result<()> {
        let ledger = Ledger::lock(&self.folder)?;
        let bytes = file.metadata().doing(|| format!("removing {}", path.display()))?.len();
        part::remove(path)?;
        ledger.release(cost(bytes))
    }

    /// What the files of a folder take as far as is known; a look without waiting.
    pub fn taken(folder: &Path) -> u64 {
        let text = fs::read_to_string(folder.join(LEDGER)).ok();
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// What all take once enough has gone, or all that may.
    fn make_room(&self, wanted: u64) -> Result<u64> {
        let (mut entries, mut total) = self.survey()?;
        entries.sort_unstable_by_key(|entry| entry.used);
        let more = if wanted < self.cap / SMALL { wanted * (AT_ONCE - 1) } else { 0 };
        let most = self.cap.saturating_sub(wanted);
        let aim = if total <= most { most } else { most - more };
        for entry in entries {
            if total <= aim {
                break;
            }
            part::remove(&entry.path)?;
            total -= entry.cost;
        }
        Ok(total)
    }

    /// The whole files, and what they and those that are being fetched take. What dead processes were fetching is removed.
    fn survey(&self) -> Result<(Vec<Entry>, u64)> {
        let doing = || format!("looking at the data cache {}", self.folder.display());
        let (mut entries, mut total) = (Vec::new(), 0);
        for shard in fs::read_dir(&self.folder).doing(doing)? {
            let shard = shard.doing(doing)?.path();
            if !shard.is_dir() {
                continue;
            }
            for found in fs::read_dir(&shard).doing(doing)? {
                let path = found.doing(doing)?.path();
                let about = match fs::metadata(&path) {
                    Ok(about) => about,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(Error::io(doing(), &error)),
                };
                let cost = cost(about.len());
                if !part::is_part(&path) {
                    entries.push(Entry { path, cost, used: about.modified().doing(doing)? });
                } else if part::remove_dead(&path)? {
                    continue;
                }
                total += cost;
            }
        }
        Ok((entries, total))
    }
}

struct Entry {
    path: PathBuf,
    cost: u64,
    used: SystemTime,
}

pub fn cost(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

/// The file with the number; dropped, its lock is free, also where a forked child has it open.
struct Ledger {
    file: File,
    path: PathBuf,
}

impl Ledger {
    fn lock(folder: &Path) -> Result<Ledger> {
        let path = folder.join(LEDGER);
        let doing = || format!("locking {}", path.display());
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.doing(doing)?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).doing(doing)?;
        Ok(Ledger { file, path })
    }

    /// None: it is new, or a write was cut off.
    fn read(&self) -> Result<Option<u64>> {
        let mut text = [0; 21];
        let read = self.file.read_at(&mut text, 0).doing(|| format!("reading {}", self.path.display()))?;
        let text = std::str::from_utf8(&text[..read]).ok().and_then(|text| text.strip_suffix('\n'));
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Where it can't be read it is found out when somebody needs room.
    fn release(&self, bytes: u64) -> Result<()> {
        match self.read()? {
            Some(total) => self.write(total.saturating_sub(bytes)),
            None => Ok(()),
        }
    }

    /// Always of one length, so that no write leaves a part of another behind.
    fn write(&self, total: u64) -> Result<()> {
        let text = format!("{total:020}\n");
        self.file.write_all_at(text.as_bytes(), 0).doing(|| format!("writing {}", self.path.display()))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!("giving back {}: {error}", self.path.display());
        }
    }
}
