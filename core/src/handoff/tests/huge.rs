//! Arenas in huge pages, and without them.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::mm::MapFlags;

use super::super::huge::{Collapse, HUGE, Refusal, collapse, map, pieces};
use super::super::mapping::Mapping;
use super::super::{allocation, collapsing};
use super::allocation::NoBudget;
use super::*;

/// No multiple of 2 MiB, so that a huge page holds parts of both slots.
const SLOT: u64 = 5 << 20;
const DATA: usize = (SLOT - 8192) as usize;

/// An arena with all of its memory, asked for by `collapse`.
fn given(directory: &tempfile::TempDir, collapse: Collapse) -> Arena {
    let (arena, promise) = open(directory).unwrap().publish_empty(&identity(0), 2, SLOT, &NoBudget).unwrap();
    allocation::in_background(&arena.shared, promise, collapse).unwrap();
    arena.shared.mapping.wait_slot(1).unwrap();
    arena
}

fn numbered(first: usize) -> Vec<u8> {
    (first..first + DATA).map(|n| (n % 253) as u8).collect()
}

fn fill(arena: &Arena, slot: u32, data: &[u8]) -> u64 {
    let fill = arena.slot(slot).begin_fill(&begin(1)).unwrap();
    save(arena.path(), slot, fill, 1, data).unwrap();
    fill
}

/// Whether this machine has huge pages for a tmpfs; says so where it has not.
fn are_to_be_had() -> bool {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, HUGE).unwrap();
    let place = map(&file, 0, HUGE as usize, MapFlags::SHARED).unwrap();
    let outcome = collapse(place);
    // SAFETY: mapped above.
    unsafe { rustix::mm::munmap(place.as_ptr().cast(), HUGE as usize).unwrap() };
    if let Err(refusal) = outcome {
        println!("skipped: no huge pages for a tmpfs on this machine ({refusal:?})");
    }
    outcome.is_ok()
}

fn start(mapping: &Mapping) -> u64 {
    mapping.at(0, 1) as u64
}

/// Asked by `given`, which is not hurried here: has all pieces moved, whatever time it takes.
fn collapse_all(arena: &Arena) {
    for piece in pieces(0..arena.file_bytes()) {
        let until = Instant::now() + Duration::from_secs(20);
        // Somebody else, such as the thread that gave the memory, may be at it.
        while collapse(arena.shared.mapping.piece(piece)).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn sidecar_and_trainer_map_an_arena_in_huge_pages_where_the_kernel_has_them() {
    if !are_to_be_had() {
        return;
    }
    let directory = tmpfs();
    let arena = given(&directory, collapse);
    collapse_all(&arena);
    let (first, second) = (numbered(0), numbered(7));
    fill(&arena, 0, &first);
    fill(&arena, 1, &second);
    let trainer = ArenaView::open(arena.path()).unwrap();
    trainer.populate();
    let all = arena.file_bytes() / HUGE * HUGE;
    assert_eq!(in_smaps(start(trainer.mapping()), "ShmemPmdMapped:"), all, "of the trainer");
    assert!(in_smaps(start(&arena.shared.mapping), "ShmemPmdMapped:") > 0, "of the sidecar");
    assert!(arena.slot(0).data().unwrap().as_ref()[..DATA] == first);
    assert!(arena.slot(1).data().unwrap().as_ref()[..DATA] == second);
}

#[test]
fn arena_works_the_same_where_the_kernel_has_no_huge_pages() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let never: Collapse = |_| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        Err(Refusal::Never)
    };
    for refused in [never, |_| Err(Refusal::NotNow)] {
        let directory = tmpfs();
        let arena = given(&directory, refused);
        let data = numbered(3);
        fill(&arena, 1, &data);
        assert!(arena.slot(1).data().unwrap().as_ref()[..DATA] == data);
        assert_eq!(in_smaps(start(&arena.shared.mapping), "ShmemPmdMapped:"), 0);
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 1, "asked again after the refusal");
}

#[test]
fn slot_in_use_is_not_moved_until_it_is_at_rest() {
    static MOVED: AtomicUsize = AtomicUsize::new(0);
    let directory = tmpfs();
    let arena = given(&directory, |_| Err(Refusal::Never));
    let number = arena.slot(0).begin_fill(&begin(1)).unwrap();
    let mapping = Arc::downgrade(&arena.shared.mapping);
    std::thread::scope(|scope| {
        let all = pieces(0..arena.file_bytes()).collect();
        let mover = scope.spawn(move || {
            collapsing::later(&mapping, all, |_| {
                MOVED.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
        });
        // Gives a mover that does not look the time to show it. What is wholly of slot 1 is nobody's.
        std::thread::sleep(Duration::from_millis(50));
        let of_slot_1 = pieces(arena.shared.mapping.header.slot_offset(1)..arena.file_bytes()).count();
        assert!(MOVED.load(Ordering::Relaxed) <= of_slot_1);
        save(arena.path(), 0, number, 1, &numbered(0)).unwrap();
        arena.slot(0).free(number).unwrap();
        mover.join().unwrap();
    });
    assert_eq!(MOVED.load(Ordering::Relaxed), pieces(0..arena.file_bytes()).count());
}

#[test]
fn bytes_stay_as_they_are_while_they_are_moved_and_after_the_slot_beside_is_given_back() {
    let directory = tmpfs();
    let arena = given(&directory, |_| Err(Refusal::Never));
    let (first, second) = (numbered(0), numbered(100));
    let fills = [fill(&arena, 0, &first), fill(&arena, 1, &second)];
    for (slot, number) in fills.into_iter().enumerate() {
        arena.slot(slot as u32).take_for_persist(number).unwrap();
        arena.slot(slot as u32).mark_clean(number).unwrap();
    }
    let mapping = Arc::downgrade(&arena.shared.mapping);
    collapsing::later(&mapping, pieces(0..arena.file_bytes()).collect(), collapse);
    let of = |slot: u32| arena.slot(slot).data().unwrap();
    assert!(of(0).as_ref()[..DATA] == first && of(1).as_ref()[..DATA] == second);
    arena.remove().unwrap();
    arena.slot(0).discard().unwrap();
    assert!(of(0).as_ref().iter().all(|byte| *byte == 0), "given back");
    assert!(of(1).as_ref()[..DATA] == second);
}

#[test]
fn private_mapping_over_huge_pages_keeps_what_it_owns() {
    let directory = tmpfs();
    let arena = given(&directory, collapse);
    collapse_all(&arena);
    let (data, other) = (numbered(0), numbered(50));
    let number = fill(&arena, 1, &data);
    let reader = ArenaView::open(arena.path()).unwrap().reader(1).unwrap();
    let private = reader.map_private(std::slice::from_ref(&(0..DATA as u64))).unwrap();
    let at = |place: usize| NonNull::new(private.address().wrapping_add(place)).unwrap();
    // SAFETY: here and below, inside the mapping.
    assert!((0..DATA).all(|place| unsafe { at(place).read_volatile() } == data[place]));
    let written = 3 << 20;
    // SAFETY: as above.
    unsafe { at(written).write_volatile(255) };
    assert!(arena.slot(1).data().unwrap().as_ref()[..DATA] == data, "the file is as it was");
    while !private.own_next() {}
    arena.slot(1).free(number).unwrap();
    fill(&arena, 1, &other);
    for (place, byte) in data.iter().enumerate() {
        let wanted = if place == written { 255 } else { *byte };
        // SAFETY: as above.
        assert_eq!(unsafe { at(place).read_volatile() }, wanted, "byte {place}");
    }
}
