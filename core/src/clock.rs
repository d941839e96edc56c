//! Time as an injected part: the only module that reads the machine's clocks for decisions (leases, suspicion,
//! retention by age). Everything else takes a [`Clock`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Monotonic time since an arbitrary start, and the wall clock for what people read.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Duration;
    fn wall(&self) -> SystemTime;
}

pub type SharedClock = Arc<dyn Clock>;

pub struct MachineClock {
    start: Instant,
}

impl MachineClock {
    pub fn shared() -> SharedClock {
        Arc::new(MachineClock { start: Instant::now() })
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that a test turns by hand.
#[derive(Default)]
pub struct ManualClock {
    now: Mutex<Duration>,
}

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        *self.now.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.now.lock()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now()
    }
}
