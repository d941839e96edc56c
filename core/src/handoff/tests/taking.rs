//! Copies that are made later, or by a forked child.

use super::*;
use crate::error::Kind;

const BYTES: usize = 192 << 10;

fn whole(data: &[u8]) -> [CopyIn; 1] {
    [CopyIn { source: data.as_ptr(), bytes: data.len() as u64, offset: 0 }]
}

/// A slot that is being filled, under which number, and what keeps its file.
fn filling() -> (tempfile::TempDir, Arena, u64, SlotWriter) {
    let directory = tmpfs();
    let arena = arena(&directory);
    let fill = arena.slot(0).begin_fill(&begin(1)).unwrap();
    let writer = ArenaView::open(arena.path()).unwrap().writer(0, fill).unwrap();
    (directory, arena, fill, writer)
}

#[test]
fn a_forked_child_copies_the_moment_of_the_fork() {
    let (_directory, arena, _, writer) = filling();
    let mut data: Vec<u8> = (0..BYTES).map(|i| (i * 7 + i / 251) as u8).collect();
    let before = data.clone();
    let plan = writer.plan(&whole(&data), BYTES as u64).unwrap();
    // SAFETY: `data` outlives the child, which is waited for.
    let child = unsafe { writer.copy_in_child(&plan, &[0]) }.unwrap();
    data.fill(0xee);
    child.wait().unwrap();
    writer.seal(&index(1, &data), BYTES as u64).unwrap();
    assert!(arena.slot(0).data().unwrap().as_ref()[..BYTES] == before[..]);
}

#[test]
fn a_child_stops_when_the_slot_is_taken_back() {
    let (_directory, arena, fill, writer) = filling();
    let data = vec![7; BYTES];
    let plan = writer.plan(&whole(&data), BYTES as u64).unwrap();
    arena.slot(0).free(fill).unwrap();
    // SAFETY: `data` outlives the call.
    let lost = unsafe { writer.copy_in_child(&plan, &[0]) }.and_then(|child| child.wait().map(drop));
    assert_eq!(lost.unwrap_err().kind, Kind::Conflict);
}

/// Wherever a run of twice the sampled distance changes, in memory or in the copy.
#[test]
fn a_write_to_a_tensor_that_waits_is_found_by_its_samples() {
    const LARGE: usize = 3 << 20;
    let directory = tmpfs();
    let arena = open(&directory)
        .unwrap()
        .create(&identity(0), 2, 2 * LARGE as u64, &MachineMemory::default())
        .unwrap();
    let fill = arena.slot(0).begin_fill(&begin(1)).unwrap();
    let writer = ArenaView::open(arena.path()).unwrap().writer(0, fill).unwrap();
    let mut data: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
    let plan = writer.plan(&whole(&data), LARGE as u64).unwrap();
    for seed in 0..20 {
        // SAFETY: here and below, `data` outlives the plan, and nobody else writes to it.
        let samples = unsafe { plan.sample(&[0], seed) };
        // SAFETY: as above.
        unsafe { writer.copy(&plan, &[0], 1).unwrap() };
        // SAFETY: as above.
        assert_eq!(unsafe { plan.first_changed(&samples) }, None);
        let from = (seed as usize * 131_071) % (LARGE - (512 << 10));
        data[from..from + (512 << 10)].iter_mut().for_each(|byte| *byte ^= 1);
        // SAFETY: as above.
        assert_eq!(unsafe { plan.first_changed(&samples) }, Some(0), "in memory, from {from}, seed {seed}");
        // SAFETY: as above.
        unsafe { writer.copy(&plan, &[0], 1).unwrap() };
        data[from..from + (512 << 10)].iter_mut().for_each(|byte| *byte ^= 1);
        // SAFETY: as above.
        assert_eq!(unsafe { plan.first_changed(&samples) }, Some(0), "in the copy, from {from}, seed {seed}");
    }
}
