//! The disk's queue: io_uring where it is granted, threads where it is refused, and the same errors from both.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::mounts::Mount;
use super::{noise, piece};
use crate::error::{Error, Kind, Result};
use crate::storage::local::LocalWriter;
use crate::storage::{DiskQueue, Piece, Writer, crc32c};

const MIB: usize = 1 << 20;
const QUEUES: [DiskQueue; 2] = [DiskQueue::Probed, DiskQueue::Threads];

/// Bytes where O_DIRECT takes them as they lie.
fn aligned(seed: u64, length: usize) -> Bytes {
    let mut memory = noise(seed, length + 4096);
    let start = memory.as_ptr().align_offset(4096);
    memory.rotate_right(start);
    memory.truncate(start + length);
    Bytes::from(memory).slice(start..)
}

fn aligned_piece(seed: u64, length: usize) -> Piece {
    let bytes = aligned(seed, length);
    Piece { crc32c: crc32c(&bytes), bytes }
}

fn writer(folder: &Path, queue: DiskQueue) -> LocalWriter {
    LocalWriter::begin(folder, &folder.join("pack"), 64 << 20, queue).unwrap()
}

fn refuse_io_uring() {
    // Linux's classic BPF (seccomp(2)): the number of the call, and EPERM for io_uring_setup.
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let is_setup = libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_io_uring_setup as u32 };
    let mut filter = [
        statement(0x20, 0),
        is_setup,
        statement(0x06, 0x0005_0000 | libc::EPERM as u32),
        statement(0x06, 0x7fff_0000),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers, and a program that lives until the calls return; both change this thread alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

/// As in a container whose seccomp profile forbids it.
#[test]
fn where_io_uring_is_refused_threads_write_the_same_file() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    std::thread::scope(|scope| {
        let written = scope.spawn(|| {
            refuse_io_uring();
            let writer = writer(folder.path(), DiskQueue::Probed);
            assert!(!writer.has_ring());
            writer.append(aligned_piece(1, 9 * MIB + 17)).unwrap();
            writer.finish().unwrap()
        });
        assert_eq!(written.join().unwrap(), (9 * MIB + 4096) as u64);
    });
    assert!(fs::read(folder.path().join("pack")).unwrap().starts_with(&aligned(1, 9 * MIB + 17)));
}

/// So that the other tests here mean both ways: where the kernel grants a ring, large files get one.
#[test]
fn a_ring_is_used_for_large_files_where_it_is_granted() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let granted = io_uring::IoUring::new(4).is_ok();
    if !granted {
        eprintln!("SKIPPED: io_uring is refused here, so only threads were tested");
    }
    let probe = writer(folder.path(), DiskQueue::Probed);
    assert_eq!(probe.has_ring(), granted && probe.is_direct());
    assert!(!writer(folder.path(), DiskQueue::Threads).has_ring());
}

/// More pieces than the queue has places, from several threads, with every kind of end.
#[test]
fn pieces_of_every_length_lie_where_append_said() {
    for queue in QUEUES {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let writer = writer(folder.path(), queue);
        let lengths: Vec<usize> =
            (0..96).map(|n| [4096, 100_000, 1, MIB, MIB + 1, 8191][n % 6] + n / 6).collect();
        let places: Vec<(usize, u64)> = std::thread::scope(|scope| {
            let append = |thread: usize| {
                let (writer, lengths) = (&writer, &lengths);
                let numbers = (thread..lengths.len()).step_by(4);
                let append = move |n: usize| (n, writer.append(aligned_piece(n as u64, lengths[n])).unwrap());
                scope.spawn(move || numbers.map(append).collect::<Vec<_>>())
            };
            (0..4).map(append).collect::<Vec<_>>().into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let bytes = writer.finish().unwrap();
        let file = fs::read(folder.path().join("pack")).unwrap();
        assert_eq!(file.len() as u64, bytes);
        let mut padded = 0;
        for (n, offset) in places {
            let (start, length) = (offset as usize, lengths[n]);
            assert!(file[start..][..length] == aligned(n as u64, length), "{queue:?}: piece {n} of {length}");
            let end = (start + length).next_multiple_of(4096);
            assert!(file[start + length..end].iter().all(|byte| *byte == 0));
            padded += end - start;
        }
        assert_eq!(padded as u64, bytes);
    }
}

#[test]
fn bytes_that_change_on_their_way_to_the_disk_are_found_by_the_end() {
    for queue in QUEUES {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let writer = writer(folder.path(), queue);
        let bytes = aligned(5, 3 * MIB);
        let changed = Piece { crc32c: crc32c(&bytes) ^ 1, bytes };
        let outcome = writer.append(changed).and_then(|_| writer.finish());
        assert_eq!(outcome.unwrap_err().kind, Kind::Corrupt);
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing of it stays");
    }
}

/// Slots are given to the next save once the writer is gone: until then the disk may read from them.
#[test]
fn a_writer_that_is_dropped_has_let_go_of_every_piece() {
    for queue in QUEUES {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let writer = writer(folder.path(), queue);
        let slot = aligned(6, 24 * MIB);
        for start in (0..slot.len()).step_by(2 * MIB) {
            let bytes = slot.slice(start..start + 2 * MIB);
            writer.append(Piece { crc32c: crc32c(&bytes), bytes }).unwrap();
        }
        drop(writer);
        assert!(slot.is_unique(), "{queue:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

fn fill(folder: &Path, queue: DiskQueue, allocate: bool) -> Result<u64> {
    let writer = writer(folder, queue);
    if !allocate {
        writer.pretend_allocated();
    }
    for seed in 0..16 {
        writer.append(aligned_piece(seed, MIB + 5))?;
    }
    writer.finish()
}

fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lost+found").collect()
}

/// Both where room is asked for in advance, and where only the write itself finds out.
#[test]
fn a_full_disk_is_overloaded_with_the_numbers() {
    for (queue, allocate) in QUEUES.into_iter().flat_map(|queue| [(queue, true), (queue, false)]) {
        let Some(disk) = Mount::tmpfs(4 << 20) else { return };
        let error: Error = fill(disk.path(), queue, allocate).unwrap_err();
        assert_eq!(error.kind, Kind::Overloaded, "{queue:?} {allocate}: {error}");
        assert!(error.message.contains("MiB free of 4 MiB"), "{error}");
        assert_eq!(leftovers(disk.path()), [""; 0]);
        // A small object still fits: the room was given back.
        let small = LocalWriter::begin(disk.path(), &disk.path().join("small"), MIB as u64, queue).unwrap();
        small.append(piece(noise(1, MIB))).unwrap();
        small.finish().unwrap();
    }
}

#[test]
fn a_disk_that_fails_is_an_error_and_leaves_no_object() {
    for queue in QUEUES {
        let Some(disk) = Mount::broken_disk(64 << 20, 6 << 20) else { return };
        let error = fill(disk.path(), queue, true).unwrap_err();
        assert!(matches!(error.kind, Kind::Unavailable | Kind::Overloaded), "{queue:?}: {error}");
        assert!(error.message.contains("pack"), "{error}");
        assert_eq!(leftovers(disk.path()), [""; 0]);
    }
}
