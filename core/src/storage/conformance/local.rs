//! A directory, on the disk of the tests and on tmpfs; and what only a directory can go through.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{conforms, noise, piece};
use crate::error::Kind;
use crate::storage::local::{LocalStore, LocalWriter};
use crate::storage::{DiskQueue, Piece, Store, crc32c};

fn store(root: &Path) -> Arc<dyn Store> {
    store_with(root, DiskQueue::Probed)
}

fn store_with(root: &Path, queue: DiskQueue) -> Arc<dyn Store> {
    let store = LocalStore::new(root, "job", queue);
    store.make_place().unwrap();
    Arc::new(store)
}

#[test]
fn a_directory_on_disk_conforms_however_its_disk_is_kept_busy() {
    for queue in [DiskQueue::Probed, DiskQueue::Threads] {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let new = folder.path().join("not/there/yet");
        conforms(&store_with(&new, queue));
        let left: Vec<_> =
            fs::read_dir(new.join("job")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["race"], "deleting takes empty folders along");
    }
}

#[test]
fn a_directory_in_memory_conforms_however_it_is_written() {
    for queue in [DiskQueue::Probed, DiskQueue::Threads] {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        conforms(&store_with(folder.path(), queue));
    }
}

#[test]
fn a_store_that_is_not_there_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = LocalStore::new(&folder.path().join("unmounted"), "job", DiskQueue::Probed)
        .list("steps")
        .unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.hint.unwrap().contains("mounted"));
}

/// Over an empty mount point as over none at all.
#[test]
fn a_store_that_went_away_is_not_made_again_by_who_writes_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("disk");
    let store = store(&root);
    store.create("data/a/b", "1".into()).unwrap();
    fs::rename(&root, folder.path().join("away")).unwrap();
    for mounted in [false, true] {
        if mounted {
            fs::create_dir(&root).unwrap();
        }
        let refused = [
            store.create("data/a/b", "2".into()).err(),
            store.replace("probe/x", "2".into()).err(),
            store.writer("data/c/pack", 4096).err(),
        ];
        for error in refused {
            let error = error.expect("nothing is made in the place of what is away");
            assert_eq!(error.kind, Kind::Unavailable, "{error}");
            assert!(error.hint.unwrap().contains("mounted"));
        }
        assert_eq!(fs::read_dir(&root).map_or(0, Iterator::count), 0);
    }
    fs::remove_dir(&root).unwrap();
    fs::rename(folder.path().join("away"), &root).unwrap();
    store.create("data/c/d", "3".into()).unwrap();
    assert_eq!(store.read("data/a/b").unwrap(), b"1"[..]);
}

#[test]
fn what_a_killed_writer_left_is_no_object_and_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let writer = store.writer("data/a/pack", 8 << 20).unwrap();
    writer.append(piece(noise(1, 1 << 20))).unwrap();
    // As SIGKILL would: no destructor runs.
    std::mem::forget(writer);
    assert_eq!(store.list("").unwrap(), []);
    assert_eq!(fs::read_dir(folder.path().join("job/data/a")).unwrap().count(), 1);
    assert!(store.sweep("data/a").unwrap() >= 1 << 20);
    assert!(!folder.path().join("job/data").exists());
}

#[test]
fn bytes_that_change_while_they_are_written_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let writer = store(folder.path()).writer("x", 1 << 20).unwrap();
    let bytes = noise(1, 9000);
    let changed = Piece { crc32c: crc32c(&bytes) ^ 1, bytes: bytes.into() };
    assert_eq!(writer.append(changed).unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn a_file_system_that_refuses_direct_access_is_written_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let writer =
        LocalWriter::begin(folder.path(), &folder.path().join("x"), 1 << 20, DiskQueue::Probed).unwrap();
    // An address that is not aligned is refused by the kernel as a file system without O_DIRECT refuses all.
    let bytes = noise(3, 64 << 10);
    writer.write_unaligned_for_test(&bytes[8..][..8192]);
    assert!(!writer.is_direct());
}

#[test]
fn aligned_memory_goes_straight_to_a_disk_that_takes_it() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let mut memory = vec![7; 3 * 4096];
    let start = memory.as_ptr().align_offset(4096);
    memory.truncate(start + 8192);
    let open = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(folder.path().join("probe"));
    let takes_it = open.is_ok_and(|file| file.write_at(&memory[start..], 0).is_ok());
    let bytes = bytes::Bytes::from(memory).slice(start..);
    let writer =
        LocalWriter::begin(folder.path(), &folder.path().join("x"), 1 << 20, DiskQueue::Probed).unwrap();
    crate::storage::Writer::append(&writer, Piece { crc32c: crc32c(&bytes), bytes }).unwrap();
    assert_eq!(writer.is_direct(), takes_it);
}
