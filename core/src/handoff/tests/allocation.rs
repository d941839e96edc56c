//! An arena that is used before all of its memory is there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::error::Kind;

pub(super) struct NoBudget;

impl MemoryBudget for NoBudget {
    fn promise(&self, _: &Path, _: u64) -> Result<Promise> {
        Ok(Promise::default())
    }
}

/// An arena that has no memory but its header's, as a sidecar leaves it that is killed right after it published it.
fn without_memory(directory: &tempfile::TempDir) -> Arena {
    open(directory).unwrap().publish_empty(&identity(0), 2, 1 << 20, &NoBudget).unwrap().0
}

#[test]
fn save_into_an_arena_without_memory_waits_for_it() {
    let directory = tmpfs();
    let arena = without_memory(&directory);
    let fill = arena.slot(0).begin_fill(&begin(1)).unwrap();
    let data = vec![7u8; 500_000];
    let given = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let trainer = scope.spawn(|| {
            let saved = save(arena.path(), 0, fill, 1, &data);
            (saved, given.load(Ordering::Relaxed))
        });
        // Gives a trainer that does not wait the time to show it.
        std::thread::sleep(Duration::from_millis(50));
        given.store(true, Ordering::Relaxed);
        arena.allocate_in_background(Promise::default()).unwrap();
        let (saved, after) = trainer.join().unwrap();
        saved.unwrap();
        assert!(after, "sealed in pages without memory");
    });
    assert!(arena.slot(0).data().unwrap().as_ref()[..data.len()] == data);
}

#[test]
fn arena_of_a_killed_sidecar_gets_the_rest_of_its_memory_from_the_next() {
    let directory = tmpfs();
    drop(without_memory(&directory));
    let sidecar = open(&directory).unwrap();
    let (arenas, damaged) = sidecar.scan().unwrap();
    assert_eq!(damaged, []);
    let slot = arenas[0].slot(1);
    let mut load = slot.begin_load(Generation(1), Step(5)).unwrap();
    load.data(8192).unwrap()[..3].copy_from_slice(b"abc");
    load.finish(&index(5, b"abc"), 8192).unwrap();
    assert_eq!(&slot.data().unwrap().as_ref()[..3], b"abc");
}

#[test]
fn volume_that_fills_up_meanwhile_is_overloaded_and_harms_no_sealed_slot() {
    let directory = tmpfs();
    // SAFETY: the child mounts in a namespace of its own, works and ends; it never returns to the test harness.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let outcome = std::panic::catch_unwind(|| in_a_small_volume(&directory));
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(outcome.unwrap_or(1)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just forked.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "status {status}");
    match libc::WEXITSTATUS(status) {
        NO_NAMESPACE => println!("skipped: no mount namespace of one's own on this machine"),
        code => assert_eq!(code, 0),
    }
}

const NO_NAMESPACE: i32 = 77;

fn in_a_small_volume(directory: &tempfile::TempDir) -> i32 {
    let path = std::ffi::CString::new(directory.path().as_os_str().as_encoded_bytes()).unwrap();
    let namespaces =
        if rustix::process::geteuid().is_root() { 0 } else { libc::CLONE_NEWUSER } | libc::CLONE_NEWNS;
    // SAFETY: plain calls with strings that outlive them; they concern this child alone.
    let mounted = unsafe {
        libc::unshare(namespaces) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=24m".as_ptr().cast())
                == 0
    };
    if !mounted {
        return NO_NAMESPACE;
    }
    let uid = rustix::process::geteuid().as_raw();
    let sidecar = ArenaDirectory::open(directory.path(), uid).unwrap();
    let arena = sidecar.create(&identity(0), 2, 20 << 20, &NoBudget).unwrap();
    let data = vec![7u8; 15 << 20];
    let fill = arena.slot(0).begin_fill(&begin(1)).unwrap();
    let first = save(arena.path(), 0, fill, 1, &data);
    let fill = arena.slot(1).begin_fill(&begin(2)).unwrap();
    let error = save(arena.path(), 1, fill, 2, &data).unwrap_err();
    assert_eq!(error.kind, Kind::Overloaded, "{error}");
    assert!(error.hint.unwrap().contains("--shm-size"));
    assert!(arena.allocation_failed());
    // Sealed before the memory ran out, or refused: never half of it.
    match first {
        Ok(()) => assert!(arena.slot(0).data().unwrap().as_ref()[..data.len()] == data),
        Err(error) => assert_eq!(error.kind, Kind::Overloaded, "{error}"),
    }
    0
}

#[test]
fn file_made_before_the_word_was_there_has_all_of_its_memory() {
    let directory = tmpfs();
    let arena = arena(&directory);
    let mapping = &arena.shared.mapping;
    mapping.wait_slot(1).unwrap();
    // What such a file has there: nothing was ever written behind the identity.
    assert_eq!(mapping.allocation().reached(&mapping.header), Some(arena.file_bytes()));
    let at = mapping.at(super::super::header::ALLOCATION_OFFSET as u64, 8);
    // SAFETY: inside the mapping, and nobody writes there any more.
    assert_eq!(unsafe { at.cast::<u64>().read() }, 0);
}
