//! The arena directories of this node: one per user that is served.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Doing, Error, Result};
use crate::handoff::ArenaDirectory;
use crate::lock::LockFile;

pub(super) struct Directories {
    own: PathBuf,
    uid: u32,
    /// Emptied at the end: whoever still holds one keeps its lock no longer than its own work takes.
    open: Mutex<BTreeMap<u32, Arc<ArenaDirectory>>>,
}

impl Directories {
    /// Opens this user's directory and, as root, those that other users left before.
    pub fn open(own: &Path) -> Result<Directories> {
        let uid = rustix::process::geteuid().as_raw();
        let directories = Directories { own: own.to_owned(), uid, open: Mutex::default() };
        directories.of(uid)?;
        if !in_memory(own) {
            tracing::warn!(
                "the arena directory {} is not on a memory file system: saves will wait for its disk (hint: leave \
                 STRATA_ARENA_DIR unset, or name a directory of a tmpfs)",
                own.display()
            );
        }
        if uid == 0 {
            for other in directories.left_by_others()? {
                directories.of(other)?;
            }
        }
        Ok(directories)
    }

    /// Whether trainers of other users may come.
    pub fn serves_everyone(&self) -> bool {
        self.uid == 0
    }

    pub fn uid(&self) -> u32 {
        self.uid
    }

    pub fn of(&self, uid: u32) -> Result<Arc<ArenaDirectory>> {
        let mut open = self.open.lock();
        if let Some(known) = open.get(&uid) {
            return Ok(known.clone());
        }
        let opened = Arc::new(ArenaDirectory::open(&self.path_of(uid), uid)?);
        open.insert(uid, opened.clone());
        Ok(opened)
    }

    pub fn all(&self) -> Vec<(u32, Arc<ArenaDirectory>)> {
        self.open.lock().iter().map(|(uid, directory)| (*uid, directory.clone())).collect()
    }

    pub fn close(&self) {
        self.open.lock().clear();
    }

    /// Ours says where they are: beside it, with their own number.
    fn path_of(&self, uid: u32) -> PathBuf {
        if uid == self.uid {
            return self.own.clone();
        }
        self.own.with_file_name(format!("{}{uid}", self.stem()))
    }

    /// `strata-0` gives `strata-`, any other name itself and a dash.
    fn stem(&self) -> String {
        let name = self.own.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.strip_suffix(&format!("-{}", self.uid)) {
            Some(stem) => format!("{stem}-"),
            None => format!("{name}-"),
        }
    }

    fn left_by_others(&self) -> Result<Vec<u32>> {
        let folder = self
            .own
            .parent()
            .ok_or_else(|| Error::invalid(format!("using {} for arenas", self.own.display())))?;
        let doing = || format!("looking for arenas in {}", folder.display());
        let stem = self.stem();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = entry.file_name();
            let uid = name.to_str().and_then(|name| name.strip_prefix(&stem)?.parse::<u32>().ok());
            if let Some(uid) = uid.filter(|uid| *uid != self.uid) {
                use std::os::unix::fs::MetadataExt;
                // A directory that somebody made under another's number is not theirs.
                let is_theirs = entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == uid);
                // One that another sidecar holds is that sidecar's.
                let lock = entry.path().join("sidecar.lock");
                let is_idle = !lock.exists() || LockFile::is_free(&lock);
                if is_theirs && is_idle {
                    found.push(uid);
                }
            }
        }
        Ok(found)
    }
}

/// What can't be looked at is not complained about.
fn in_memory(folder: &Path) -> bool {
    // linux/magic.h: tmpfs, ramfs, hugetlbfs.
    const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];
    rustix::fs::statfs(folder).map_or(true, |found| IN_MEMORY.contains(&(found.f_type as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_users_arenas_lie_beside_ours_under_their_own_number() {
        let at = |own: &str, uid| Directories { own: own.into(), uid, open: Mutex::default() };
        assert_eq!(at("/dev/shm/strata-0", 0).path_of(1000), PathBuf::from("/dev/shm/strata-1000"));
        assert_eq!(at("/arenas/here", 0).path_of(1000), PathBuf::from("/arenas/here-1000"));
        assert_eq!(at("/arenas/here", 0).path_of(0), PathBuf::from("/arenas/here"));
    }
}
