//! Restored tensors that are views of the arena: whatever becomes of the slot, they hold what was restored, and what was
//! written to them since.

mod sidecar;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use sidecar::trainer::{committed, contents};
use sidecar::{Cluster, State, Trainer, eventually};
use strata_core::client::{MappedSlot, RestoreOptions, RestoredSlot};
use strata_core::handoff::MachineMemory;

const MIB: usize = 1 << 20;

/// `tensors` of 8 MiB each, every word of which depends on the step and the place.
fn state(step: u64, tensors: usize) -> State {
    let word = |number: usize, at: usize| (step << 48 | (number as u64) << 40 | at as u64).to_le_bytes();
    let bytes = |number: usize| (0..MIB).flat_map(|at| word(number, at)).collect();
    let named = |number: usize| (format!("t{number}"), bytes(number), false);
    State { tree: b"{}".to_vec(), tensors: (0..tensors).map(named).collect() }
}

fn save(trainer: &Trainer, step: u64, tensors: usize) {
    committed(&trainer.save(step, &state(step, tensors)).unwrap()).unwrap();
}

/// Step 1, restored and mapped, one byte of it written to.
struct Views {
    mapped: MappedSlot,
    places: Vec<(u64, usize)>,
    expected: State,
}

impl Views {
    fn of(slot: RestoredSlot) -> Views {
        assert_eq!(slot.source(), "arena");
        let expected = contents(&slot);
        let places = slot.tensors().iter().map(|tensor| (tensor.offset, tensor.bytes as usize)).collect();
        let all: Vec<usize> = (0..slot.tensors().len()).collect();
        let mapped = MappedSlot::new(&Arc::new(slot), &all).unwrap().expect("there is memory for 16 MiB");
        let mut views = Views { mapped, places, expected };
        views.bytes(1)[4321] ^= 0xff;
        views.expected.tensors[1].1[4321] ^= 0xff;
        views
    }

    fn bytes(&mut self, number: usize) -> &mut [u8] {
        let (offset, bytes) = self.places[number];
        // SAFETY: inside the mapping, which `self` keeps and alone looks at.
        unsafe { std::slice::from_raw_parts_mut(self.mapped.address().add(offset as usize), bytes) }
    }

    fn check(&mut self) {
        for number in 0..self.places.len() {
            let expected = std::mem::take(&mut self.expected.tensors[number].1);
            assert!(self.bytes(number) == expected, "tensor {number} changed");
            self.expected.tensors[number].1 = expected;
        }
    }
}

fn mapped(cluster: &Cluster) -> (Trainer, Views) {
    let trainer = Trainer::world(cluster, "j", 1).pop().unwrap();
    save(&trainer, 1, 2);
    let views = Views::of(trainer.restore(RestoreOptions::default()).unwrap().unwrap());
    (trainer, views)
}

#[test]
fn views_keep_their_values_when_saves_want_their_slot() {
    let cluster = Cluster::start();
    let (trainer, mut views) = mapped(&cluster);
    for step in 2..7 {
        save(&trainer, step, 2);
        views.check();
    }
    // And what is saved from now on is not theirs.
    let newest = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    assert_eq!(contents(&newest), state(6, 2));
    views.check();
}

#[test]
fn views_outlive_a_sidecar_and_its_successor_knows_their_lease() {
    let mut cluster = Cluster::start();
    let (trainer, mut views) = mapped(&cluster);
    cluster.stop_sidecar();
    views.check();
    cluster.start_sidecar();
    for step in 2..7 {
        save(&trainer, step, 2);
        views.check();
    }
}

#[test]
fn views_outlive_their_session_and_then_give_its_arena_back() {
    let cluster = Cluster::start();
    let (trainer, mut views) = mapped(&cluster);
    let [arena] = &cluster.arena_files()[..] else { panic!("one arena") };
    let file = std::fs::File::open(arena).unwrap();
    trainer.close();
    views.check();
    assert!(arena.exists(), "somebody reads it");
    views.mapped.clone().own_in_background().unwrap();
    eventually("the arena is removed", || !arena.exists());
    eventually("its memory is given back although it is still mapped", || {
        file.metadata().unwrap().blocks() * 512 < MIB as u64
    });
    views.check();
}

#[test]
fn views_outlive_an_arena_that_a_larger_state_replaces() {
    let cluster = Cluster::start();
    let (trainer, mut views) = mapped(&cluster);
    let [old] = &cluster.arena_files()[..] else { panic!("one arena") };
    for step in 2..5 {
        save(&trainer, step, 5);
        views.check();
    }
    eventually("the old arena is removed", || !old.exists());
    views.check();
}

#[test]
fn views_outlive_a_generation_and_their_process_joins_the_next() {
    let cluster = Cluster::start();
    let (trainer, mut views) = mapped(&cluster);
    drop(trainer);
    let again = Trainer::world(&cluster, "j", 1).pop().unwrap();
    for step in 2..6 {
        save(&again, step, 2);
        views.check();
    }
}

#[test]
fn state_is_not_mapped_where_memory_to_own_it_is_short() {
    let cluster = Cluster::start();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    save(&trainer, 1, 2);
    let slot = Arc::new(trainer.restore(RestoreOptions::default()).unwrap().unwrap());
    let machine = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(machine.path().join("proc/self")).unwrap();
    for (file, text) in [("self/cgroup", ""), ("self/mountinfo", ""), ("meminfo", "MemAvailable: 12288 kB\n")]
    {
        std::fs::write(machine.path().join("proc").join(file), text).unwrap();
    }
    let memory = MachineMemory::below(machine.path());
    assert!(MappedSlot::within(&memory, &slot, &[0, 1]).unwrap().is_none(), "16 MiB of 12");
    assert!(MappedSlot::within(&memory, &slot, &[0]).unwrap().is_some(), "8 MiB of 12");
    assert!(MappedSlot::new(&slot, &[0, 2]).is_err(), "there is no third tensor");
}

#[test]
fn part_of_a_state_comes_from_the_arena_and_only_its_own_chunks_must_be_whole() {
    let cluster = Cluster::start();
    let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
    save(&trainer, 1, 3);
    let [arena] = &cluster.arena_files()[..] else { panic!("one arena") };
    let slot = trainer.restore(RestoreOptions::default()).unwrap().unwrap();
    let offset = slot.tensors()[2].offset;
    drop(slot);
    // Where the tensor's own words lie in the file.
    let (file, words) = (std::fs::File::options().read(true).write(true).open(arena).unwrap(), state(1, 3));
    let mut found = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    let at = found.windows(64).position(|run| run == &words.tensors[2].1[..64]).unwrap() as u64;
    assert!(at >= offset);
    file.write_all_at(&[0xaa], at + 5 * MIB as u64).unwrap();

    let part = |only: &str| RestoreOptions { only: only.into(), ..RestoreOptions::default() };
    let two = trainer.restore(part("t[01]")).unwrap().unwrap();
    assert_eq!((two.source(), two.bytes(1).unwrap()), ("arena", &words.tensors[1].1[..]));
    drop(two);
    let hit = trainer.restore(part("t2")).unwrap().unwrap();
    assert_eq!((hit.source(), hit.bytes(2).unwrap()), ("store", &words.tensors[2].1[..]));
}
