//! A store in a directory: on a local disk, or on a file system that all nodes mount.
//! Small objects are complete, fsynced temporaries that are then published under their name; large ones are written
//! with O_DIRECT. Nothing here reads a name that starts with a dot.

mod aligned;
pub(super) mod changes;
mod error;
mod folders;
mod publish;
mod reader;
mod ring;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use self::aligned::Aligned;
use self::changes::{Change, change};
use self::error::failed;
#[cfg(test)]
pub(super) use self::writer::LocalWriter;
use super::options::DiskQueue;
use super::store::{Created, Listed, Reader, Store, Writer};
use crate::error::{Error, Kind, Result};

#[derive(Debug)]
pub(super) struct LocalStore {
    /// What the URL names: when this is not there, nothing is known about what lies in it.
    root: PathBuf,
    base: PathBuf,
    queue: DiskQueue,
}

impl LocalStore {
    pub fn new(root: &Path, folder: &str, queue: DiskQueue) -> LocalStore {
        LocalStore { root: root.to_owned(), base: root.join(folder), queue }
    }

    fn full(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    fn begin(&self, path: &str, at_most: u64, existing: publish::Existing) -> Result<Box<dyn Writer>> {
        let (full, queue) = (self.full(path), self.queue);
        Ok(Box::new(writer::LocalWriter::begin_as(&self.base, &full, at_most, queue, existing)?))
    }

    /// An empty listing must mean that there is nothing, not that a disk is not mounted.
    fn nothing_there(&self, doing: &str) -> Result<()> {
        match fs::metadata(&self.root) {
            Ok(_) => Ok(()),
            Err(error) => {
                let error =
                    failed(format!("{doing} in the store {}", self.root.display()), &self.root, &error);
                Err(error.hint("is the disk mounted? A store that is to be new is made by the first save"))
            }
        }
    }
}

impl Store for LocalStore {
    fn name_of(&self, path: &str) -> String {
        self.full(path).display().to_string()
    }

    fn make_place(&self) -> Result<()> {
        folders::make(&self.base)
    }

    fn place_uid(&self) -> Result<Option<u32>> {
        use std::os::unix::fs::MetadataExt;
        match fs::metadata(&self.base) {
            Ok(found) => Ok(Some(found.uid())),
            Err(error) => Err(failed(format!("looking at {}", self.base.display()), &self.base, &error)),
        }
    }

    fn create(&self, path: &str, content: Bytes) -> Result<Created> {
        publish::write(&self.base, &self.full(path), &content, publish::Existing::Keep)
    }

    fn replace(&self, path: &str, content: Bytes) -> Result<()> {
        publish::write(&self.base, &self.full(path), &content, publish::Existing::Replace).map(drop)
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        let full = self.full(path);
        fs::read(&full).map(Bytes::from).map_err(|error| error::unreadable(&full, &error))
    }

    fn reader(&self, path: &str) -> Result<Box<dyn Reader>> {
        Ok(Box::new(reader::LocalReader::open(&self.full(path))?))
    }

    fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        self.begin(path, at_most, publish::Existing::Keep)
    }

    fn rewriter(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        self.begin(path, at_most, publish::Existing::Replace)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            for (name, is_folder) in folders::entries(&self.full(&folder))?.unwrap_or_default() {
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if is_folder {
                    open.push(path);
                    continue;
                }
                let full = self.full(&path);
                match fs::metadata(&full) {
                    Ok(data) => found.push(Listed { path, bytes: data.len() }),
                    // Deleted since its folder was read.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(format!("listing {}", full.display()), &full, &error)),
                }
            }
        }
        if found.is_empty() {
            self.nothing_there("listing")?;
        }
        Ok(found)
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let Some(entries) = folders::entries(&self.full(folder))? else {
            self.nothing_there("listing")?;
            return Ok(Vec::new());
        };
        Ok(entries.into_iter().filter(|(_, is_folder)| *is_folder).map(|(name, _)| name).collect())
    }

    fn delete(&self, paths: &[String]) -> Result<()> {
        let mut touched = std::collections::BTreeSet::new();
        for path in paths {
            let full = self.full(path);
            match change(Change::Unlink(&full), || fs::remove_file(&full)) {
                Ok(()) => {}
                // Whoever deleted it may have been killed before that was durable.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(format!("deleting {}", full.display()), &full, &error)),
            }
            touched.extend(full.parent().map(Path::to_owned));
        }
        for folder in touched {
            match folders::sync(&folder) {
                // Whoever removed the folder made that durable.
                Err(error) if error.kind == Kind::NotFound => {}
                other => other?,
            }
            folders::remove_empty(&folder, &self.base)?;
        }
        Ok(())
    }

    fn sweep(&self, folder: &str) -> Result<u64> {
        let full = self.full(folder);
        let mut freed = 0;
        for name in publish::leftovers(&full)? {
            let path = full.join(name);
            let bytes = fs::metadata(&path).map_or(0, |data| data.len());
            match change(Change::Unlink(&path), || fs::remove_file(&path)) {
                Ok(()) => freed += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(format!("removing {}", path.display()), &path, &error)),
            }
        }
        folders::remove_empty(&full, &self.base)?;
        Ok(freed)
    }
}

/// A name inside a path of ours always has a parent.
fn parent(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| Error::internal(format!("{} lies in no directory", path.display())))
}
