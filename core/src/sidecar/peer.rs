//! Who is at the other end of a connection: its user, and a handle on its process that proves its death.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// After a failed accept (too many open files): long enough not to spin, short against a client's patience.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How the death of a trainer is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeathProof {
    /// SO_PEERPIDFD (Linux 6.5), else pidfd_open.
    #[default]
    Auto,
    /// pidfd_open alone, where the peer's pid is visible.
    PidfdOpen,
    /// Never: as with a peer in a pid namespace that this process does not see, on an older kernel.
    Nothing,
}

/// The process that made a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub uid: u32,
    /// As this process's pid namespace numbers it; None when it is not visible there.
    pub pid: Option<u32>,
    pub pidfd: Option<Arc<OwnedFd>>,
}

impl Peer {
    fn of(stream: &UnixStream, proof: DeathProof) -> io::Result<Peer> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let open = || {
            let pid = rustix::process::Pid::from_raw(pid? as i32)?;
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
        };
        let pidfd = match proof {
            DeathProof::Auto => peer_pidfd(stream).or_else(open),
            DeathProof::PidfdOpen => open(),
            DeathProof::Nothing => None,
        };
        Ok(Peer { uid: credentials.uid(), pid, pidfd: pidfd.map(Arc::new) })
    }
}

/// The peer's pidfd as the kernel noted it at connect: no pid can be reused in between. None before Linux 6.5.
fn peer_pidfd(stream: &UnixStream) -> Option<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option writes one int into `fd`, whose size `length` says; both live through the call.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if outcome != 0 || fd < 0 {
        return None;
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A connection that knows its peer, and is broken when the sidecar has stopped: session streams and waiting calls
/// would hold it open, and its trainer would not ask the next sidecar.
pub(super) struct PeerStream {
    stream: UnixStream,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Every connection made to `listener`, for ever: a failed accept is tried again.
pub(super) fn connections(
    listener: UnixListener,
    proof: DeathProof,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<PeerStream>> {
    futures::stream::unfold((listener, cut), move |(listener, cut)| async move {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, _)| {
                let peer = Peer::of(&stream, proof)?;
                Ok(PeerStream { stream, peer, cut: Box::pin(cut.clone().cancelled_owned()) })
            });
            match accepted {
                Ok(stream) => return Some((Ok(stream), (listener, cut))),
                Err(error) => {
                    tracing::warn!("accepting a trainer's connection: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    })
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for PeerStream {
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
