//! How often one job may ask, so that a job that asks without end takes the coordinator from nobody else.
//!
//! The generic cell rate algorithm (ITU-T I.371): a second's worth at once, then evenly.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// What may be asked for at once.
const BURST: Duration = Duration::from_secs(1);
/// Beyond so many jobs those that have asked for nothing lately are forgotten.
const REMEMBERED: usize = 1024;

#[derive(Clone, Copy, PartialEq)]
pub enum Need {
    /// By these a job stays alive, opens and comes back: they count, and are never refused.
    Vital,
    Ordinary,
}

#[derive(Default)]
pub struct Quotas {
    /// Calls a second; 0: as many as it likes.
    limit: AtomicU64,
    /// By job: when all that it has asked for is paid for.
    paid: Mutex<HashMap<String, Instant>>,
}

impl Quotas {
    pub fn new(limit: u64) -> Quotas {
        Quotas { limit: limit.into(), paid: Mutex::default() }
    }

    pub fn set(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Overloaded, with the time after which to ask again, for a job that has asked too often.
    pub fn admit(&self, job: &str, need: Need) -> Result<()> {
        self.admit_at(Instant::now, job, need)
    }

    fn admit_at(&self, clock: impl FnOnce() -> Instant, job: &str, need: Need) -> Result<()> {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == 0 || job.is_empty() {
            return Ok(());
        }
        let (now, price) = (clock(), Duration::from_secs(1).div_f64(limit as f64));
        let mut paid = self.paid.lock();
        if paid.len() > REMEMBERED {
            paid.retain(|_, at| *at > now);
        }
        let at = paid.entry(job.to_owned()).or_insert(now);
        let due = (*at).max(now) + price;
        let too_early = due.saturating_duration_since(now + BURST);
        match (too_early.is_zero(), need) {
            (true, _) => *at = due,
            (false, Need::Vital) => *at = now + BURST,
            (false, Need::Ordinary) => return Err(refused(job, limit, too_early)),
        }
        Ok(())
    }
}

fn refused(job: &str, limit: u64, wait: Duration) -> Error {
    let wait = Duration::from_millis(wait.as_millis() as u64 + 1);
    Error::overloaded(format!("asking the coordinator: job {job} makes more than {limit} calls a second"))
        .hint("ask less often: shards and steps change with a generation and a commit only; or raise coordinator.calls_per_second")
        .retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    struct Asking {
        quotas: Quotas,
        now: Instant,
    }

    impl Asking {
        fn with(limit: u64) -> Asking {
            Asking { quotas: Quotas::new(limit), now: Instant::now() }
        }

        fn ask(&self, job: &str, need: Need) -> Result<()> {
            self.quotas.admit_at(|| self.now, job, need)
        }

        /// How many of a hundred calls are let through.
        fn admitted(&self, job: &str, need: Need) -> usize {
            (0..100).filter(|_| self.ask(job, need).is_ok()).count()
        }
    }

    #[test]
    fn job_has_a_seconds_worth_at_once_and_its_rate_from_then_on() {
        let mut asking = Asking::with(10);
        assert_eq!(asking.admitted("a", Need::Ordinary), 10);
        assert_eq!(asking.admitted("b", Need::Ordinary), 10, "another job's are its own");
        let refused = asking.ask("a", Need::Ordinary).unwrap_err();
        assert_eq!(refused.kind, Kind::Overloaded);
        asking.now += refused.retry_after.unwrap();
        assert_eq!(asking.admitted("a", Need::Ordinary), 1, "after the time it was told");
        asking.now += Duration::from_millis(500);
        assert_eq!(asking.admitted("a", Need::Ordinary), 5);
        asking.now += Duration::from_secs(3600);
        assert_eq!(asking.admitted("a", Need::Ordinary), 10);
    }

    #[test]
    fn what_a_job_lives_by_is_never_refused_and_counts() {
        let mut asking = Asking::with(10);
        assert_eq!(asking.admitted("a", Need::Vital), 100);
        assert!(asking.ask("a", Need::Ordinary).is_err());
        asking.now += Duration::from_millis(100);
        assert!(asking.ask("a", Need::Ordinary).is_ok(), "a storm of them is no debt for later");
    }

    #[test]
    fn without_a_limit_nothing_is_counted_and_jobs_of_long_ago_are_forgotten() {
        let mut asking = Asking::with(0);
        assert_eq!(asking.admitted("a", Need::Ordinary), 100);
        assert!(asking.quotas.paid.lock().is_empty());
        asking.quotas.set(1000);
        for job in 0..2 * REMEMBERED {
            asking.ask(&job.to_string(), Need::Ordinary).unwrap();
            asking.now += Duration::from_millis(1);
        }
        assert!(asking.quotas.paid.lock().len() <= REMEMBERED + 1);
    }
}
