//! The file of the batches behind the newest snapshot. Its bytes are written before they are needed, with zeros, and written over
//! from the front after each snapshot: an append changes neither length nor allocation, so that its fdatasync waits for the
//! disk alone, and finds room on a full one.

use std::path::PathBuf;

use super::Kept;
use super::batch::{self, Walk};
use super::disk::{Disk, DiskFile};
use crate::error::{Doing, Error, Result};

const NAME: &str = "records";
/// What the file grows by: 5 ms on a disk that writes 1 GB/s, some 8,000 registrations. In tests it grows often.
pub const STEP: u64 = if cfg!(test) { 64 << 10 } else { 4 << 20 };
/// A file that one large batch has made longer than this is shortened to it.
const KEPT: u64 = 128 << 20;
/// Zeros that are written at once.
const ZEROS: &[u8] = &[0; 1 << 20];
/// What a batch's buffer may keep for the next one.
const BUFFER: usize = 1 << 20;

pub struct Records {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// Bytes that are written, durably.
    room: u64,
    /// Where the next batch begins.
    end: u64,
    buffer: Vec<u8>,
}

impl Records {
    /// An empty one in place of any that is there; durable.
    pub fn create(disk: &dyn Disk) -> Result<Records> {
        let path = disk.path(NAME);
        let file = disk.create(NAME).doing(|| format!("making {}", path.display()))?;
        let mut records = Records { file, path, room: 0, end: 0, buffer: Vec::new() };
        records.make_room(STEP)?;
        disk.sync().doing(|| format!("making {}", records.path.display()))?;
        Ok(records)
    }

    /// Applies what follows the record before `next` in this life of the log to the state, and returns the index behind. The file is as
    /// it was; [`Records::restart`] has it written to from the front.
    pub fn open(disk: &dyn Disk, life: u64, next: &mut u64, state: &mut impl Kept) -> Result<Records> {
        let path = disk.path(NAME);
        let doing = || format!("reading {}", path.display());
        let Some(mut file) = disk.open(NAME).doing(doing)? else {
            return Err(
                Error::corrupt("it is missing, though there is a snapshot beside it").while_doing(doing())
            );
        };
        let bytes = file.read().doing(doing)?;
        replay(&bytes, life, next, state).doing(doing)?;
        let room = bytes.len() as u64;
        Ok(Records { file, path, room, end: room, buffer: Vec::new() })
    }

    /// Makes the batch durable; returns its bytes.
    pub fn append<S: Kept>(&mut self, life: u64, index: u64, records: &[S::Record]) -> Result<u64> {
        let mut buffer = std::mem::take(&mut self.buffer);
        batch::encode::<S>(life, index, records, &mut buffer);
        let bytes = buffer.len() as u64;
        self.make_room(self.end + bytes)?;
        let write = || {
            self.file.write(self.end, &buffer)?;
            self.file.sync()
        };
        write().doing(|| format!("writing {}", self.path.display()))?;
        self.end += bytes;
        buffer.shrink_to(BUFFER);
        self.buffer = buffer;
        Ok(bytes)
    }

    /// The next batch is written at the front: what is there is in a durable snapshot.
    pub fn restart(&mut self) -> Result<()> {
        self.end = 0;
        if self.room > KEPT {
            let shorten = || {
                self.file.set_len(KEPT)?;
                self.file.sync()
            };
            shorten().doing(|| format!("shortening {}", self.path.display()))?;
            self.room = KEPT;
        }
        Ok(())
    }

    fn make_room(&mut self, end: u64) -> Result<()> {
        if end <= self.room {
            return Ok(());
        }
        let room = end.next_multiple_of(STEP);
        let grow = || {
            for at in (self.room..room).step_by(ZEROS.len()) {
                self.file.write(at, &ZEROS[..ZEROS.len().min((room - at) as usize)])?;
            }
            self.file.sync()
        };
        grow().doing(|| format!("growing {} to {} MiB", self.path.display(), room >> 20))?;
        self.room = room;
        Ok(())
    }
}

pub fn replay(bytes: &[u8], life: u64, next: &mut u64, state: &mut impl Kept) -> Result<()> {
    let mut walk = Walk::new(bytes, life, *next);
    for batch in walk.by_ref() {
        for (at, line) in batch.lines() {
            state.replay(at, line)?;
        }
        *next = batch.next();
    }
    match walk.gap() {
        None => Ok(()),
        Some(gap) => Err(Error::corrupt(format!(
            "record {next} at byte {} is damaged: record {} at byte {} behind it is whole",
            gap.bad, gap.index, gap.good
        ))
        .hint("nothing has been changed; bring the file back from a copy of the disk, or move the folder away for a new cluster")),
    }
}
