//! What the log asks of a disk, and the folder that does it. Tests put a disk in its place that dies at any write.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A folder of few files. Nothing is durable before it is synced: bytes and length by the file, names by the folder.
pub trait Disk: Send {
    /// None: there is no file of this name.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>>;

    /// Makes the file, or empties it.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Over a file of that name, where there is one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes durable which names it holds.
    fn sync(&self) -> io::Result<()>;

    /// For messages.
    fn path(&self, name: &str) -> PathBuf;
}

pub trait DiskFile: Send {
    fn read(&mut self) -> io::Result<Vec<u8>>;

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes its bytes and its length durable.
    fn sync(&self) -> io::Result<()>;
}

pub struct Folder(PathBuf);

impl Folder {
    /// Makes it, durably, where there is none.
    pub fn open(path: &Path) -> io::Result<Folder> {
        match std::fs::create_dir(path) {
            Ok(()) => path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(Folder(path.to_owned()))
    }
}

impl Disk for Folder {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn DiskFile>>> {
        match File::options().read(true).write(true).open(self.path(name)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(self.path(name))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl DiskFile for File {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.rewind()?;
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    /// fdatasync: over bytes that are allocated and written already it waits for no journal.
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
