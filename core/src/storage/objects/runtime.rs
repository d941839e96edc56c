//! The threads that requests run on: one small runtime per process, so that a blocking call never depends on what
//! runtime its caller has, or drives.

use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::error::{Doing, Result};

/// Sockets, TLS and signing; the bytes themselves are copied on the callers' threads.
const THREADS: usize = 2;

/// With the process that it belongs to: threads do not survive a fork.
static RUNTIME: Mutex<Option<(u32, Arc<Runtime>)>> = Mutex::new(None);

fn runtime() -> Result<Arc<Runtime>> {
    let process = std::process::id();
    let mut known = RUNTIME.lock();
    if let Some((owner, runtime)) = &*known {
        if *owner == process {
            return Ok(Arc::clone(runtime));
        }
        // The parent's: to drop it here would wait for threads that are not in this process.
        std::mem::forget(Arc::clone(runtime));
    }
    let made = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("strata-objects")
        .enable_all()
        .build()
        .doing(|| "starting the threads for store requests")?;
    let made = Arc::new(made);
    *known = Some((process, Arc::clone(&made)));
    Ok(made)
}

/// Runs `request` to its end. Blocks: not for a thread that drives a runtime.
pub fn wait<T>(request: impl Future<Output = T>) -> Result<T> {
    Ok(runtime()?.block_on(request))
}

/// Goes on with `request` while the caller does something else. What it does until it waits for the first time, which is to
/// sum and sign its body, is done here and now: on the caller's thread, and at its priority.
pub fn begin<T: Send + 'static>(request: impl Future<Output = T> + Send + 'static) -> Result<JoinHandle<T>> {
    let runtime = runtime()?;
    let _here = runtime.enter();
    let mut request = Box::pin(request);
    // Nobody is woken: it is polled again as soon as it is spawned.
    Ok(match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => runtime.spawn(ready(outcome)),
        Poll::Pending => runtime.spawn(request),
    })
}
