//! Whether there is memory for an arena, asked before it is allocated: a shortfall is an error with its numbers, never
//! a SIGBUS and never the OOM killer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cgroup::memory_room;
use crate::error::{Doing, Error, Result};

const ARENAS_TAKE: &str = "raise the container's memory limit, or use a machine with more memory, fewer slots, or save less: \
                           arenas take slots x state per rank";

/// Asked before an arena of `needed` bytes is made in `directory`.
pub trait MemoryBudget: Send + Sync {
    /// Overloaded, with what is needed, free and allowed, when it won't fit beside what is promised already.
    fn promise(&self, directory: &Path, needed: u64) -> Result<Promise>;
}

/// Memory that was allowed and is not taken yet: nobody else is allowed it. The rest comes free when this is dropped.
#[derive(Debug, Default)]
pub struct Promise {
    left: u64,
    /// Of all promises of a budget.
    sum: Arc<AtomicU64>,
}

impl Promise {
    /// `bytes` of it were taken: from now on they are missing in what is free.
    pub fn kept(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.sum.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.kept(self.left);
    }
}

/// The machine's own limits: free space of the tmpfs, the memory cgroups of this process, available memory.
pub struct MachineMemory {
    /// Where `/proc` and the cgroup mounts are looked for; `/` except in tests.
    root: PathBuf,
    promised: Arc<AtomicU64>,
}

impl Default for MachineMemory {
    fn default() -> MachineMemory {
        MachineMemory::below("/")
    }
}

impl MachineMemory {
    pub fn below(root: impl Into<PathBuf>) -> MachineMemory {
        MachineMemory { root: root.into(), promised: Arc::default() }
    }

    /// Overloaded, with the numbers, when `bytes` of this process's memory can't be copied because it writes to them
    /// while a forked child still reads them.
    pub fn room_for_copies(&self, bytes: u64) -> Result<()> {
        self.has_memory(bytes, "what changes while a forked child copies")
    }

    /// Overloaded, with the numbers, when `bytes` of a slot that is mapped into this process can't become its own.
    pub fn room_for_own(&self, bytes: u64) -> Result<()> {
        self.has_memory(bytes, "restored tensors that are views of the arena")
    }

    /// In the memory cgroups of this process and in the machine.
    fn has_memory(&self, needed: u64, what: &str) -> Result<()> {
        let promised = self.promised.load(Ordering::Relaxed);
        for room in memory_room(&self.root)? {
            let free = room.free().saturating_sub(promised);
            if needed > free {
                let place = format!("memory cgroup {} (limit {})", room.path.display(), human(room.limit));
                return Err(shortfall(needed, free, what, &place));
            }
        }
        match self.available()?.map(|bytes| bytes.saturating_sub(promised)) {
            Some(available) if needed > available => {
                Err(shortfall(needed, available, what, "this machine's memory"))
            }
            _ => Ok(()),
        }
    }

    fn available(&self) -> Result<Option<u64>> {
        let path = self.root.join("proc/meminfo");
        let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        Ok(line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).map(|kib| kib << 10))
    }
}

impl MemoryBudget for MachineMemory {
    fn promise(&self, directory: &Path, needed: u64) -> Result<Promise> {
        let promised = self.promised.load(Ordering::Relaxed);
        let volume = rustix::fs::statvfs(directory)
            .doing(|| format!("asking for the size of {}", directory.display()))?;
        let free = (volume.f_bavail * volume.f_frsize).saturating_sub(promised);
        if needed > free {
            let size = volume.f_blocks * volume.f_frsize;
            return Err(shortfall(needed, free, "the arena", &format!("{} ({} in all)", directory.display(), human(size))).hint(
                "enlarge that volume (docker: --shm-size; Kubernetes: the emptyDir's sizeLimit; else remount it with a \
                 larger size), or set STRATA_ARENA_DIR to a larger tmpfs",
            ));
        }
        self.has_memory(needed, "the arena").map_err(|error| error.hint(ARENAS_TAKE))?;
        self.promised.fetch_add(needed, Ordering::Relaxed);
        Ok(Promise { left: needed, sum: self.promised.clone() })
    }
}

fn shortfall(needed: u64, free: u64, what: &str, place: &str) -> Error {
    Error::overloaded(format!(
        "finding memory for {what}: needs {} ({needed} bytes), {} ({free} bytes) are free in {place}",
        human(needed),
        human(free)
    ))
}

/// `1.5 GiB`.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
