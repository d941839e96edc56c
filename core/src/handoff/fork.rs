//! A forked child that copies a moment of this process's memory into a slot, while the process goes on.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::copy::Run;
use super::{stream, tables};
use crate::error::{Doing, Error, Result};

/// Bytes between two looks at the slot.
const PIECE: usize = 8 << 20;

/// How the child ends.
const COPIED: i32 = 0;
const SLOT_LOST: i32 = 1;
const ORPHANED: i32 = 2;

/// A child on its way. Dropped, it is killed: nobody would seal what it copies.
pub struct ForkedCopy {
    pidfd: OwnedFd,
    /// Nobody else's until it is waited for.
    pid: u32,
    started: Instant,
}

/// Forks a child that copies `runs` for as long as `word`, of the slot they go to, is `filling`.
///
/// The child makes system calls and copies, nothing else: it holds every lock that another thread had at this moment.
/// It ends with the calling thread (PR_SET_PDEATHSIG), so that a dead trainer's slot is written to by nobody.
///
/// # Safety
/// Sources are readable and targets writable; targets lie in shared memory.
pub(super) unsafe fn copy_in_child(runs: &[Run], word: &AtomicU64, filling: u64) -> Result<ForkedCopy> {
    let started = Instant::now();
    // The child may not be the first to ask which instructions there are.
    stream::detect();
    let parent = std::process::id();
    let mut pidfd: libc::c_int = -1;
    // Without an exit signal: the process's own handler of SIGCHLD, and its wait(), hear nothing of this child.
    let flags = libc::CLONE_PIDFD as libc::c_ulong;
    // SAFETY: as fork(2), past the C library's handlers, which would take locks; the pidfd's address is valid.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    match child {
        // SAFETY: this is the child.
        0 => unsafe { child_copies(runs, word, filling, parent) },
        -1 => Err(std::io::Error::last_os_error())
            .doing(|| "forking a child to copy the state")
            .map_err(|error: Error| error.hint("mode=\"copy\" needs no child")),
        // SAFETY: the kernel has just opened it for us.
        _ => Ok(ForkedCopy { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, pid: child as u32, started }),
    }
}

/// # Safety
/// In the child of a fork, for its whole life; as [`copy_in_child`] otherwise.
unsafe fn child_copies(runs: &[Run], word: &AtomicU64, filling: u64, parent: u32) -> ! {
    // SAFETY: system calls by number, and copies as the caller vouches.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        // What the process has open (sockets, locks) is not held for longer by a child of it; before Linux 5.9 it is.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        if libc::syscall(libc::SYS_getppid) != libc::c_long::from(parent) {
            exit(ORPHANED);
        }
        for run in runs {
            let mut done = 0;
            while done < run.bytes as usize {
                if word.load(Ordering::Acquire) != filling {
                    exit(SLOT_LOST);
                }
                let bytes = PIECE.min(run.bytes as usize - done);
                // A fork leaves page tables empty for shared memory. Where the kernel refuses the copy takes its faults.
                let _ = tables::fill(run.target.add(done), bytes);
                stream::copy(run.source.add(done), run.target.add(done), bytes);
                done += bytes;
            }
        }
        exit(COPIED)
    }
}

/// # Safety
/// Ends the process at once.
unsafe fn exit(code: i32) -> ! {
    // SAFETY: exit_group returns never.
    unsafe {
        libc::syscall(libc::SYS_exit_group, code);
    }
    unreachable!("exit_group returns never")
}

impl ForkedCopy {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns how long the child took from the fork on. Conflict when the slot was given up; Internal when the child was
    /// killed, as happens where memory that it reads is not given to children (MADV_DONTFORK).
    pub fn wait(self) -> Result<Duration> {
        // SAFETY: all zeroes are valid; the call fills it in.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.pidfd.as_raw_fd() as libc::id_t;
        let ended = loop {
            // SAFETY: the descriptor is ours, `info` is valid. __WALL: the child has no exit signal.
            let outcome =
                unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::__WALL) };
            match (outcome, std::io::Error::last_os_error()) {
                (0, _) => break info,
                (_, error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                (_, error) => return Err(error).doing(|| "waiting for the child that copies the state"),
            }
        };
        // SAFETY: waitid filled in a child's end.
        let status = unsafe { ended.si_status() };
        match (ended.si_code, status) {
            (libc::CLD_EXITED, COPIED) => Ok(self.started.elapsed()),
            (libc::CLD_EXITED, SLOT_LOST) => {
                Err(Error::conflict("copying the state in a forked child: the slot was taken back"))
            }
            (libc::CLD_EXITED, code) => {
                Err(Error::internal(format!("copying the state in a forked child: it ended with {code}")))
            }
            (_, signal) => Err(Error::internal(format!(
                "copying the state in a forked child: signal {signal} ended it"
            ))
            .hint("a tensor may lie in memory that is withheld from children, or memory ran out: use mode=\"copy\"")),
        }
    }
}

impl Drop for ForkedCopy {
    fn drop(&mut self) {
        let fd = self.pidfd.as_raw_fd();
        // SAFETY: our descriptor. A child that has ended and was waited for is not there any more: ESRCH, and no other
        // process is meant by a pidfd.
        unsafe {
            if libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd,
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            ) == 0
            {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PIDFD, fd as libc::id_t, &raw mut info, libc::WEXITED | libc::__WALL);
            }
        }
    }
}
