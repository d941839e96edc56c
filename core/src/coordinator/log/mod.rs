//! The coordinator's log: accepted commands by index, and a checksummed snapshot behind which it is cut. Called by the
//! engine's loop and at start. It never goes on after a write that failed, and never overwrites what it can't read.
//!
//! `record` is one command as JSON, `batch` the bytes that are there whole or not at all, `records` their file, `snapshot` the state
//! in another, `disk` what all that is written to, `kept` what may be kept so, `takeover` the log of an earlier format.

mod batch;
mod disk;
mod kept;
#[cfg(test)]
pub mod machine;
mod record;
mod records;
pub mod snapshot;
mod takeover;

use std::marker::PhantomData;

pub use disk::{Disk, Folder};
pub use kept::Kept;
pub use record::decode as decode_record;

use self::records::Records;
use super::home::Home;
use super::state::State;
use crate::error::{Doing, Error, Kind, Result};
use crate::ids::ClusterId;

/// Records after which the log is cut: replaying them takes under a second.
const CUT_AFTER: u64 = 32_768;
/// The same for bytes: a beat of one of torchrun's agents holds what all of them know of each other.
const CUT_AFTER_BYTES: u64 = 64 << 20;

pub struct Log<S = State> {
    disk: Box<dyn Disk>,
    records: Records,
    life: u64,
    /// Index of the next record.
    next: u64,
    /// Records behind the newest snapshot, and their bytes.
    tail: u64,
    tail_bytes: u64,
    /// A write has failed: what is on the disk is not known any more.
    broken: bool,
    state: PhantomData<fn(S)>,
}

impl Log {
    /// Opens or creates the log of this home and replays it; takes over one of an earlier format. A new state gets `fresh` as
    /// its cluster. Corrupt for damage that no crash leaves, Invalid for records of a newer version; nothing is changed then.
    pub fn open(home: &Home, fresh: ClusterId) -> Result<(Log, State)> {
        let path = home.folder.join("log");
        let doing = || format!("opening the coordinator's log {}", path.display());
        let disk = || Folder::open(&path).doing(doing).map(Box::new);
        if home.is_current() {
            let lost = || Error::corrupt("its snapshot is missing, though it was there").while_doing(doing());
            let opened = Log::reopen(disk()?).doing(doing)?.ok_or_else(lost)?;
            takeover::forget(&home.folder)?;
            return Ok(opened);
        }
        let (next, state) = match takeover::read(&home.folder)? {
            Some(old) => (old.next, old.state),
            None => (0, State::new(fresh)),
        };
        // What may lie there is of a start that did not get as far as the next line but one: it holds nothing of its own.
        let log = Log::create(disk()?, next, &state).doing(doing)?;
        home.make_current()?;
        takeover::forget(&home.folder)?;
        Ok((log, state))
    }
}

impl<S: Kept> Log<S> {
    /// A log that begins with this state, in place of whatever is there.
    pub fn create(disk: Box<dyn Disk>, next: u64, state: &S) -> Result<Log<S>> {
        let records = Records::create(&*disk)?;
        let mut log =
            Log { disk, records, life: 0, next, tail: 0, tail_bytes: 0, broken: false, state: PhantomData };
        log.begin_life(state)?;
        Ok(log)
    }

    /// Replays the log that is there; None: there is none.
    pub fn reopen(disk: Box<dyn Disk>) -> Result<Option<(Log<S>, S)>> {
        let Some(found) = snapshot::read(&*disk)? else { return Ok(None) };
        let (life, mut next, mut state) = (found.life, found.next, found.state);
        let records = Records::open(&*disk, life, &mut next, &mut state)?;
        let mut log =
            Log { disk, records, life, next, tail: 0, tail_bytes: 0, broken: false, state: PhantomData };
        log.begin_life(&state)?;
        Ok(Some((log, state)))
    }

    /// What was read may be in the page cache alone, if the process before died between a write and its sync, or of a sync
    /// that failed. A snapshot of it makes it durable before anybody acts on it, and ends a torn batch.
    fn begin_life(&mut self, state: &S) -> Result<()> {
        self.life += 1;
        self.write_snapshot(state)
    }

    /// Makes these records durable, in order, all or none.
    pub fn append(&mut self, records: &[S::Record]) -> Result<()> {
        self.unless_broken()?;
        self.broken = true;
        let bytes = self.records.append::<S>(self.life, self.next, records).map_err(full)?;
        self.broken = false;
        self.next += records.len() as u64;
        self.tail += records.len() as u64;
        self.tail_bytes += bytes;
        Ok(())
    }

    pub fn wants_cut(&self) -> bool {
        self.tail >= CUT_AFTER || self.tail_bytes >= CUT_AFTER_BYTES
    }

    /// Writes the state as of the last record and drops the records before it.
    pub fn cut(&mut self, state: &S) -> Result<()> {
        self.unless_broken()?;
        match self.tail {
            0 => Ok(()),
            _ => self.write_snapshot(state),
        }
    }

    fn write_snapshot(&mut self, state: &S) -> Result<()> {
        self.broken = true;
        snapshot::write(&*self.disk, self.life, self.next, state).map_err(full)?;
        self.records.restart()?;
        self.broken = false;
        (self.tail, self.tail_bytes) = (0, 0);
        Ok(())
    }

    fn unless_broken(&self) -> Result<()> {
        match self.broken {
            false => Ok(()),
            true => Err(Error::unavailable("writing the coordinator's log: a write has failed before")
                .hint("start the coordinator again: it goes on from what is durable")),
        }
    }
}

fn full(error: Error) -> Error {
    match error.kind {
        Kind::Overloaded => error.hint("the disk of STRATA_HOME is full: nothing that was acknowledged is lost; make room and start the coordinator again"),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
