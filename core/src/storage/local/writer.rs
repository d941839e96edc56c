//! A large file written by several threads, straight from the caller's memory where that is aligned.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

use super::aligned::{ALIGNMENT, Aligned, BOUNCE, DirectFile, is_aligned};
use super::error::failed;
use super::publish::{Existing, Temporary};
use crate::error::{Error, Result};
use crate::storage::{Created, Piece, Writer, crc32c};

/// Room is allocated ahead in steps: one extent that grows lets writers go on side by side (an ext4 write past the end
/// of a file locks it alone), and a full disk shows before the bytes are sent.
const ALLOCATION_STEP: u64 = 256 << 20;

pub struct LocalWriter {
    file: DirectFile,
    target: PathBuf,
    at_most: u64,
    ends: Mutex<Ends>,
    /// Taken by `finish`; dropped before, it unlinks the file.
    temporary: Mutex<Option<Temporary>>,
}

#[derive(Default)]
struct Ends {
    data: u64,
    allocated: u64,
}

impl LocalWriter {
    pub fn begin(place: &Path, target: &Path, at_most: u64) -> Result<LocalWriter> {
        let temporary = Temporary::create(place, target, libc::O_DIRECT)?;
        let file = temporary.file.try_clone();
        let file = file.map_err(|error| failed(format!("creating {}", target.display()), target, &error))?;
        Ok(LocalWriter {
            file: DirectFile::new(file),
            target: target.to_owned(),
            at_most: at_most.next_multiple_of(ALIGNMENT as u64),
            ends: Mutex::default(),
            temporary: Mutex::new(Some(temporary)),
        })
    }

    #[cfg(test)]
    pub fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    /// As it must never be done: from an address that O_DIRECT refuses.
    #[cfg(test)]
    pub fn write_unaligned_for_test(&self, bytes: &[u8]) {
        self.file.write_at(bytes, 0).unwrap();
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        failed(format!("writing {}", self.target.display()), &self.target, error)
    }

    /// The next `bytes` of the file.
    fn reserve(&self, bytes: u64) -> Result<u64> {
        let mut ends = self.ends.lock();
        let (offset, end) = (ends.data, ends.data + bytes);
        if end > ends.allocated {
            let step = ALLOCATION_STEP.min(self.at_most.saturating_sub(ends.allocated));
            let wished = (ends.allocated + step).max(end);
            // A disk that lacks the step may have room for the piece.
            ends.allocated = match self.allocate(ends.allocated, wished) {
                Err(Errno::NOSPC) if wished > end => self.allocate(ends.allocated, end),
                other => other,
            }
            .map_err(|errno| self.failed(&errno.into()))?;
        }
        ends.data = end;
        Ok(offset)
    }

    fn allocate(&self, from: u64, to: u64) -> rustix::io::Result<u64> {
        match fallocate(&self.file.file, FallocateFlags::empty(), from, to - from) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => ftruncate(&self.file.file, to)?,
            other => other?,
        }
        Ok(to)
    }

    /// Through aligned memory, the last block padded with zeros.
    fn write_through(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let mut bounce = Aligned::new(BOUNCE.min(bytes.len().next_multiple_of(ALIGNMENT)));
        for (number, part) in bytes.chunks(BOUNCE).enumerate() {
            let padded = part.len().next_multiple_of(ALIGNMENT);
            bounce.get()[..part.len()].copy_from_slice(part);
            bounce.get()[part.len()..padded].fill(0);
            self.file.write_at(&bounce.get()[..padded], offset + (number * BOUNCE) as u64)?;
        }
        Ok(())
    }
}

impl Writer for LocalWriter {
    fn append(&self, piece: Piece) -> Result<u64> {
        let bytes = piece.bytes.as_ref();
        let offset = self.reserve(bytes.len().next_multiple_of(ALIGNMENT) as u64)?;
        let straight = if is_aligned(bytes) { bytes.len() - bytes.len() % ALIGNMENT } else { 0 };
        let (head, tail) = bytes.split_at(straight);
        self.file
            .write_at(head, offset)
            .and_then(|()| self.write_through(tail, offset + straight as u64))
            .map_err(|error| self.failed(&error))?;
        if crc32c(bytes) != piece.crc32c {
            return Err(Error::corrupt(format!(
                "writing {}: the bytes at its {offset} changed while they were written",
                self.target.display()
            )));
        }
        Ok(offset)
    }

    fn finish(&self) -> Result<u64> {
        let Some(temporary) = self.temporary.lock().take() else {
            return Err(Error::internal(format!("finishing {} a second time", self.target.display())));
        };
        let ends = self.ends.lock();
        ftruncate(&self.file.file, ends.data).map_err(|errno| self.failed(&errno.into()))?;
        self.file
            .file
            .sync_all()
            .map_err(|error| failed(format!("syncing {}", self.target.display()), &self.target, &error))?;
        match temporary.publish(&self.target, Existing::Keep)? {
            Created::New => Ok(ends.data),
            Created::Exists => {
                Err(Error::conflict(format!("publishing {}: the name is taken", self.target.display())))
            }
        }
    }
}
