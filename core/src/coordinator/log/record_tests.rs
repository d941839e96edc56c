//! What earlier builds wrote loads, and is written as it was.

use super::super::super::state::{Command, State};
use super::{decode, encode};
use crate::error::Kind;
use crate::ids::ClusterId;

fn written(command: &Command) -> String {
    let mut bytes = Vec::new();
    encode(command, &mut bytes);
    assert_eq!(bytes.pop(), Some(b'\n'));
    assert!(!bytes.contains(&b'\n'), "a record is one line");
    String::from_utf8(bytes).unwrap()
}

#[test]
fn newer_record_is_refused() {
    let error = decode(7, br#"{"v":9,"c":{}}"#).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("record 7") && error.hint.unwrap().contains("newer strata"));
    assert_eq!(decode(7, br#"{"v":1,"c":{}}"#).unwrap_err().kind, Kind::Corrupt);
}

const SNAPSHOT_V1: &[u8] = include_bytes!("../golden/snapshot-v1.json");
const RECORDS_V1: &str = include_str!("../golden/records-v1.jsonl");

#[test]
fn what_a_build_before_dooms_wrote_loads_and_is_written_as_it_was() {
    let state = State::decode(SNAPSHOT_V1).unwrap();
    assert_eq!(state.jobs.len(), 1);
    assert_eq!(state.encode(), SNAPSHOT_V1.trim_ascii());
    let mut replayed = State::new(state.cluster);
    for (at, line) in (0u64..).zip(RECORDS_V1.lines()) {
        let command = decode(at, line.as_bytes()).unwrap();
        assert_eq!(written(&command), line);
        replayed.apply(&command).unwrap();
    }
    // That build forgot what was removed.
    replayed.jobs.values_mut().for_each(|job| job.retired.clear());
    assert_eq!(replayed.encode(), state.encode());
}

const SNAPSHOT_V4: &[u8] = include_bytes!("../golden/snapshot-v4.json");
const RECORDS_V4: &str = include_str!("../golden/records-v4.jsonl");

#[test]
fn records_of_a_rendezvous_load_and_are_written_as_they_were() {
    let state = State::decode(SNAPSHOT_V4).unwrap();
    assert_eq!(state.encode(), SNAPSHOT_V4.trim_ascii());
    let mut replayed = State::new(state.cluster);
    for (at, line) in (0u64..).zip(RECORDS_V4.lines()) {
        let command = decode(at, line.as_bytes()).unwrap();
        assert_eq!(command.version(), 4, "an older build refuses the log instead of losing a rendezvous");
        assert_eq!(written(&command), line);
        replayed.apply(&command).unwrap();
    }
    assert_eq!(replayed.encode(), state.encode());
}

const LEDGER_V5: &str = include_str!("../golden/ledger-v5.jsonl");

#[test]
fn records_of_a_ledger_load_and_are_written_as_they_were() {
    let mut state = State::new(ClusterId::new());
    for (at, line) in (0u64..).zip(LEDGER_V5.lines()) {
        let command = decode(at, line.as_bytes()).unwrap();
        assert_eq!(written(&command), line, "record {at}");
        state.apply(&command).unwrap();
    }
    let ledger = &state.job(&"j".parse().unwrap()).unwrap().ledger;
    assert_eq!((ledger.since_unix_ms, ledger.until_unix_ms), (1_795_910_400_000, 1_795_910_700_000));
    assert_eq!((ledger.losses, ledger.saves, ledger.reached), (1, 12, Some(40.into())));
    let spent: Vec<u64> = ledger.spent.values().copied().collect();
    assert_eq!((spent.len(), spent.iter().sum::<u64>()), (10, 5510));
}

const SNAPSHOT_V5: &[u8] = include_bytes!("../golden/snapshot-v5.json");
const RECORDS_V5: &str = include_str!("../golden/records-v5.jsonl");

#[test]
fn records_of_steps_to_save_at_load_and_are_written_as_they_were() {
    let state = State::decode(SNAPSHOT_V5).unwrap();
    assert_eq!(state.encode(), SNAPSHOT_V5.trim_ascii());
    let mut replayed = State::new(state.cluster);
    for (at, line) in (0u64..).zip(RECORDS_V5.lines()) {
        let command = decode(at, line.as_bytes()).unwrap();
        assert_eq!(command.version(), 5, "an older build would take a step to save at for one to stop at");
        assert_eq!(written(&command), line);
        replayed.apply(&command).unwrap();
    }
    assert_eq!(replayed.encode(), state.encode());
}

const DATASETS_V6: &str = include_str!("../golden/datasets-v6.jsonl");

#[test]
fn records_of_datasets_with_columns_load_and_are_written_as_they_were() {
    for (at, line) in (0u64..).zip(DATASETS_V6.lines()) {
        let command = decode(at, line.as_bytes()).unwrap();
        assert_eq!(command.version(), 6, "an older build would lose columns, shape and what was left out");
        assert_eq!(written(&command), line, "record {at}");
    }
}
