//! Arenas on a real tmpfs.

mod allocation;
mod budget;
mod directory;
mod huge;
mod slots;
mod taking;

use std::path::PathBuf;

use super::*;
use crate::error::Result;
use crate::ids::{Generation, JobUuid, Rank, SessionId, Step};
use crate::proto::format::{SlotIndex, Tensor};

/// A directory on the machine's tmpfs that goes with the value.
fn tmpfs() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("strata-test-").tempdir_in("/dev/shm").unwrap()
}

fn open(directory: &tempfile::TempDir) -> Result<ArenaDirectory> {
    ArenaDirectory::open(directory.path(), rustix::process::geteuid().as_raw())
}

fn identity(file: u64) -> ArenaIdentity {
    ArenaIdentity { job: "run.new".parse().unwrap(), job_uuid: JobUuid::new(), rank: Rank(1), file }
}

fn begin(step: u64) -> Begin {
    Begin { session: SessionId(9), generation: Generation(2), step: Step(step) }
}

fn arena(directory: &tempfile::TempDir) -> Arena {
    open(directory).unwrap().create(&identity(0), 2, 256 << 10, &MachineMemory::default()).unwrap()
}

fn index(step: u64, data: &[u8]) -> SlotIndex {
    let tensor = Tensor { name: "w".into(), bytes: data.len() as u64, staged: true, ..Tensor::default() };
    SlotIndex { step, tensors: vec![tensor], tree: b"{}".to_vec(), ..SlotIndex::default() }
}

/// What a trainer does: opens the file by path, copies, seals.
fn save(path: &std::path::Path, slot: u32, fill: u64, step: u64, data: &[u8]) -> Result<()> {
    let writer = ArenaView::open(path)?.writer(slot, fill)?;
    let copies = [CopyIn { source: data.as_ptr(), bytes: data.len() as u64, offset: 0 }];
    let data_bytes = (data.len() as u64).next_multiple_of(4096);
    // SAFETY: `data` outlives the call.
    unsafe { writer.fill(&copies, data_bytes, 1)? };
    writer.seal(&index(step, data), data_bytes)
}

fn root_with(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let path = root.path().to_owned();
    (root, path)
}

/// Page faults of the calling thread so far that needed no disk.
pub(super) fn minor_faults() -> u64 {
    // SAFETY: all zeroes are valid; the call fills it in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_minflt as u64
}

/// Bytes under `key` of the mapping that begins at `start`, as proc_pid_smaps(5) has them.
pub(super) fn in_smaps(start: u64, key: &str) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        if let Some(range) = super::forkable::range(line) {
            inside = range.contains(&start);
        } else if inside && line.starts_with(key) {
            return line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10;
        }
    }
    panic!("no {key} of a mapping at {start:x}")
}
