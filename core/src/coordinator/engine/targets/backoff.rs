//! When what failed is tried again.

use std::time::Duration;

/// Between two tries: doubled up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct Backoff {
    /// Not before; zero: at once.
    again: Duration,
    failures: u32,
    /// Why the last try failed.
    pub problem: Option<String>,
}

impl Backoff {
    pub fn failed(&mut self, now: Duration) {
        let wait = FIRST_RETRY.saturating_mul(1 << self.failures.min(10)).min(LAST_RETRY);
        (self.failures, self.again) = (self.failures + 1, now + wait);
    }

    pub fn served(&mut self) {
        (self.failures, self.again) = (0, Duration::ZERO);
    }

    pub fn is_open(&self, now: Duration) -> bool {
        self.again <= now
    }

    /// Whether the time of something that failed has come: once, until it fails again.
    pub fn is_due(&mut self, now: Duration) -> bool {
        let due = !self.again.is_zero() && self.again <= now;
        if due {
            self.again = Duration::ZERO;
        }
        due
    }

    pub fn try_again_now(&mut self) {
        self.again = Duration::ZERO;
    }
}
