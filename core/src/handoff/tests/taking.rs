//! Copies that are made later than the save.

use super::*;

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
    let plan = writer
        .plan(&[CopyIn { source: data.as_ptr(), bytes: data.len() as u64, offset: 0 }], LARGE as u64)
        .unwrap();
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
