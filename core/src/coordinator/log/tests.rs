//! The log as a whole: what a restart finds, after any crash and any damage.

use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

use super::machine::Machine;
use super::*;
use crate::coordinator::state::Command;
use crate::error::Kind;
use crate::torture_tests::Campaign;

pub fn notify(step: u64) -> Command {
    notify_of(step, format!("/p/{step}"))
}

pub fn notify_of(step: u64, path: String) -> Command {
    let (kind, rank) = (Default::default(), 0.into());
    Command::Notify { job: "j".parse().unwrap(), step: step.into(), kind, rank, path, bytes: step }
}

fn open(home: &Path) -> Result<(Log, State)> {
    Log::open(&Home::claim(home)?, ClusterId::new())
}

fn put(log: &mut Log, state: &mut State, batch: &[Command]) {
    batch.iter().for_each(|command| drop(state.apply(command).unwrap()));
    log.append(batch).unwrap();
}

#[test]
fn p7_replay_gives_the_same_bytes_with_and_without_a_cut() {
    let home = tempfile::tempdir().unwrap();
    let fresh = ClusterId::new();
    let (mut log, mut state) = Log::open(&Home::claim(home.path()).unwrap(), fresh).unwrap();
    for round in 0..6u64 {
        let batch: Vec<Command> = (0..=round).map(|i| notify(round * 10 + i)).collect();
        put(&mut log, &mut state, &batch);
        if round == 3 {
            log.cut(&state).unwrap();
        }
        drop(log);
        let replayed;
        (log, replayed) = open(home.path()).unwrap();
        assert_eq!(replayed.encode(), state.encode());
    }
    assert_eq!(state.cluster, fresh, "the cluster's identity is kept");
}

#[test]
fn what_a_person_removed_outlives_a_restart_with_and_without_a_cut() {
    let home = tempfile::tempdir().unwrap();
    let (mut log, mut state) = open(home.path()).unwrap();
    let job = || "j".parse().unwrap();
    let far = || ["far".to_owned()].into();
    let batch = [
        notify(1),
        Command::Doom { job: job(), step: 7.into(), targets: far() },
        Command::Doom { job: job(), step: 8.into(), targets: far() },
        Command::DoomEnded { job: job(), step: 7.into(), target: "far".into() },
    ];
    put(&mut log, &mut state, &batch);
    for _ in 0..2 {
        drop(log);
        let replayed;
        (log, replayed) = open(home.path()).unwrap();
        assert_eq!(replayed.encode(), state.encode());
        let known = replayed.job(&job()).unwrap();
        assert!(known.is_doomed("far", 8.into()) && !known.is_doomed("far", 7.into()));
        log.cut(&state).unwrap();
    }
}

#[test]
fn log_of_few_large_records_is_cut_too_and_does_not_stay_large() {
    let home = tempfile::tempdir().unwrap();
    let (mut log, mut state) = open(home.path()).unwrap();
    let (beat, mut beats) = (notify_of(1, "x".repeat(1 << 20)), 0);
    while !log.wants_cut() {
        put(&mut log, &mut state, std::slice::from_ref(&beat));
        beats += 1;
    }
    assert_eq!(beats, 64, "of 1 MiB each");
    log.cut(&state).unwrap();
    assert!(!log.wants_cut());
    put(&mut log, &mut state, &vec![beat; 140]);
    let records = home.path().join("coordinator/log/records");
    assert!(std::fs::metadata(&records).unwrap().len() > 140 << 20);
    log.cut(&state).unwrap();
    assert_eq!(std::fs::metadata(&records).unwrap().len(), 128 << 20);
    put(&mut log, &mut state, &[notify(2)]);
    drop(log);
    assert_eq!(open(home.path()).unwrap().1.encode(), state.encode());
}

/// A disk with a log whose process died at each of its writes and syncs in turn, and what a restart may find.
struct Story {
    machine: Machine,
    /// The state as of the last batch that was acknowledged, and of the one in whose write the process died.
    possible: Vec<State>,
    /// There has been a log.
    begun: bool,
    step: u64,
}

impl Story {
    /// Lives until a write fails, or for some turns.
    fn live(&mut self, random: &mut StdRng) -> Result<()> {
        let (mut log, mut state) = match Log::<State>::reopen(Box::new(self.machine.open()))? {
            Some((log, state)) => {
                let found = |known: &State| known.encode() == state.encode();
                assert!(self.possible.iter().any(found), "P7: another state than was durable");
                (log, state)
            }
            None => {
                assert!(!self.begun, "P7: the log is gone");
                let state = self.possible[0].clone();
                (Log::create(Box::new(self.machine.open()), 0, &state)?, state)
            }
        };
        self.possible = vec![state.clone()];
        self.begun = true;
        for _ in 0..random.random_range(1..12) {
            let batch = self.batch(random);
            batch.iter().for_each(|command| drop(state.apply(command).unwrap()));
            self.possible.push(state.clone());
            log.append(&batch)?;
            self.possible.remove(0);
            if random.random_ratio(1, 4) {
                log.cut(&state)?;
            }
        }
        Ok(())
    }

    /// Of one sector, of several, and now and then of more than the file grows by.
    fn batch(&mut self, random: &mut StdRng) -> Vec<Command> {
        let long = [3, 300, 3000, 50_000][random.random_range(0..4)];
        let count = random.random_range(1..4);
        let mut one = || {
            self.step += 1;
            notify_of(self.step, "x".repeat(random.random_range(0..long)))
        };
        (0..count).map(|_| one()).collect()
    }
}

#[test]
fn p7_acknowledged_batches_survive_a_crash_at_any_write() {
    let mut campaign = Campaign::new("log", 300);
    campaign.play(|campaign, random| {
        let possible =
            vec![State::new(ClusterId(uuid::Builder::from_random_bytes(random.random()).into_uuid()))];
        let mut story = Story { machine: Machine::default(), possible, begun: false, step: 0 };
        for _ in 0..8 {
            story.machine.fail_at(random.random_range(0..40));
            let lived = story.live(random);
            assert!(lived.is_ok() || story.machine.has_failed(), "{lived:?}");
            campaign.count(if lived.is_ok() { "lives that ended" } else { "lives that failed" });
            // Now and then it is killed and its machine goes on: what it has written is seen, and not durable.
            if random.random_ratio(3, 4) {
                story.machine.crash(random);
            } else {
                story.machine.revive();
            }
        }
    });
    campaign.held();
}

/// Batches in a home, the bytes of the files behind each and the states.
fn written(batches: &[&[Command]]) -> (tempfile::TempDir, PathBuf, Vec<State>, Vec<u64>) {
    let home = tempfile::tempdir().unwrap();
    let (mut log, mut state) = open(home.path()).unwrap();
    let (mut states, mut ends) = (vec![state.clone()], vec![0]);
    for batch in batches {
        put(&mut log, &mut state, batch);
        states.push(state.clone());
        ends.push(log.tail_bytes);
    }
    let records = home.path().join("coordinator/log/records");
    (home, records, states, ends)
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    all.sort();
    all
}

fn restore(all: &[(PathBuf, Vec<u8>)]) {
    all.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
}

#[test]
fn p7_file_cut_at_any_byte_holds_the_batches_before_it() {
    let batches: [&[Command]; 3] = [&[notify(1)], &[notify(2), notify(3)], &[notify(4)]];
    let (_home, records, states, ends) = written(&batches);
    let whole = std::fs::read(&records).unwrap();
    for at in 0..=ends[3] + 8 {
        let whole_batches = ends[1..].iter().filter(|end| **end <= at + 7).count();
        let kept = &whole[..at as usize];
        for torn in [kept.to_owned(), [kept, &vec![0; whole.len() - kept.len()]].concat()] {
            let (mut next, mut state) = (0, states[0].clone());
            records::replay(&torn, 1, &mut next, &mut state).unwrap();
            let found =
                states.iter().position(|known| *known == state).expect("batches are whole or not there");
            // The padding behind a batch's last record may be missing.
            let is_whole = found == whole_batches;
            assert!(is_whole || (found + 1 == whole_batches && ends[whole_batches] > at), "cut at {at}");
        }
    }
}

#[test]
fn damage_before_a_good_batch_is_corrupt_and_changes_nothing() {
    let batches: [&[Command]; 3] = [&[notify(1)], &[notify(2), notify(3)], &[notify(4)]];
    let (home, records, _, ends) = written(&batches);
    let before = files(records.parent().unwrap());
    for at in [ends[1], ends[1] + 4, ends[1] + 20, ends[1] + 33, ends[1] + 60, ends[2] - 10] {
        restore(&before);
        let mut damaged = std::fs::read(&records).unwrap();
        damaged[at as usize] ^= 0x40;
        std::fs::write(&records, &damaged).unwrap();
        let kept = files(records.parent().unwrap());
        let error = open(home.path()).err().unwrap();
        assert_eq!(error.kind, Kind::Corrupt);
        let named = [records.display().to_string(), format!("byte {}", ends[1]), format!("byte {}", ends[2])];
        assert!(named.iter().all(|named| error.message.contains(named)), "{error}");
        assert_eq!(files(records.parent().unwrap()), kept, "nothing is overwritten");
    }
    restore(&before);
    open(home.path()).unwrap();
}

#[test]
fn damaged_snapshot_and_missing_files_are_corrupt_never_an_empty_cluster() {
    let (home, records, states, _) = written(&[&[notify(1)]]);
    let before = files(records.parent().unwrap());
    let snapshot = records.with_file_name("snapshot");
    let bytes = std::fs::read(&snapshot).unwrap();
    for at in [0, 8, bytes.len() / 3, bytes.len() - 2] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&snapshot, damaged).unwrap();
        let error = open(home.path()).err().unwrap();
        assert_eq!((error.kind, error.message.contains("log/snapshot")), (Kind::Corrupt, true), "{error}");
    }
    for gone in [&snapshot, &records] {
        restore(&before);
        std::fs::remove_file(gone).unwrap();
        assert_eq!(open(home.path()).err().unwrap().kind, Kind::Corrupt);
    }
    restore(&before);
    assert_eq!(open(home.path()).unwrap().1.encode(), states[1].encode());
}

#[test]
fn newer_snapshot_is_refused() {
    let (home, records, ..) = written(&[]);
    let snapshot = records.with_file_name("snapshot");
    let text = std::fs::read_to_string(&snapshot).unwrap();
    std::fs::write(&snapshot, text.replacen("\"v\":1", "\"v\":2", 1)).unwrap();
    let error = open(home.path()).err().unwrap();
    assert_eq!((error.kind, error.hint.unwrap().contains("newer strata")), (Kind::Invalid, true));
}

#[test]
fn log_never_goes_on_after_a_write_that_failed() {
    for operation in 0..2 {
        let machine = Machine::default();
        let mut state = State::new(ClusterId::new());
        let mut log = Log::create(Box::new(machine.open()), 0, &state).unwrap();
        put(&mut log, &mut state, &[notify(1)]);
        machine.fail_at(operation);
        assert!(log.append(&[notify(2)]).is_err());
        // The disk comes back; what the failed write has left of it is not known.
        machine.fail_at(1000);
        assert_eq!(log.append(&[notify(3)]).unwrap_err().kind, Kind::Unavailable);
        assert_eq!(log.cut(&state).unwrap_err().kind, Kind::Unavailable);
    }
}

#[test]
fn full_disk_is_overloaded_before_anything_is_acknowledged_and_loses_nothing() {
    let machine = Machine::default();
    let mut state = State::new(ClusterId::new());
    let mut log = Log::create(Box::new(machine.open()), 0, &state).unwrap();
    machine.limit(Some(0));
    let error = (1..).find_map(|step| {
        let command = notify_of(step, "x".repeat(5000));
        let outcome = log.append(std::slice::from_ref(&command));
        outcome.is_ok().then(|| state.apply(&command).unwrap());
        outcome.err().map(|error| (step, error))
    });
    let (step, error) = error.unwrap();
    assert_eq!(step, 13, "what room there was is used: 64 KiB hold twelve such records");
    assert_eq!(error.kind, Kind::Overloaded);
    assert!(error.hint.as_ref().unwrap().contains("disk"), "{error}");
    drop(log);
    assert_eq!(Log::<State>::reopen(Box::new(machine.open())).err().unwrap().kind, Kind::Overloaded);
    machine.limit(None);
    let (_, found) = Log::<State>::reopen(Box::new(machine.open())).unwrap().unwrap();
    assert_eq!(found.encode(), state.encode());
}
