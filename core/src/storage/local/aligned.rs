//! Memory as O_DIRECT wants it: addresses, offsets and lengths that are multiples of 4096.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::changes::{Change, change};

/// Of every disk and file system that we met; others refuse with EINVAL, and are used without O_DIRECT.
pub const ALIGNMENT: usize = 4096;
/// Bytes copied at once where the caller's memory is not aligned.
pub const BOUNCE: usize = 1 << 20;

pub fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// Zeroed memory at an aligned address.
pub struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Aligned {
    pub fn new(length: usize) -> Aligned {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Aligned { bytes, start, length }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    pub fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// A file that may have been opened with O_DIRECT; loses it at the first EINVAL, for file systems that take the flag
/// and refuse the access.
pub struct DirectFile {
    pub file: File,
    /// Where it was opened.
    path: PathBuf,
    /// False once an EINVAL can't come from O_DIRECT any more.
    direct: AtomicBool,
}

impl DirectFile {
    pub fn new(file: File, path: &Path) -> DirectFile {
        let direct = fcntl_getfl(&file).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
        DirectFile { file, path: path.to_owned(), direct: AtomicBool::new(direct) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file still goes past the page cache.
    pub fn is_direct(&self) -> bool {
        fcntl_getfl(&self.file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
    }

    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match change(Change::Write(&self.path), || self.file.write_at(bytes, offset)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) => self.again_without_direct(error)?,
            }
        }
        Ok(())
    }

    /// Reads until `target` is full or the file ends; the bytes read.
    pub fn read_at(&self, target: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < target.len() {
            match self.file.read_at(&mut target[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) => self.again_without_direct(error)?,
            }
        }
        Ok(done)
    }

    fn again_without_direct(&self, error: io::Error) -> io::Result<()> {
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(());
        }
        // A second thread that met EINVAL before the first one cleared the flag tries again as well.
        if error.raw_os_error() != Some(libc::EINVAL) || !self.direct.load(Ordering::Relaxed) {
            return Err(error);
        }
        let flags = fcntl_getfl(&self.file)?;
        fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
        if !flags.contains(OFlags::DIRECT) {
            self.direct.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}
