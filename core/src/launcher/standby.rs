//! Ranks of the next attempt, started ahead of time: they wait in `strata.connect` until they are called, so that a
//! restart waits for no interpreter, import or kernel module.

use std::time::Duration;

use super::LaunchOptions;
use super::attempt::{Attempt, Ended};
use crate::error::Result;

/// A whole attempt that waits.
pub struct Standby {
    attempt: Attempt,
    places: Vec<u32>,
}

impl Standby {
    pub fn start(options: &LaunchOptions, number: u32, places: &[u32]) -> Result<Standby> {
        Ok(Standby { attempt: Attempt::ahead(options, number, places)?, places: places.to_vec() })
    }

    /// Calls the ranks, if they are those of `places` and all there.
    pub async fn called(self, places: &[u32]) -> Option<Attempt> {
        let mut attempt = self.attempt;
        if self.places == places && attempt.is_waiting() && attempt.call().is_ok() {
            return Some(attempt);
        }
        tracing::info!("the ranks that were started ahead of time are of no use: starting others");
        attempt.discard().await;
        None
    }

    pub async fn discard(self) {
        self.attempt.discard().await;
    }
}

/// Lets an attempt run to its end, and starts the next one's ranks beside it.
pub async fn beside(
    run: impl Future<Output = Result<Ended>>,
    after: Duration,
    ahead: impl FnOnce() -> Result<Standby>,
) -> (Result<Ended>, Option<Standby>) {
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => return (ended, None),
        () = tokio::time::sleep(after) => {}
    }
    let standby = ahead().inspect_err(|error| tracing::warn!("starting ranks ahead of time: {error}")).ok();
    (run.await, standby)
}
