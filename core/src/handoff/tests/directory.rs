//! What opening and scanning a directory promises.

use uuid::Uuid;

use super::super::header::ArenaHeader;
use super::*;
use crate::error::Kind;

#[test]
fn second_sidecar_is_refused_and_told_the_holders_pid() {
    let directory = tmpfs();
    let _first = open(&directory).unwrap();
    let error = open(&directory).err().unwrap();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains(&format!("pid {}", std::process::id())), "{error}");
}

#[test]
fn scan_names_damaged_files_and_keeps_the_others() {
    let directory = tmpfs();
    let sidecar = open(&directory).unwrap();
    let make = |file| sidecar.create(&identity(file), 1, 4096, &MachineMemory::default()).unwrap();
    let (good, truncated, copied) = (make(0), make(1), make(2));
    // It would make the file as long again.
    truncated.shared.mapping.wait_slot(0).unwrap();
    std::fs::File::options().write(true).open(truncated.path()).unwrap().set_len(5000).unwrap();
    let copy = directory.path().join("other.rank-0.0.arena");
    std::fs::copy(copied.path(), &copy).unwrap();
    let nonsense = directory.path().join("x.rank-0.1.arena");
    std::fs::write(&nonsense, "short").unwrap();
    let old_boot =
        ArenaHeader { identity: identity(9), boot: Uuid::from_u128(1), slots: 1, slot_bytes: 4096 };
    let old_path = directory.path().join("run.new.rank-1.9.arena");
    let mut bytes = old_boot.encode().to_vec();
    bytes.resize(old_boot.file_bytes() as usize, 0);
    std::fs::write(&old_path, bytes).unwrap();
    let unfinished = directory.path().join("run.new.rank-1.10.new");
    std::fs::write(&unfinished, "half").unwrap();

    let (arenas, damaged) = sidecar.scan().unwrap();
    let paths: Vec<_> = arenas.iter().map(|arena| arena.path().to_owned()).collect();
    assert_eq!(paths, [good.path(), copied.path()]);
    assert_eq!(damaged.len(), 3);
    for path in [truncated.path(), &copy, &nonsense] {
        let name = path.display().to_string();
        assert!(
            damaged.iter().any(|error| error.kind == Kind::Corrupt && error.message.contains(&name)),
            "{name}"
        );
    }
    assert!(!old_path.exists() && !unfinished.exists());
}

#[test]
fn existing_arena_is_never_replaced() {
    let directory = tmpfs();
    let sidecar = open(&directory).unwrap();
    let make = || sidecar.create(&identity(0), 1, 4096, &MachineMemory::default());
    let arena = make().unwrap();
    let fill = arena.slot(0).begin_fill(&begin(1)).unwrap();
    assert_eq!(make().err().unwrap().kind, Kind::Conflict);
    assert_eq!(sidecar.scan().unwrap().0[0].slot(0).snapshot().unwrap().fill, fill);
    arena.remove().unwrap();
    arena.remove().unwrap();
    make().unwrap();
}
