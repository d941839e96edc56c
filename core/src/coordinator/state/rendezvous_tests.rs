use super::*;
use crate::coordinator::state::{Command, State};
use crate::error::Kind;
use crate::ids::ClusterId;

fn set(key: &str, value: &[u8], version: Option<u64>, write: u64) -> RecordWrite {
    let change = Change::Set { value: value.to_vec(), version };
    RecordWrite { rendezvous: "r".into(), token: String::new(), key: key.into(), change, write }
}

fn add(key: &str, amount: i64, write: u64) -> RecordWrite {
    RecordWrite { change: Change::Add(amount), ..set(key, b"", None, write) }
}

fn value(all: &Rendezvous, key: &str) -> Option<Vec<u8>> {
    all.get("r", "", key).unwrap().map(|record| record.value.clone())
}

#[test]
fn of_two_that_have_read_the_same_version_one_writes() {
    let mut all = Rendezvous::default();
    all.write(&set("state", b"a", Some(0), 1)).unwrap();
    let read = all.get("r", "", "state").unwrap().unwrap().version;
    all.write(&set("state", b"b", Some(read), 2)).unwrap();
    let before = all.clone();
    for late in [set("state", b"c", Some(read), 3), set("state", b"c", Some(0), 4)] {
        assert_eq!(all.write(&late).unwrap_err().kind, Kind::Conflict);
    }
    assert_eq!(all, before, "what is refused changes nothing");
    all.write(&set("state", b"d", None, 5)).unwrap();
    assert_eq!(value(&all, "state").unwrap(), b"d");
}

#[test]
fn emptied_record_counts_as_none_and_its_versions_are_not_used_again() {
    let mut all = Rendezvous::default();
    all.write(&set("state", b"a", Some(0), 1)).unwrap();
    all.write(&set("state", b"", Some(1), 2)).unwrap();
    all.write(&set("state", b"b", Some(0), 3)).unwrap();
    assert_eq!(all.get("r", "", "state").unwrap().unwrap().version, 3);
}

#[test]
fn retry_of_a_change_is_known_as_long_as_others_only_add() {
    let mut all = Rendezvous::default();
    for write in 1..=100 {
        let change = add("members", 2, write);
        assert!(!all.is_repeated(&change).unwrap());
        all.write(&change).unwrap();
    }
    assert_eq!(value(&all, "members").unwrap(), b"200");
    assert!((1..=100).all(|write| all.is_repeated(&add("members", 2, write)).unwrap()));
    for write in 1000..1000 + WRITES_KEPT as u64 {
        all.write(&add("members", 1, write)).unwrap();
    }
    assert!(!all.is_repeated(&add("members", 2, 100)).unwrap(), "what a record remembers is bounded");
}

#[test]
fn adding_wants_a_number_that_has_room() {
    let mut all = Rendezvous::default();
    all.write(&set("text", b"x", None, 1)).unwrap();
    all.write(&add("most", i64::MAX, 2)).unwrap();
    for refused in [add("text", 1, 3), add("most", 1, 4)] {
        assert_eq!(all.write(&refused).unwrap_err().kind, Kind::Invalid);
    }
}

#[test]
fn p9_rendezvous_belongs_to_the_token_of_its_first_write() {
    let mut all = Rendezvous::default();
    all.write(&RecordWrite { token: "ours".into(), ..set("state", b"a", None, 1) }).unwrap();
    let theirs = RecordWrite { token: "theirs".into(), ..set("state", b"b", None, 2) };
    assert_eq!(all.write(&theirs).unwrap_err().kind, Kind::Denied);
    assert_eq!(all.is_repeated(&theirs).unwrap_err().kind, Kind::Denied);
    assert_eq!(all.get("r", "", "state").unwrap_err().kind, Kind::Denied);
    assert_eq!(all.get("r", "ours", "state").unwrap().unwrap().value, b"a");
    assert!(all.get("another", "theirs", "state").unwrap().is_none());
}

#[test]
fn p10_what_was_written_to_longest_ago_goes_where_the_room_ends() {
    let mut all = Rendezvous::default();
    let large = vec![7; RECORD_BYTES];
    assert_eq!(
        all.write(&set("k", &[large.as_slice(), b"!"].concat(), None, 0)).unwrap_err().kind,
        Kind::Invalid
    );
    for round in 0..20u64 {
        all.write(&set(&format!("round-{round}"), &large, None, round + 1)).unwrap();
        all.write(&set("state", b"alive", None, 100 + round)).unwrap();
    }
    assert!(value(&all, "state").is_some() && value(&all, "round-19").is_some());
    assert!(value(&all, "round-0").is_none());
    assert!(all.groups["r"].bytes <= GROUP_BYTES);
    for number in 0..100u64 {
        let begun = RecordWrite { rendezvous: format!("run-{number}"), ..set("state", &large, None, number) };
        all.write(&begun).unwrap();
        all.write(&set("state", b"alive", None, 1000 + number)).unwrap();
    }
    assert_eq!(
        value(&all, "state").unwrap(),
        b"alive",
        "a rendezvous that is in use outlives those that are not"
    );
    assert!(all.get("run-0", "", "state").unwrap().is_none());
    assert!(all.get("run-99", "", "state").unwrap().is_some());
    assert!(all.groups.values().map(|group| group.bytes).sum::<usize>() <= ALL_BYTES);
    let counted =
        |group: &Group| -> usize { group.records.iter().map(|(key, record)| size(key, record)).sum() };
    for (name, group) in &all.groups {
        assert_eq!(group.bytes, counted(group) + name.len() + OVERHEAD, "what is counted is what is there");
    }
}

#[test]
fn names_have_a_length() {
    let mut all = Rendezvous::default();
    let long = "x".repeat(NAME_BYTES + 1);
    for (rendezvous, key) in [("", "k"), ("r", ""), (long.as_str(), "k"), ("r", long.as_str())] {
        let write = RecordWrite { rendezvous: rendezvous.into(), ..set(key, b"v", None, 1) };
        assert_eq!(all.write(&write).unwrap_err().kind, Kind::Invalid);
    }
    assert!(all.is_empty());
}

#[test]
fn p7_snapshot_holds_every_byte_of_a_record() {
    let mut state = State::new(ClusterId::new());
    let all: Vec<u8> = (0..=255).collect();
    for write in [set("state", &all, Some(0), u64::MAX), add("n", -3, 2)] {
        state.apply(&Command::WriteRecord(Box::new(write))).unwrap();
    }
    let read = State::decode(&state.encode()).unwrap();
    assert_eq!(read, state);
    assert_eq!(value(&read.rendezvous, "state").unwrap(), all);
}
