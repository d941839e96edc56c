//! Copies by a forked child. A test binary of its own: until a child has closed what it inherited, it holds the locks of all
//! tests beside it.

use strata_core::error::Kind;
use strata_core::handoff::{
    Arena, ArenaDirectory, ArenaIdentity, ArenaView, Begin, CopyIn, MachineMemory, SlotWriter,
};
use strata_core::ids::{Generation, JobUuid, Rank, SessionId, Step};
use strata_core::proto::format::SlotIndex;

const BYTES: usize = 192 << 10;

fn whole(data: &[u8]) -> [CopyIn; 1] {
    [CopyIn { source: data.as_ptr(), bytes: data.len() as u64, offset: 0 }]
}

/// A slot that is being filled, under which number, and what keeps its file.
fn filling() -> (tempfile::TempDir, Arena, u64, SlotWriter) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let identity =
        ArenaIdentity { job: "run".parse().unwrap(), job_uuid: JobUuid::new(), rank: Rank(0), file: 0 };
    let arena = ArenaDirectory::open(directory.path(), uid)
        .unwrap()
        .create(&identity, 2, 2 * BYTES as u64, &MachineMemory::default())
        .unwrap();
    let begin = Begin { session: SessionId(9), generation: Generation(2), step: Step(1) };
    let fill = arena.slot(0).begin_fill(&begin).unwrap();
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
    writer.seal(&SlotIndex::default(), BYTES as u64).unwrap();
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
