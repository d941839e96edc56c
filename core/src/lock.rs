//! A lock file: one process at a time has what lies beside it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Doing, Error, Result};

/// Holds an exclusive `flock(2)`; dropped, or with the death of the process, the lock is free.
///
/// It is given back by name, not just closed: a child between fork and exec (or a forked copy of a trainer) has the
/// same open file, and would keep the lock for as long as it has it.
#[derive(Debug)]
pub struct LockFile(File);

impl LockFile {
    /// Takes the lock of the file at `path`, made with mode 0600 where there is none, and writes this process's id
    /// into it. Where somebody else has it: at once what `held` makes of the holder's id (empty when it isn't known).
    pub fn take(path: &Path, held: impl FnOnce(&str) -> Error) -> Result<LockFile> {
        let doing = || format!("locking {}", path.display());
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut lock = file.doing(doing)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).doing(doing)?;
                return Err(held(holder.trim()));
            }
            outcome => outcome.doing(doing)?,
        }
        let mut lock = LockFile(lock);
        lock.sign().doing(doing)?;
        Ok(lock)
    }

    /// Whether nobody holds the lock of the file at `path`; one that isn't there or can't be opened counts as held.
    pub fn is_free(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
        taken.map(|()| LockFile(file)).is_ok()
    }

    fn sign(&mut self) -> std::io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        write!(self.0, "{}", std::process::id())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!("giving back a lock file: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn held(by: &str) -> Error {
        Error::conflict(format!("pid {by} has it"))
    }

    #[test]
    fn second_taker_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = LockFile::take(&path, held).unwrap();
        assert!(!LockFile::is_free(&path));
        let error = LockFile::take(&path, held).unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(error.message.contains(&std::process::id().to_string()), "{}", error.message);
        drop(first);
        assert!(LockFile::is_free(&path));
    }

    #[test]
    fn lock_is_free_although_a_child_still_has_the_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = LockFile::take(&path, held).unwrap();
        // The same open file, as a child has it between fork and exec.
        let inherited = first.0.try_clone().unwrap();
        drop(first);
        LockFile::take(&path, held).unwrap();
        drop(inherited);
    }
}
