use redb::Durability;

use super::super::super::home::Home;
use super::super::Log;
use super::super::tests::notify;
use super::*;
use crate::coordinator::state::Command;
use crate::ids::ClusterId;

/// A log as builds of format 1 left it: a snapshot of nothing at record 4, then these.
fn write_old(folder: &Path, commands: &[Command]) -> State {
    let mut state = State::new(ClusterId::new());
    let body = state.encode();
    let snapshot = [blake3::hash(&body).as_bytes().as_slice(), &body].concat();
    let database = Database::create(path(folder)).unwrap();
    let mut write = database.begin_write().unwrap();
    write.set_durability(Durability::Immediate).unwrap();
    write.open_table(SNAPSHOT).unwrap().insert(4, snapshot.as_slice()).unwrap();
    let mut records = write.open_table(RECORDS).unwrap();
    for (at, command) in (4..).zip(commands) {
        let mut line = Vec::new();
        record::encode(command, &mut line);
        records.insert(at, line.trim_ascii()).unwrap();
        state.apply(command).unwrap();
    }
    drop(records);
    write.commit().unwrap();
    state
}

fn old_home() -> (tempfile::TempDir, PathBuf, State) {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("coordinator");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("format"), "1\n").unwrap();
    let state = write_old(&folder, &[notify(1), notify(2), notify(3)]);
    (home, folder, state)
}

fn open(home: &Path) -> Result<(Log, State)> {
    Log::open(&Home::claim(home)?, ClusterId::new())
}

#[test]
fn p7_log_of_format_1_is_taken_over_and_goes_on() {
    let (home, folder, mut state) = old_home();
    let (mut log, found) = open(home.path()).unwrap();
    assert_eq!(found.encode(), state.encode());
    assert!(!path(&folder).exists());
    assert_eq!(std::fs::read_to_string(folder.join("format")).unwrap(), "2\n", "older builds refuse it");
    state.apply(&notify(9)).unwrap();
    log.append(&[notify(9)]).unwrap();
    assert_eq!(log.next, 4 + 3 + 1, "records are counted on");
    drop(log);
    assert_eq!(open(home.path()).unwrap().1.encode(), state.encode());
}

#[test]
fn p7_takeover_that_died_anywhere_begins_anew_or_is_ended() {
    // Before the format was written: whatever it left is not believed.
    let (home, folder, state) = old_home();
    let saved = std::fs::read(path(&folder)).unwrap();
    for torn in [&b""[..], b"{\"v\":1", b"garbage\nmore"] {
        std::fs::create_dir_all(folder.join("log")).unwrap();
        for name in ["snapshot", "snapshot.new", "records"] {
            std::fs::write(folder.join("log").join(name), torn).unwrap();
        }
        assert_eq!(open(home.path()).unwrap().1.encode(), state.encode());
        std::fs::write(folder.join("format"), "1\n").unwrap();
        std::fs::write(path(&folder), &saved).unwrap();
    }
    // Behind it: the old log is no truth any more, even where it is still there.
    let (mut log, mut state) = open(home.path()).unwrap();
    state.apply(&notify(9)).unwrap();
    log.append(&[notify(9)]).unwrap();
    drop(log);
    std::fs::write(path(&folder), &saved).unwrap();
    assert_eq!(open(home.path()).unwrap().1.encode(), state.encode());
    assert!(!path(&folder).exists());
}

#[test]
fn damaged_or_newer_log_of_format_1_is_refused_untouched() {
    let (home, folder, _) = old_home();
    let database = Database::create(path(&folder)).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(RECORDS).unwrap().insert(7, br#"{"v":9,"c":{}}"#.as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(open(home.path()).err().unwrap().kind, Kind::Invalid);

    let database = Database::create(path(&folder)).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(SNAPSHOT).unwrap().insert(5, [7u8; 40].as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    assert_eq!(open(home.path()).err().unwrap().kind, Kind::Corrupt);
    assert!(path(&folder).exists(), "it is there for a build that can read it");
    assert_eq!(std::fs::read_to_string(folder.join("format")).unwrap(), "1\n");
}

#[test]
fn old_log_that_holds_nothing_yet_is_a_new_cluster() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("coordinator");
    std::fs::create_dir(&folder).unwrap();
    drop(Database::create(path(&folder)).unwrap());
    let fresh = ClusterId::new();
    let (_log, state) = Log::open(&Home::claim(home.path()).unwrap(), fresh).unwrap();
    assert_eq!(state.cluster, fresh);
    assert!(!path(&folder).exists());
}
