//! The log of an earlier format, `log.redb`: read once, whole. It is removed when what is in it is durable in this one.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::super::state::State;
use super::record;
use crate::error::{Doing, Error, Kind, Result};

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");
/// Length of the BLAKE3 sum in front of a snapshot.
const SUM: usize = 32;

/// What the log had come to.
pub struct Old {
    pub next: u64,
    pub state: State,
}

fn path(folder: &Path) -> PathBuf {
    folder.join("log.redb")
}

/// None: there is none, or a crash has left it before it held anything.
pub fn read(folder: &Path) -> Result<Option<Old>> {
    let path = path(folder);
    if !path.try_exists().doing(|| format!("looking for {}", path.display()))? {
        return Ok(None);
    }
    // An empty file is one that redb was about to begin, and would begin.
    let database = Database::create(&path).map_err(redb::Error::from).map_err(failed);
    database.and_then(|database| replay(&database)).doing(|| format!("taking over {}", path.display()))
}

fn replay(database: &Database) -> Result<Option<Old>> {
    let read = database.begin_read().map_err(redb::Error::from).map_err(failed)?;
    let snapshots = match read.open_table(SNAPSHOT) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(failed(error.into())),
    };
    let Some(newest) = snapshots.last().map_err(redb::Error::from).map_err(failed)? else { return Ok(None) };
    let (index, bytes) = (newest.0.value(), newest.1.value());
    if bytes.len() < SUM || blake3::hash(&bytes[SUM..]).as_bytes() != &bytes[..SUM] {
        return Err(Error::corrupt(format!("reading snapshot {index}: its checksum does not match")));
    }
    let mut old = Old { next: index, state: State::decode(&bytes[SUM..])? };
    let records = read.open_table(RECORDS).map_err(redb::Error::from).map_err(failed)?;
    for entry in records.range(index..).map_err(redb::Error::from).map_err(failed)? {
        let (at, bytes) = entry.map_err(redb::Error::from).map_err(failed)?;
        let command = record::decode(at.value(), bytes.value())?;
        let refused =
            |error: Error| Error::corrupt(format!("replaying record {}: {}", at.value(), error.message));
        old.state.apply(&command).map_err(refused)?;
        old.next = at.value() + 1;
    }
    Ok(Some(old))
}

/// Removes it, durably; nothing where there is none.
pub fn forget(folder: &Path) -> Result<()> {
    let path = path(folder);
    match std::fs::remove_file(&path) {
        Ok(()) => std::fs::File::open(folder).and_then(|folder| folder.sync_all()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .doing(|| format!("removing {}, which has been taken over", path.display()))
}

fn failed(error: redb::Error) -> Error {
    let kind = match &error {
        redb::Error::DatabaseAlreadyOpen => Kind::Conflict,
        redb::Error::Corrupted(_) => Kind::Corrupt,
        redb::Error::Io(io) => return Error::io("the log's file", io),
        _ => Kind::Internal,
    };
    Error::new(kind, error.to_string())
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
