//! A trainer's process over restarts of the sidecar: which one it is, and whether it lives.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::peer::Peer;
use crate::error::{Doing, Result};

/// One process of this boot: a pid comes back, together with its start it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pid: u32,
    /// Clock ticks since boot (proc(5), field 22 of stat).
    started: u64,
}

impl ProcessId {
    /// None when its pid is not visible here.
    pub fn of(peer: &Peer) -> Option<ProcessId> {
        let pid = peer.pid?;
        Some(ProcessId { pid, started: started(pid)? })
    }

    /// None when it is gone, or can't be seen any more.
    pub fn stands(&self) -> Option<Stands> {
        let mut fields = stat(self.pid)?;
        let state = fields.next()?;
        // The state is that of this very process.
        (fields.nth(18)?.parse() == Ok(self.started)).then_some(())?;
        Some(match state.as_str() {
            "R" => Stands::Running,
            "D" => Stands::Uninterruptible,
            "T" => Stands::Stopped,
            "t" => Stands::Traced,
            "Z" | "X" => Stands::Ended,
            _ => Stands::Sleeping,
        })
    }

    /// The kernel's function that its main thread sleeps in, where this process may read that.
    pub fn waits_in(&self) -> Option<String> {
        let place = std::fs::read_to_string(format!("/proc/{}/wchan", self.pid)).ok()?;
        Some(place).filter(|place| !place.is_empty() && place != "0")
    }

    /// A handle that proves its death; None when it is dead already.
    pub fn open(&self) -> Option<Arc<OwnedFd>> {
        let pid = Pid::from_raw(self.pid as i32)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Asked after the handle was taken: it is that process's, or another's with the same number.
        (started(self.pid) == Some(self.started) && !is_dead(&handle)).then(|| Arc::new(handle))
    }
}

fn started(pid: u32) -> Option<u64> {
    stat(pid)?.nth(19)?.parse().ok()
}

/// The fields of proc(5)'s stat from the third on.
fn stat(pid: u32) -> Option<impl Iterator<Item = String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, in brackets, may hold anything.
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().map(str::to_owned);
    Some(fields.collect::<Vec<_>>().into_iter())
}

/// How a process stands, as the kernel sees its main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    Running,
    Sleeping,
    /// In a system call that no signal ends: for a disk, a device.
    Uninterruptible,
    Stopped,
    Traced,
    Ended,
}

impl std::fmt::Display for Stands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stands::Running => "running",
            Stands::Sleeping => "sleeping",
            Stands::Uninterruptible => "waiting uninterruptibly",
            Stands::Stopped => "stopped",
            Stands::Traced => "stopped by a debugger",
            Stands::Ended => "ended",
        })
    }
}

/// A pidfd reads as ready once its process has exited.
pub(super) fn is_dead(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Returns when the process has exited.
pub(super) async fn exited(pidfd: &OwnedFd) -> Result<()> {
    let doing = || "watching a trainer's process";
    // A descriptor of its own: one can be registered for waiting only once.
    let own = pidfd.as_fd().try_clone_to_owned().doing(doing)?;
    // SAFETY: the AsyncFd owns the descriptor, so it stays open until it is taken off the list again.
    let watched = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
    let watched = watched.map_err(std::io::Error::from).doing(doing)?;
    watched.readable().await.doing(doing).map(drop)
}

#[cfg(test)]
mod tests {
    use rustix::process::Signal;

    use super::*;

    fn peer(pid: u32) -> Peer {
        Peer { uid: 0, pid: Some(pid), pidfd: None }
    }

    #[tokio::test]
    async fn death_is_proved_and_a_number_that_came_back_is_not_the_same_process() {
        let mut child = tokio::process::Command::new("sleep").arg("600").spawn().unwrap();
        let known = ProcessId::of(&peer(child.id().unwrap())).unwrap();
        let handle = known.open().unwrap();
        assert!(!is_dead(&handle));
        let another = ProcessId { started: known.started + 1, ..known };
        assert!(another.open().is_none() && another.stands().is_none());
        rustix::process::kill_process(Pid::from_raw(known.pid as i32).unwrap(), Signal::STOP).unwrap();
        while known.stands() != Some(Stands::Stopped) {
            tokio::task::yield_now().await;
        }
        child.start_kill().unwrap();
        exited(&handle).await.unwrap();
        assert!(is_dead(&handle));
        child.wait().await.unwrap();
        assert!(known.open().is_none());
    }
}
