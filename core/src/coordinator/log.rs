//! The coordinator's log: accepted commands by index, and a checksummed snapshot behind which it is cut.
//!
//! One group commit per batch (`Durability::Immediate`: fsynced when `append` returns). Atomic: a batch is there whole
//! or not at all.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::state::{Command, State};
use crate::error::{Doing, Error, Kind, Result};
use crate::ids::ClusterId;

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");

/// Versions of records that this build reads: [`Command::version`] says which one a record has.
const RECORD_VERSION: u8 = 5;
/// Length of the BLAKE3 sum in front of a snapshot.
const SUM: usize = 32;
/// Records after which the log is cut: replaying them takes well under a second.
pub const CUT_AFTER: u64 = 8192;
/// The same for bytes: a beat of one of torchrun's agents holds what all of them know of each other.
const CUT_AFTER_BYTES: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Record<C> {
    v: u8,
    c: C,
}

pub struct Log {
    database: Database,
    /// Index of the next record.
    next: u64,
    /// Records behind the newest snapshot, and their bytes.
    tail: u64,
    tail_bytes: u64,
}

impl Log {
    /// Opens or creates the log in this folder and replays it. A new state gets `fresh` as its cluster.
    pub fn open(folder: &Path, fresh: ClusterId) -> Result<(Log, State)> {
        let path = folder.join("log.redb");
        let doing = || format!("opening the coordinator's log {}", path.display());
        let database = Database::create(&path).map_err(redb::Error::from).map_err(failed).doing(doing)?;
        Log::over(database, fresh).doing(doing)
    }

    /// The same over a database that is open.
    pub fn over(database: Database, fresh: ClusterId) -> Result<(Log, State)> {
        let mut log = Log { database, next: 0, tail: 0, tail_bytes: 0 };
        let state = match log.replay()? {
            Some(state) => state,
            None => {
                let state = State::new(fresh);
                log.cut(&state)?;
                state
            }
        };
        Ok((log, state))
    }

    fn replay(&mut self) -> Result<Option<State>> {
        let read = self.database.begin_read().map_err(redb::Error::from).map_err(failed)?;
        let snapshots = match read.open_table(SNAPSHOT) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let Some(newest) = snapshots.last().map_err(redb::Error::from).map_err(failed)? else {
            return Ok(None);
        };
        let (index, bytes) = (newest.0.value(), newest.1.value());
        if bytes.len() < SUM || blake3::hash(&bytes[SUM..]).as_bytes() != &bytes[..SUM] {
            return Err(Error::corrupt(format!("reading snapshot {index}: its checksum does not match")));
        }
        let mut state = State::decode(&bytes[SUM..])?;
        self.next = index;
        let records = read.open_table(RECORDS).map_err(redb::Error::from).map_err(failed)?;
        for entry in records.range(index..).map_err(redb::Error::from).map_err(failed)? {
            let (at, bytes) = entry.map_err(redb::Error::from).map_err(failed)?;
            let command = decode(at.value(), bytes.value())?;
            state.apply(&command).map_err(|error| {
                Error::corrupt(format!("replaying record {}: {}", at.value(), error.message))
            })?;
            self.next = at.value() + 1;
            self.tail += 1;
            self.tail_bytes += bytes.value().len() as u64;
        }
        Ok(Some(state))
    }

    /// Makes these commands durable, in order.
    pub fn append(&mut self, commands: &[Command]) -> Result<()> {
        let mut write = self.database.begin_write().map_err(redb::Error::from).map_err(failed)?;
        write.set_durability(Durability::Immediate).map_err(redb::Error::from).map_err(failed)?;
        let mut written = 0;
        {
            let mut records = write.open_table(RECORDS).map_err(redb::Error::from).map_err(failed)?;
            for (at, command) in (self.next..).zip(commands) {
                let record = Record { v: command.version(), c: command };
                let bytes = serde_json::to_vec(&record).expect("commands are plain data");
                written += bytes.len() as u64;
                records.insert(at, bytes.as_slice()).map_err(redb::Error::from).map_err(failed)?;
            }
        }
        write
            .commit()
            .map_err(redb::Error::from)
            .map_err(failed)
            .doing(|| "writing the coordinator's log")?;
        self.next += commands.len() as u64;
        self.tail += commands.len() as u64;
        self.tail_bytes += written;
        Ok(())
    }

    pub fn wants_cut(&self) -> bool {
        self.tail >= CUT_AFTER || self.tail_bytes >= CUT_AFTER_BYTES
    }

    /// Writes the state as of the last record and drops the records before it.
    pub fn cut(&mut self, state: &State) -> Result<()> {
        let body = state.encode();
        let mut bytes = blake3::hash(&body).as_bytes().to_vec();
        bytes.extend_from_slice(&body);
        let cut = || -> Result<(), redb::Error> {
            let mut write = self.database.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            {
                let mut snapshots = write.open_table(SNAPSHOT)?;
                snapshots.retain(|_, _| false)?;
                snapshots.insert(self.next, bytes.as_slice())?;
                write.open_table(RECORDS)?.retain(|_, _| false)?;
            }
            write.commit()?;
            Ok(())
        };
        cut().map_err(failed).doing(|| "writing the coordinator's snapshot")?;
        (self.tail, self.tail_bytes) = (0, 0);
        Ok(())
    }
}

fn decode(at: u64, bytes: &[u8]) -> Result<Command> {
    #[derive(Deserialize)]
    struct Version {
        v: u8,
    }
    let damaged = |error| Error::corrupt(format!("reading record {at}: {error}"));
    let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
    if v > RECORD_VERSION {
        return Err(Error::invalid(format!(
            "reading record {at}: it has version {v}, this build reads up to {RECORD_VERSION}"
        ))
        .hint("it was written by a newer strata: run that version; nothing has been changed"));
    }
    serde_json::from_slice::<Record<Command>>(bytes).map(|record| record.c).map_err(damaged)
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
mod tests {
    use super::*;

    fn notify(step: u64) -> Command {
        notify_of(step, format!("/p/{step}"))
    }

    fn notify_of(step: u64, path: String) -> Command {
        let (kind, rank) = (Default::default(), 0.into());
        Command::Notify { job: "j".parse().unwrap(), step: step.into(), kind, rank, path, bytes: step }
    }

    #[test]
    fn p7_replay_gives_the_same_bytes_with_and_without_a_cut() {
        let folder = tempfile::tempdir().unwrap();
        let fresh = ClusterId::new();
        let (mut log, mut state) = Log::open(folder.path(), fresh).unwrap();
        for round in 0..6u64 {
            let batch: Vec<Command> = (0..=round).map(|i| notify(round * 10 + i)).collect();
            for command in &batch {
                state.apply(command).unwrap();
            }
            log.append(&batch).unwrap();
            if round == 3 {
                log.cut(&state).unwrap();
            }
            drop(log);
            let replayed;
            (log, replayed) = Log::open(folder.path(), ClusterId::new()).unwrap();
            assert_eq!(replayed.encode(), state.encode());
        }
        assert_eq!(state.cluster, fresh, "the cluster's identity is kept");
    }

    const SNAPSHOT_V1: &[u8] = include_bytes!("golden/snapshot-v1.json");
    const RECORDS_V1: &str = include_str!("golden/records-v1.jsonl");

    #[test]
    fn what_a_build_before_dooms_wrote_loads_and_is_written_as_it_was() {
        let state = State::decode(SNAPSHOT_V1).unwrap();
        assert_eq!(state.jobs.len(), 1);
        assert_eq!(state.encode(), SNAPSHOT_V1.trim_ascii());
        let mut replayed = State::new(state.cluster);
        for (at, line) in (0u64..).zip(RECORDS_V1.lines()) {
            let command = decode(at, line.as_bytes()).unwrap();
            let again = serde_json::to_string(&Record { v: command.version(), c: &command }).unwrap();
            assert_eq!(again, line);
            replayed.apply(&command).unwrap();
        }
        // That build forgot what was removed.
        replayed.jobs.values_mut().for_each(|job| job.retired.clear());
        assert_eq!(replayed.encode(), state.encode());
    }

    const SNAPSHOT_V4: &[u8] = include_bytes!("golden/snapshot-v4.json");
    const RECORDS_V4: &str = include_str!("golden/records-v4.jsonl");

    #[test]
    fn records_of_a_rendezvous_load_and_are_written_as_they_were() {
        let state = State::decode(SNAPSHOT_V4).unwrap();
        assert_eq!(state.encode(), SNAPSHOT_V4.trim_ascii());
        let mut replayed = State::new(state.cluster);
        for (at, line) in (0u64..).zip(RECORDS_V4.lines()) {
            let command = decode(at, line.as_bytes()).unwrap();
            assert_eq!(command.version(), 4, "an older build refuses the log instead of losing a rendezvous");
            assert_eq!(serde_json::to_string(&Record { v: 4, c: &command }).unwrap(), line);
            replayed.apply(&command).unwrap();
        }
        assert_eq!(replayed.encode(), state.encode());
    }

    const LEDGER_V5: &str = include_str!("golden/ledger-v5.jsonl");

    #[test]
    fn records_of_a_ledger_load_and_are_written_as_they_were() {
        let mut state = State::new(ClusterId::new());
        for (at, line) in (0u64..).zip(LEDGER_V5.lines()) {
            let command = decode(at, line.as_bytes()).unwrap();
            assert_eq!(
                serde_json::to_string(&Record { v: command.version(), c: &command }).unwrap(),
                line,
                "record {at}"
            );
            state.apply(&command).unwrap();
        }
        let ledger = &state.job(&"j".parse().unwrap()).unwrap().ledger;
        assert_eq!((ledger.since_unix_ms, ledger.until_unix_ms), (1_795_910_400_000, 1_795_910_700_000));
        assert_eq!((ledger.losses, ledger.saves, ledger.reached), (1, 12, Some(40.into())));
        let spent: Vec<u64> = ledger.spent.values().copied().collect();
        assert_eq!((spent.len(), spent.iter().sum::<u64>()), (10, 5510));
    }

    const SNAPSHOT_V5: &[u8] = include_bytes!("golden/snapshot-v5.json");
    const RECORDS_V5: &str = include_str!("golden/records-v5.jsonl");

    #[test]
    fn records_of_steps_to_save_at_load_and_are_written_as_they_were() {
        let state = State::decode(SNAPSHOT_V5).unwrap();
        assert_eq!(state.encode(), SNAPSHOT_V5.trim_ascii());
        let mut replayed = State::new(state.cluster);
        for (at, line) in (0u64..).zip(RECORDS_V5.lines()) {
            let command = decode(at, line.as_bytes()).unwrap();
            assert_eq!(
                command.version(),
                5,
                "an older build would take a step to save at for one to stop at"
            );
            assert_eq!(serde_json::to_string(&Record { v: 5, c: &command }).unwrap(), line);
            replayed.apply(&command).unwrap();
        }
        assert_eq!(replayed.encode(), state.encode());
    }

    #[test]
    fn log_of_few_large_records_is_cut_too() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, mut state) = Log::open(folder.path(), ClusterId::new()).unwrap();
        let (beat, mut beats) = (notify_of(1, "x".repeat(1 << 20)), 0);
        while !log.wants_cut() {
            state.apply(&beat).unwrap();
            log.append(std::slice::from_ref(&beat)).unwrap();
            beats += 1;
            if beats == 10 {
                drop(log);
                log = Log::open(folder.path(), ClusterId::new()).unwrap().0;
            }
        }
        assert_eq!(beats, 64, "of 1 MiB each; a restart counts what it replays");
        log.cut(&state).unwrap();
        assert!(!log.wants_cut());
    }

    #[test]
    fn what_a_person_removed_outlives_a_restart_with_and_without_a_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, mut state) = Log::open(folder.path(), ClusterId::new()).unwrap();
        let job = || "j".parse().unwrap();
        let far = || ["far".to_owned()].into();
        let batch = [
            notify(1),
            Command::Doom { job: job(), step: 7.into(), targets: far() },
            Command::Doom { job: job(), step: 8.into(), targets: far() },
            Command::DoomEnded { job: job(), step: 7.into(), target: "far".into() },
        ];
        batch.iter().for_each(|command| drop(state.apply(command).unwrap()));
        log.append(&batch).unwrap();
        for _ in 0..2 {
            drop(log);
            let replayed;
            (log, replayed) = Log::open(folder.path(), ClusterId::new()).unwrap();
            assert_eq!(replayed.encode(), state.encode());
            let known = replayed.job(&job()).unwrap();
            assert!(known.is_doomed("far", 8.into()) && !known.is_doomed("far", 7.into()));
            log.cut(&state).unwrap();
        }
    }

    #[test]
    fn damaged_snapshot_is_corrupt_and_a_newer_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, state) = Log::open(folder.path(), ClusterId::new()).unwrap();
        log.cut(&state).unwrap();
        let write = log.database.begin_write().unwrap();
        write.open_table(RECORDS).unwrap().insert(log.next, br#"{"v":9,"c":{}}"#.as_slice()).unwrap();
        write.commit().unwrap();
        drop(log);
        let error = Log::open(folder.path(), ClusterId::new()).err().unwrap();
        assert_eq!(error.kind, Kind::Invalid);

        let log = Log {
            database: Database::create(folder.path().join("log.redb")).unwrap(),
            next: 0,
            tail: 0,
            tail_bytes: 0,
        };
        let write = log.database.begin_write().unwrap();
        write.open_table(SNAPSHOT).unwrap().insert(5, [7u8; 40].as_slice()).unwrap();
        write.commit().unwrap();
        drop(log);
        assert_eq!(Log::open(folder.path(), ClusterId::new()).err().unwrap().kind, Kind::Corrupt);
    }
}
