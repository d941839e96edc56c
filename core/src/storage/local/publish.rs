//! A complete, fsynced temporary becomes an object: create-only by RENAME_NOREPLACE, or link(2) where the file system
//! does not know it (NFS), then the directory is fsynced.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::changes::{Change, change};
use super::error::failed;
use super::{folders, parent};
use crate::error::{Error, Result};
use crate::storage::Created;

const TEMPORARY: &str = ".writing-";
/// Another process may remove a folder that it sees empty just after we made it.
const FOLDER_TRIES: usize = 16;
/// After a failed fsync the kernel may call the lost pages clean: only a new file can be trusted.
const WRITE_TRIES: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Keep,
    Replace,
}

/// A file that is not yet an object; unlinked when dropped before it is published.
pub struct Temporary {
    pub file: File,
    pub path: PathBuf,
    published: bool,
}

/// Writes a whole small object below `place`, which must be there. Atomic and durable.
pub fn write(place: &Path, target: &Path, content: &[u8], existing: Existing) -> Result<Created> {
    let doing = || format!("writing {}", target.display());
    let mut last = None;
    for _ in 0..WRITE_TRIES {
        let mut temporary = Temporary::create(place, target, 0)?;
        change(Change::Write(&temporary.path), || temporary.file.write_all(content))
            .map_err(|error| failed(doing(), target, &error))?;
        match change(Change::Sync(&temporary.path), || temporary.file.sync_all()) {
            Ok(()) => return temporary.publish(target, existing),
            Err(error) => last = Some(error),
        }
    }
    let error = last.expect("the loop runs at least once");
    Err(failed(format!("syncing {} (written {WRITE_TRIES} times)", target.display()), target, &error))
}

impl Temporary {
    /// Beside `target`, in a folder that is made if need be, but for `place`, which must be there. `flags`: open(2)'s, beyond the usual ones.
    pub fn create(place: &Path, target: &Path, flags: i32) -> Result<Temporary> {
        let folder = parent(target)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!("{TEMPORARY}{name}-{:016x}", rand::random::<u64>()));
        for _ in 0..FOLDER_TRIES {
            let open =
                || OpenOptions::new().read(true).write(true).create_new(true).custom_flags(flags).open(&path);
            match change(Change::Create(&path), open) {
                Ok(file) => return Ok(Temporary { file, path, published: false }),
                Err(error) if error.kind() == ErrorKind::NotFound => folders::make_below(place, folder)?,
                // Refused flags leave the name behind on some file systems.
                Err(error) if error.kind() == ErrorKind::InvalidInput && flags != 0 => {
                    let _ = change(Change::Unlink(&path), || fs::remove_file(&path));
                    return Temporary::create(place, target, 0);
                }
                Err(error) => return Err(failed(format!("creating {}", path.display()), &path, &error)),
            }
        }
        Err(Error::unavailable(format!(
            "creating {}: its directory is removed again and again",
            path.display()
        )))
    }

    /// Gives the fsynced file its name and fsyncs the directory.
    pub fn publish(mut self, target: &Path, existing: Existing) -> Result<Created> {
        let created = match existing {
            Existing::Replace => {
                change(Change::Rename(&self.path, target), || fs::rename(&self.path, target))
                    .map_err(|error| failed(format!("publishing {}", target.display()), target, &error))?;
                self.published = true;
                Created::New
            }
            Existing::Keep => self.take_name(target)?,
        };
        // Also where it exists: whoever wrote it may not have come to this yet, and the caller relies on it.
        folders::sync(parent(target)?)?;
        Ok(created)
    }

    fn take_name(&mut self, target: &Path) -> Result<Created> {
        let failed = |errno: Errno| failed(format!("publishing {}", target.display()), target, &errno.into());
        let rename = || renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE);
        match change(Change::Rename(&self.path, target), rename) {
            Ok(()) => {
                self.published = true;
                Ok(Created::New)
            }
            Err(Errno::EXIST) => Ok(Created::Exists),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_name(target).map_err(failed),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Over NFS a repeated request may be told that the name exists although the first one made it: the count of
    /// links tells (open(2), O_EXCL).
    fn link_name(&self, target: &Path) -> rustix::io::Result<Created> {
        let outcome = change(Change::Link(&self.path, target), || rustix::fs::link(&self.path, target));
        let linked = self.file.metadata().is_ok_and(|data| data.nlink() == 2);
        match outcome {
            _ if linked => Ok(Created::New),
            Err(Errno::EXIST) => Ok(Created::Exists),
            Err(errno) => Err(errno),
            Ok(()) => Ok(Created::New),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = change(Change::Unlink(&self.path), || fs::remove_file(&self.path))
        {
            tracing::warn!(%error, path = %self.path.display(), "leaving a temporary behind");
        }
    }
}

/// Names of the temporaries in `folder`; none when there is no such folder.
pub fn leftovers(folder: &Path) -> Result<Vec<String>> {
    let failed = |error: &std::io::Error| failed(format!("listing {}", folder.display()), folder, error);
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(&error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let name = entry.map_err(|error| failed(&error))?.file_name();
        found.extend(name.to_str().filter(|name| name.starts_with(TEMPORARY)).map(str::to_owned));
    }
    Ok(found)
}
