//! What the transitions of a slot promise.

use std::sync::Barrier;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;
use crate::error::Kind;

#[test]
fn sealed_step_survives_sigkill_of_the_trainer_and_a_new_sidecar_finds_it() {
    let directory = tmpfs();
    let sidecar = open(&directory).unwrap();
    let arena = sidecar.create(&identity(3), 2, 1 << 20, &MachineMemory::default()).unwrap();
    let fill = arena.slot(1).begin_fill(&begin(40)).unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    // SAFETY: the child only copies, seals and dies; it never returns to the test harness.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let saved = save(arena.path(), 1, fill, 40, &data).is_ok();
        // SAFETY: ends this process at once.
        unsafe {
            if saved {
                libc::kill(libc::getpid(), libc::SIGKILL);
            }
            libc::_exit(1);
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just forked.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "status {status}");
    let node = sidecar.node();
    drop((arena, sidecar));

    let sidecar = open(&directory).unwrap();
    assert_eq!(sidecar.node(), node);
    let (arenas, damaged) = sidecar.scan().unwrap();
    assert_eq!(damaged, []);
    let slot = arenas[0].slot(1);
    let found = slot.snapshot().unwrap();
    assert_eq!(
        (found.state, found.step, found.session, found.fill),
        (SlotState::Sealed, Step(40), SessionId(9), fill)
    );
    assert_eq!((found.generation, found.rank, found.data_bytes), (Generation(2), Rank(1), 303_104));
    assert_eq!(slot.index().unwrap(), index(40, &data));
    let bytes = slot.data().unwrap();
    assert!(bytes.as_ref()[..data.len()] == data);
    assert!(bytes.as_ref()[data.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn stopped_trainer_that_wakes_up_cannot_seal_a_slot_that_passed_on() {
    let directory = tmpfs();
    let arena = arena(&directory);
    let slot = arena.slot(0);
    let old = slot.begin_fill(&begin(1)).unwrap();
    let zombie = ArenaView::open(arena.path()).unwrap().writer(0, old).unwrap();
    slot.free(old).unwrap();
    assert_eq!(zombie.seal(&index(1, b"x"), 4096).unwrap_err().kind, Kind::Conflict);
    let new = slot.begin_fill(&begin(2)).unwrap();
    assert_ne!(old, new);
    assert_eq!(zombie.seal(&index(1, b"x"), 4096).unwrap_err().kind, Kind::Conflict);
    assert_eq!(slot.free(old).unwrap_err().kind, Kind::Conflict);
    save(arena.path(), 0, new, 2, b"new").unwrap();
    assert_eq!(slot.index().unwrap().step, 2);
}

#[test]
fn every_transition_from_a_wrong_state_is_refused_and_changes_nothing() {
    let directory = tmpfs();
    let slot = arena(&directory).slot(0);
    let fill = slot.begin_fill(&begin(1)).unwrap();
    assert_eq!(slot.begin_fill(&begin(2)).unwrap_err().kind, Kind::Conflict);
    assert_eq!(slot.take_for_persist(fill).unwrap_err().kind, Kind::Conflict);
    assert_eq!(slot.mark_clean(fill).unwrap_err().kind, Kind::Conflict);
    assert!(slot.index().is_err() && slot.data().is_err());
    save(slot.arena().path(), 0, fill, 1, b"abc").unwrap();
    assert_eq!(slot.mark_clean(fill).unwrap_err().kind, Kind::Conflict);
    assert_eq!(slot.take_for_persist(fill + 1).unwrap_err().kind, Kind::Conflict);
    slot.take_for_persist(fill).unwrap();
    assert_eq!(slot.begin_fill(&begin(2)).unwrap_err().kind, Kind::Conflict);
    slot.return_to_sealed(fill).unwrap();
    slot.take_for_persist(fill).unwrap();
    slot.mark_clean(fill).unwrap();
    assert_eq!(slot.snapshot().unwrap().step, Step(1));
    assert_eq!(slot.begin_fill(&begin(2)).unwrap(), fill + 1);
}

#[test]
fn seal_and_abandonment_race_to_one_outcome() {
    let seed: u64 = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tmpfs();
    let arena = arena(&directory);
    let view = ArenaView::open(arena.path()).unwrap();
    let slot = arena.slot(0);
    for step in 0..500 {
        let fill = slot.begin_fill(&begin(step)).unwrap();
        let writer = view.writer(0, fill).unwrap();
        let (spin_seal, spin_free) = (random.random_range(0..200), random.random_range(0..200));
        let start = Barrier::new(2);
        let wait = |spins| {
            start.wait();
            (0..spins).for_each(|_| std::hint::spin_loop());
        };
        let (sealed, taken) = std::thread::scope(|scope| {
            let trainer = scope.spawn(|| {
                wait(spin_seal);
                writer.seal(&index(step, b"x"), 4096)
            });
            wait(spin_free);
            let taken = slot.take_for_persist(fill);
            if taken.is_err() {
                slot.free(fill).unwrap();
            }
            (trainer.join().unwrap(), taken)
        });
        let found = slot.snapshot().unwrap();
        if taken.is_ok() {
            sealed.unwrap();
            assert_eq!((found.state, slot.index().unwrap().step), (SlotState::Persisting, step));
            slot.mark_clean(fill).unwrap();
        } else {
            assert_eq!(found.state, SlotState::Free, "sealed: {sealed:?}");
        }
    }
}

#[test]
fn flipped_byte_of_a_seal_or_an_index_is_found() {
    let directory = tmpfs();
    let arena = arena(&directory);
    let slot = arena.slot(0);
    let fill = slot.begin_fill(&begin(1)).unwrap();
    save(arena.path(), 0, fill, 1, b"abc").unwrap();
    let file = std::fs::File::options().read(true).write(true).open(arena.path()).unwrap();
    let flip = |at: u64| {
        use std::os::unix::fs::FileExt;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1;
        file.write_all_at(&byte, at).unwrap();
    };
    // Session, generation, step, their check; lengths, index CRC, the seal's check; a byte of the index. Then the fill.
    for at in (8..80).step_by(8).map(|field| 4096 + field).chain([3 * 4096 + 4096 + 2]) {
        flip(at);
        assert_eq!(slot.index().unwrap_err().kind, Kind::Corrupt, "at {at}");
        flip(at);
        slot.index().unwrap();
    }
    flip(4097);
    slot.index().unwrap_err();
    slot.reset();
    assert_eq!(slot.snapshot().unwrap().state, SlotState::Free);
}

#[test]
fn restored_step_is_readable_once_finished_and_given_up_when_dropped() {
    let directory = tmpfs();
    let arena = arena(&directory);
    let slot = arena.slot(1);
    drop(slot.begin_load(Generation(1), Step(5)).unwrap());
    assert_eq!(slot.snapshot().unwrap().state, SlotState::Free);

    let mut load = slot.begin_load(Generation(1), Step(5)).unwrap();
    assert_eq!(load.data(1 << 40).unwrap_err().kind, Kind::Invalid);
    load.data(8192).unwrap()[5000..5003].copy_from_slice(b"abc");
    let view = ArenaView::open(arena.path()).unwrap();
    assert_eq!(view.reader(1).err().unwrap().kind, Kind::Conflict);
    load.finish(&index(5, b"abc"), 8192).unwrap();
    let reader = view.reader(1).unwrap();
    assert_eq!(reader.index().unwrap().step, 5);
    let mut out = [0; 3];
    let mut to = |offset| CopyOut { target: out.as_mut_ptr(), bytes: 3, offset };
    let (inside, outside) = (to(5000), to(8190));
    // SAFETY: `out` is writable for 3 bytes.
    unsafe {
        assert_eq!(reader.copy_out(&[outside], 2).unwrap_err().kind, Kind::Invalid);
        reader.copy_out(&[inside], 2).unwrap();
    }
    assert_eq!(&out, b"abc");
}

#[test]
fn fill_refuses_runs_that_overlap_or_lie_outside() {
    let directory = tmpfs();
    let arena = arena(&directory);
    let fill = arena.slot(0).begin_fill(&begin(1)).unwrap();
    let writer = ArenaView::open(arena.path()).unwrap().writer(0, fill).unwrap();
    let data = [7u8; 8192];
    let run = |offset, bytes| CopyIn { source: data.as_ptr(), bytes, offset };
    for bad in [&[run(0, 100), run(99, 5)][..], &[run(4000, 97)], &[run(u64::MAX, 2)]] {
        // SAFETY: `data` outlives the call and is long enough.
        assert_eq!(unsafe { writer.fill(bad, 4096, 1) }.unwrap_err().kind, Kind::Invalid);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { writer.fill(&[run(0, 8)], 1 << 40, 1) }.unwrap_err().kind, Kind::Invalid);
    assert_eq!(writer.seal(&index(1, b""), arena.slot_bytes()).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn a_trainer_fills_the_page_tables_of_all_slots() {
    let directory = tmpfs();
    let arena = arena(&directory);
    let view = ArenaView::open(arena.path()).unwrap();
    view.populate();
    assert!(view.is_populated(0) && view.is_populated(1));
}
