//! The sidecar's Unix socket: finding it, and a channel that dials it again when it broke.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixSocket, UnixStream};
use tonic::transport::{Channel, Endpoint};

use super::interrupt::{Interrupt, block_on};
use super::runtime::ClosedInChildren;
use crate::error::{Error, Kind, Result};

/// A listening socket answers in no time, however busy its owner is.
const PATIENCE: Duration = Duration::from_secs(5);

const NOT_OURS: &str =
    "ask as the user who runs that sidecar (or as root), or set STRATA_SOCKET to your own one's path";

/// A connection that forked children don't keep.
struct Guarded {
    stream: UnixStream,
    _closed: ClosedInChildren,
}

async fn dial(path: &Path) -> io::Result<Guarded> {
    let socket = UnixSocket::new_stream()?;
    // On the list before it is connected: a fork in between would keep the other end open.
    let closed = ClosedInChildren::new(socket.as_raw_fd()).map_err(io::Error::other)?;
    Ok(Guarded { stream: socket.connect(path).await?, _closed: closed })
}

/// The first of `candidates` that a sidecar answers at; the error of [`find`] otherwise. Does not wait for one.
pub fn find_sidecar(candidates: &[PathBuf], interrupt: &dyn Interrupt) -> Result<PathBuf> {
    block_on("connecting to this node's sidecar", PATIENCE, interrupt, find(candidates))
}

/// The first path that a sidecar answers at. Unavailable naming each path and why not, or Denied when a socket is
/// another user's.
pub(super) async fn find(candidates: &[PathBuf]) -> Result<PathBuf> {
    let mut tried = Vec::new();
    let (mut kind, mut hint) = (Kind::Unavailable, None);
    for path in candidates {
        match probe(path).await {
            Ok(()) => return Ok(path.clone()),
            Err(error) => {
                if error.kind == Kind::Denied {
                    kind = Kind::Denied;
                }
                tried.push(format!("{}: {}", path.display(), error.message));
                hint = hint.or(error.hint);
            }
        }
    }
    let usual =
        || "start one with `strata up` or `strata sidecar`, or set STRATA_SOCKET to its path".to_owned();
    let message = format!("connecting to this node's sidecar: no socket answers ({})", tried.join("; "));
    Err(Error::new(kind, message).hint(hint.unwrap_or_else(usual)))
}

/// Whether somebody listens there: Unavailable with the reason alone, or Denied when the socket is another user's.
pub(super) async fn probe(path: &Path) -> Result<()> {
    let failed = |error: io::Error| match error.kind() {
        // Of a directory on the way, perhaps: that says nothing of a sidecar elsewhere.
        io::ErrorKind::PermissionDenied => Error::unavailable(error.to_string()).hint(NOT_OURS),
        _ => Error::unavailable(error.to_string()),
    };
    match owner_problem(path) {
        Ok(None) => dial(path).await.map(drop).map_err(failed),
        Ok(Some(problem)) => Err(Error::denied(problem).hint(NOT_OURS)),
        Err(error) => Err(failed(error)),
    }
}

/// A socket in a shared directory could be anybody's.
fn owner_problem(path: &Path) -> io::Result<Option<String>> {
    let (owner, ours) = (std::fs::metadata(path)?.uid(), rustix::process::geteuid().as_raw());
    Ok((owner != ours && owner != 0).then(|| format!("it belongs to uid {owner}, we are uid {ours}")))
}

/// Dials at the first call, and again at the next call after a break. Must be made inside the client's runtime.
pub(super) fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move { dial(&path).await.map(TokioIo::new) }
    });
    // The name goes nowhere: the connector knows the path.
    Endpoint::from_static("http://sidecar.invalid").connect_with_connector_lazy(connector)
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
