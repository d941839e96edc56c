//! Blocking calls that end early: by time-out, or because the caller wants to stop (Ctrl-C).

use std::future::Future;
use std::time::{Duration, Instant};

use super::runtime;
use crate::error::{Error, Result};

/// How often a blocking call asks whether it should stop.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The sidecar keeps the time-out and knows more about its cause; ours is for a sidecar that does not answer.
const GRACE: Duration = Duration::from_secs(2);

/// Asked every 50 ms, on the calling thread, by every call that blocks.
pub trait Interrupt {
    /// The error to end the call with, usually Cancelled.
    fn check(&self) -> Result<()>;
}

/// Never stops a call.
pub struct Uninterrupted;

impl Interrupt for Uninterrupted {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Runs `future` on this thread until it is done, `timeout` and a grace have passed (Timeout, naming `doing`), or the
/// interrupt says so.
pub(super) fn block_on<T>(
    doing: &str,
    timeout: Duration,
    interrupt: &dyn Interrupt,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    // Far beyond any use, and an Instant can still hold it.
    let deadline = Instant::now() + timeout.min(Duration::from_secs(86_400 * 365)) + GRACE;
    runtime::handle()?.block_on(async {
        tokio::pin!(future);
        // Not at once: asking takes the interpreter lock, and most calls are answered sooner.
        let mut ask = tokio::time::interval_at(tokio::time::Instant::now() + ASK_EVERY, ASK_EVERY);
        loop {
            tokio::select! {
                biased;
                outcome = &mut future => return outcome,
                _ = ask.tick() => interrupt.check()?,
            }
            if Instant::now() >= deadline {
                return Err(Error::timeout(format!("{doing}: no answer for {timeout:?}"))
                    .hint("is it stopped? `strata status` shows it; the outcome of the call is unknown"));
            }
        }
    })
}
