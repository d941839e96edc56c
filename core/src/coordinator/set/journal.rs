//! This replica's part of the replicated log and its votes: in memory for those that read, and durable in a log of the same
//! kind as a single coordinator's.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, StorageIOError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::super::here;
use super::super::log::{Disk, Kept, Log};
use super::entry::{Entry, LogId, StorageError, Types, Vote};
use crate::error::{Error, Result};

/// A newer one is refused.
const VERSION: u32 = 1;

/// What is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    v: u32,
    vote: Option<Vote>,
    /// The last entry that a snapshot has taken the place of.
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

/// One change of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    Vote(Vote),
    Append(Entry),
    /// From this index on.
    Truncate(u64),
    /// Up to this one.
    Purge(LogId),
}

#[derive(Serialize, Deserialize)]
struct Record<C> {
    v: u32,
    c: C,
}

impl Held {
    fn new() -> Held {
        Held { v: VERSION, ..Held::default() }
    }

    /// Doing it a second time changes nothing: a snapshot may be ahead of the records behind it.
    fn apply(&mut self, change: Change) {
        match change {
            Change::Vote(vote) => self.vote = Some(vote),
            Change::Append(entry) => drop(self.entries.insert(entry.log_id.index, entry)),
            Change::Truncate(from) => drop(self.entries.split_off(&from)),
            Change::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(upto);
            }
        }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }
}

fn newer(what: &str, v: u32) -> Error {
    Error::invalid(format!("{what}: it has version {v}, this build reads up to {VERSION}"))
        .hint("it was written by a newer strata: run that version; nothing has been changed")
}

impl Kept for Held {
    type Record = Change;

    fn write(change: &Change, to: &mut Vec<u8>) {
        serde_json::to_writer(&mut *to, &Record { v: VERSION, c: change }).expect("changes are plain data");
        to.push(b'\n');
    }

    fn replay(&mut self, at: u64, line: &[u8]) -> Result<()> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let damaged = |error| Error::corrupt(format!("reading change {at} of the replicated log: {error}"));
        let Version { v } = serde_json::from_slice(line).map_err(damaged)?;
        if v > VERSION {
            return Err(newer(&format!("reading change {at} of the replicated log"), v));
        }
        let record: Record<Change> = serde_json::from_slice(line).map_err(damaged)?;
        self.apply(record.c);
        Ok(())
    }

    fn encode_into(&self, to: &mut dyn io::Write) -> io::Result<()> {
        serde_json::to_writer(to, self).map_err(io::Error::from)
    }

    fn decode(bytes: &[u8]) -> Result<Held> {
        let held: Held = serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("reading the replicated log: {error}")))?;
        if held.v > VERSION {
            return Err(newer("reading the replicated log", held.v));
        }
        Ok(held)
    }
}

/// All share one. Whoever writes waits for the disk; whoever reads does not.
#[derive(Clone)]
pub struct Journal {
    held: Arc<Mutex<Held>>,
    log: Arc<Mutex<Log<Held>>>,
}

impl Journal {
    /// Opens what is on the disk, or begins an empty one. Errors as [`Log::reopen`] and [`Log::create`] have them.
    pub fn open(disk: impl Fn() -> Result<Box<dyn Disk>>) -> Result<Journal> {
        let (log, held) = match Log::reopen(disk()?)? {
            Some(opened) => opened,
            None => {
                let held = Held::new();
                (Log::create(disk()?, 0, &held)?, held)
            }
        };
        Ok(Journal { held: Arc::new(Mutex::new(held)), log: Arc::new(Mutex::new(log)) })
    }

    pub fn vote(&self) -> Option<Vote> {
        self.held.lock().vote
    }

    /// Whether nothing was ever voted on or written here.
    pub fn is_pristine(&self) -> bool {
        let held = self.held.lock();
        held.vote.is_none() && held.last().is_none()
    }

    #[cfg(test)]
    pub fn held(&self) -> Held {
        self.held.lock().clone()
    }

    /// For the tests: where the log ends, and the term of the last vote.
    #[cfg(test)]
    pub fn ends(&self) -> (u64, u64) {
        let held = self.held.lock();
        let next = held.last().map_or(1, |last| last.index + 1);
        (next, held.vote.map_or(1, |vote| vote.leader_id.term))
    }

    /// Durable when it returns.
    pub fn write(&self, changes: Vec<Change>) -> Result<()> {
        {
            let mut held = self.held.lock();
            changes.iter().cloned().for_each(|change| held.apply(change));
        }
        here(|| {
            let mut log = self.log.lock();
            log.append(&changes)?;
            if log.wants_cut() {
                let held = self.held.lock().clone();
                log.cut(&held)?;
            }
            Ok(())
        })
    }
}

fn io(error: Error) -> std::io::Error {
    std::io::Error::other(error.to_string())
}

impl RaftLogReader<Types> for Journal {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.held.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for Journal {
    type LogReader = Journal;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let held = self.held.lock();
        Ok(LogState { last_purged_log_id: held.purged, last_log_id: held.last() })
    }

    async fn get_log_reader(&mut self) -> Journal {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = self.write(vec![Change::Vote(*vote)]);
        written.map_err(|error| StorageIOError::write_vote(&io(error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.vote())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let changes = entries.into_iter().map(Change::Append).collect();
        callback.log_io_completed(self.write(changes).map_err(io));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        let written = self.write(vec![Change::Truncate(from.index)]);
        written.map_err(|error| StorageIOError::write_logs(&io(error)).into())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let written = self.write(vec![Change::Purge(upto)]);
        written.map_err(|error| StorageIOError::write_logs(&io(error)).into())
    }
}
