//! System errors as ours, with what the user needs to mend them.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::error::{Error, Kind};

/// `path` is where to look for how full the disk is.
pub fn failed(doing: impl std::fmt::Display, path: &Path, error: &io::Error) -> Error {
    let mapped = Error::io(doing, error);
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let room = room(path).map(|room| format!(" ({room})")).unwrap_or_default();
            let message = format!("{}{room}", mapped.message);
            Error { message, ..mapped }
                .hint("free space there, keep fewer steps (checkpoint.keep_last) or remove some")
        }
        ErrorKind::ReadOnlyFilesystem => Error { kind: Kind::Denied, ..mapped }
            .hint("the file system is mounted read-only, often after an error of its disk"),
        ErrorKind::PermissionDenied => {
            let uid = rustix::process::geteuid();
            mapped.hint(format!(
                "the store must be readable and writable for uid {} (for the user of the trainers, where that is root)",
                uid.as_raw()
            ))
        }
        _ => mapped,
    }
}

/// A read that the device refuses is damage: asking again brings nothing back.
pub fn unreadable(path: &Path, error: &io::Error) -> Error {
    let doing = format!("reading {}", path.display());
    match error.raw_os_error() {
        Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG) => Error::corrupt(format!("{doing}: {error}")),
        Some(libc::EACCES | libc::EPERM) => {
            let uid = rustix::process::geteuid();
            Error::io(doing, error).hint(format!("the store must be readable for uid {}", uid.as_raw()))
        }
        _ => failed(doing, path, error),
    }
}

/// Of the file system that would hold `path`.
fn room(path: &Path) -> Option<String> {
    let there = path.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let inodes = if stat.f_files > 0 && stat.f_favail == 0 { ", no inode free" } else { "" };
    Some(format!("{} MiB free of {} MiB{inodes}", free >> 20, total >> 20))
}
