//! The Unix socket's file: one sidecar per path, nobody else's permissions.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::config::locate;
use crate::error::{Doing, Error, Result};
use crate::lock::LockFile;

/// Who may connect: the file's mode. The peer's uid is checked at Hello in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// This process's user.
    OwnUser,
    /// Every user of the machine; only for root.
    AllUsers,
}

/// Holds the path for life; dropped, the file is removed.
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
    _lock: LockFile,
}

/// Binds `path`. Invalid for a path that is too long or is no socket, Conflict, naming the holder, when another
/// sidecar has it; the file of one that died is replaced.
pub(super) fn bind(path: &Path, audience: Audience) -> Result<(UnixListener, SocketFile)> {
    locate::check_socket_path(path)?;
    let doing = || format!("listening on {}", path.display());
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // A folder that is there already (/tmp, /run) keeps its mode.
        let mode = if audience == Audience::AllUsers { 0o755 } else { 0o700 };
        DirBuilder::new().mode(mode).recursive(true).create(folder).doing(doing)?;
    }
    let lock = take_lock(path).doing(doing)?;
    remove_stale(path).doing(doing)?;
    let listener = UnixListener::bind(path).doing(doing)?;
    let mode = if audience == Audience::AllUsers { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, Permissions::from_mode(mode)).doing(doing)?;
    let inode = std::fs::symlink_metadata(path).doing(doing)?.ino();
    Ok((listener, SocketFile { path: path.to_owned(), inode, _lock: lock }))
}

/// A lock beside the socket: asking whether somebody answers would race with a sidecar that starts.
fn take_lock(socket: &Path) -> Result<LockFile> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    LockFile::take(Path::new(&path), |holder| {
        Error::conflict(format!("a sidecar with pid {holder} serves this socket"))
            .hint("one sidecar serves all jobs of a node: use that one, stop it, or set STRATA_SOCKET")
    })
}

fn remove_stale(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).doing(|| "looking at the path"),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::invalid("there is something that is no socket")
                .hint("remove it, or set STRATA_SOCKET to another path"));
        }
        Ok(_) => {}
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::conflict("another program answers there")
            .hint("stop it, or set STRATA_SOCKET to another path"));
    }
    std::fs::remove_file(path).doing(|| "removing the socket of a sidecar that is gone")
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("removing the socket {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn second_sidecar_on_a_socket_is_conflict_and_a_dead_ones_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own/sidecar.sock");
        let (_listener, held) = bind(&path, Audience::OwnUser).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let error = bind(&path, Audience::OwnUser).err().unwrap();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(error.message.contains("sidecar.sock"), "{error}");
        drop(held);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a killed sidecar leaves it");
        bind(&path, Audience::OwnUser).unwrap();
    }

    #[tokio::test]
    async fn path_too_long_or_no_socket_is_invalid() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(120));
        let error = bind(&long, Audience::OwnUser).err().unwrap();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.hint.unwrap().contains("STRATA_SOCKET"));
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(bind(&file, Audience::OwnUser).err().unwrap().kind, Kind::Invalid);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}
