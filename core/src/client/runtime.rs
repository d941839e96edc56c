//! The client's own runtime: one background thread per process. A forked child never uses its parent's: the thread
//! does not exist there, and the sockets are the parent's.

use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Doing, Error, Result};

struct ProcessRuntime {
    pid: u32,
    runtime: Runtime,
}

/// Leaked once per process: a lock here could be held by another thread at the moment of a fork.
static CURRENT: AtomicPtr<ProcessRuntime> = AtomicPtr::new(std::ptr::null_mut());

/// The runtime of this process, made at the first call after start or fork.
pub(super) fn handle() -> Result<Handle> {
    let known = CURRENT.load(Ordering::Acquire);
    // SAFETY: null, or a leaked box that is never freed.
    if let Some(known) = unsafe { known.as_ref() }
        && known.pid == std::process::id()
    {
        return Ok(known.runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("strata-client")
        .enable_all()
        .build()
        .doing(|| "starting the client's runtime")?;
    let made = Box::into_raw(Box::new(ProcessRuntime { pid: std::process::id(), runtime }));
    let chosen = match CURRENT.compare_exchange(known, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        Err(other) => {
            // SAFETY: another thread won; nobody has seen ours.
            unsafe { drop(Box::from_raw(made)) };
            other
        }
    };
    // SAFETY: published and never freed.
    Ok(unsafe { &*chosen }.runtime.handle().clone())
}

/// Descriptors that a forked child must not keep open: a DataLoader worker would hold its parent's session open.
static OPEN: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

/// A descriptor's entry in the list; its drop takes it off.
pub(super) struct ClosedInChildren {
    place: &'static AtomicI32,
    fd: i32,
}

impl ClosedInChildren {
    /// Overloaded when this process has 64 connections open.
    pub fn new(fd: i32) -> Result<ClosedInChildren> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the handler only loads, stores and closes, all allowed between fork and exec.
            unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) };
        });
        let free =
            |place: &&AtomicI32| place.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let place = OPEN.iter().find(free).ok_or_else(|| {
            Error::overloaded("connecting: this process has 64 connections to sidecars open")
                .hint("close the jobs that are no longer needed")
        })?;
        Ok(ClosedInChildren { place, fd })
    }
}

impl Drop for ClosedInChildren {
    fn drop(&mut self) {
        let _ = self.place.compare_exchange(self.fd, -1, Ordering::AcqRel, Ordering::Acquire);
    }
}

extern "C" fn close_in_child() {
    for place in &OPEN {
        let fd = place.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: the child's copy of a socket whose owner, a task of the parent's runtime, never runs here.
            unsafe { libc::close(fd) };
        }
    }
}
