//! Ranged reads of a large file, past the page cache where that can be had.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::aligned::{ALIGNMENT, Aligned, BOUNCE, DirectFile, is_aligned};
use super::error::unreadable;
use crate::error::{Error, Result};
use crate::storage::Reader;

pub struct LocalReader {
    file: DirectFile,
    path: PathBuf,
    bytes: u64,
}

impl LocalReader {
    pub fn open(path: &Path) -> Result<LocalReader> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = match open(libc::O_DIRECT) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => open(0),
            other => other,
        };
        let file = file.map_err(|error| unreadable(path, &error))?;
        let bytes = file.metadata().map_err(|error| unreadable(path, &error))?.len();
        Ok(LocalReader { file: DirectFile::new(file, path), path: path.to_owned(), bytes })
    }

    fn read(&self, target: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(target, offset).map_err(|error| unreadable(&self.path, &error))
    }

    fn ends_early(&self, offset: u64, wanted: usize) -> Error {
        Error::corrupt(format!(
            "reading {wanted} bytes at {offset} of {}: it ends before ({} bytes)",
            self.path.display(),
            self.bytes
        ))
    }

    /// Through aligned memory: the blocks that hold the range are read whole.
    fn read_through(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        let wanted = target.len();
        let mut bounce = Aligned::new(BOUNCE.min(wanted.next_multiple_of(ALIGNMENT) + ALIGNMENT));
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let skip = (at % ALIGNMENT as u64) as usize;
            let take = (skip + wanted - done).next_multiple_of(ALIGNMENT).min(bounce.get().len());
            let read = self.read(&mut bounce.get()[..take], at - skip as u64)?;
            if read <= skip {
                return Err(self.ends_early(offset, wanted));
            }
            let bytes = (read - skip).min(wanted - done);
            target[done..done + bytes].copy_from_slice(&bounce.get()[skip..skip + bytes]);
            done += bytes;
        }
        Ok(())
    }
}

impl Reader for LocalReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        if offset.checked_add(target.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(self.ends_early(offset, target.len()));
        }
        let straight = if is_aligned(target) && offset.is_multiple_of(ALIGNMENT as u64) {
            target.len() - target.len() % ALIGNMENT
        } else {
            0
        };
        let (head, tail) = target.split_at_mut(straight);
        if self.read(head, offset)? < head.len() {
            return Err(self.ends_early(offset, straight));
        }
        self.read_through(offset + straight as u64, tail)
    }
}
