//! Directories: made durably, listed without what starts with a dot, removed when empty.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use super::changes::{Change, change};
use super::error::failed;
use crate::error::{Error, Result};

/// Makes `folder` and what is missing above it. Durable.
pub fn make(folder: &Path) -> Result<()> {
    make_below(Path::new("/"), folder)
}

/// Makes `folder` and what is missing above it, below `place`. Unavailable when that is not there. Durable.
pub fn make_below(place: &Path, folder: &Path) -> Result<()> {
    if folder == place || !folder.starts_with(place) {
        return Err(Error::unavailable(format!(
            "writing below {}: it is not there any more",
            place.display()
        ))
        .hint("is the disk mounted? A store that was moved must be brought back to where it was"));
    }
    match change(Change::MakeFolder(folder), || fs::create_dir(folder)) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_below(place, super::parent(folder)?)?;
            return make_below(place, folder);
        }
        Err(error) => return Err(failed(format!("making {}", folder.display()), folder, &error)),
    }
    sync(super::parent(folder)?)
}

/// Makes durable which names the folder holds.
pub fn sync(folder: &Path) -> Result<()> {
    let outcome =
        File::open(folder).and_then(|file| match change(Change::SyncFolder(folder), || file.sync_all()) {
            // File systems without it (some FUSE) say so; they have nothing to flush.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            other => other,
        });
    outcome.map_err(|error| failed(format!("syncing the directory {}", folder.display()), folder, &error))
}

/// Names and whether each is a folder; None when there is no such folder.
pub fn entries(folder: &Path) -> Result<Option<Vec<(String, bool)>>> {
    let failed = |error: &std::io::Error| failed(format!("listing {}", folder.display()), folder, error);
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| failed(&error))?;
        // A name that is no UTF-8 is none of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let kind = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => fs::metadata(entry.path()).map(|data| data.is_dir()),
            other => other.map(|kind| kind.is_dir()),
        };
        match kind {
            Ok(is_folder) => found.push((name, is_folder)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(Some(found))
}

/// Removes `folder` and those above it, up to `base`, as far as they are empty.
pub fn remove_empty(folder: &Path, base: &Path) -> Result<()> {
    for folder in folder.ancestors().take_while(|folder| *folder != base && folder.starts_with(base)) {
        match change(Change::RemoveFolder(folder), || fs::remove_dir(folder)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
            Err(error) => return Err(failed(format!("removing {}", folder.display()), folder, &error)),
        }
    }
    Ok(())
}
