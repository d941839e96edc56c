//! How much memory persisting and restoring may hold beyond the arenas (P10).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

/// Enough to keep a fast disk or a 10 Gbit/s line busy with four requests of 16 MiB, several times over.
const DEFAULT_LIMIT: u64 = 256 << 20;

/// One limit shared by all its clones. Taking blocks until there is room; who holds some must not wait for more, beyond
/// what was promised.
#[derive(Clone)]
pub struct BufferBudget {
    shared: Arc<Shared>,
}

struct Shared {
    limit: u64,
    used: Mutex<u64>,
    promised: Mutex<u64>,
    freed: Condvar,
}

/// Room taken; given back when dropped.
pub struct Held {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Held {
    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        *self.shared.used.lock() -= freed;
        self.shared.freed.notify_all();
    }

    /// Bytes that hold this room until the last of their clones is gone.
    pub fn around(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Roomed { bytes, _room: self })
    }
}

struct Roomed<B> {
    bytes: B,
    _room: Held,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Roomed<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// A promise that room may be held while more is taken; ends when dropped.
pub struct Promised {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Promised {
    fn drop(&mut self) {
        *self.shared.promised.lock() -= self.bytes;
    }
}

impl BufferBudget {
    pub fn new(limit: u64) -> BufferBudget {
        let shared = Shared {
            limit: limit.max(1),
            used: Mutex::new(0),
            promised: Mutex::new(0),
            freed: Condvar::new(),
        };
        BufferBudget { shared: Arc::new(shared) }
    }

    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    pub fn in_use(&self) -> u64 {
        *self.shared.used.lock()
    }

    /// Whether so many bytes may be held by somebody who takes more before they are given back. At most half of the
    /// limit is promised to all together, so that whoever takes from the other half always gets it.
    pub fn promise(&self, bytes: u64) -> Option<Promised> {
        let mut promised = self.shared.promised.lock();
        let room = *promised + bytes <= self.shared.limit / 2;
        *promised += if room { bytes } else { 0 };
        room.then(|| Promised { shared: Arc::clone(&self.shared), bytes })
    }

    /// Blocks until `bytes` are free. A wish beyond the limit waits for all of it: it goes alone.
    pub fn take(&self, bytes: u64) -> Held {
        let bytes = bytes.min(self.shared.limit);
        let mut used = self.shared.used.lock();
        self.shared.freed.wait_while(&mut used, |used| *used + bytes > self.shared.limit);
        *used += bytes;
        Held { shared: Arc::clone(&self.shared), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.shared.used.lock() -= self.bytes;
        self.shared.freed.notify_all();
    }
}

impl Default for BufferBudget {
    fn default() -> BufferBudget {
        BufferBudget::new(DEFAULT_LIMIT)
    }
}

impl PartialEq for BufferBudget {
    fn eq(&self, other: &BufferBudget) -> bool {
        self.limit() == other.limit()
    }
}

impl Eq for BufferBudget {}

impl fmt::Debug for BufferBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.in_use(), self.limit())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn memory_stays_below_the_limit_whoever_takes_it() {
        let (budget, held, most) = (BufferBudget::new(10), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for wish in [1, 3, 7, 10, 25] {
                let (budget, held, most) = (budget.clone(), &held, &most);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let room = budget.take(wish);
                        let now = held.fetch_add(room.bytes, Ordering::SeqCst) + room.bytes;
                        most.fetch_max(now, Ordering::SeqCst);
                        held.fetch_sub(room.bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 10, "{most:?}");
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn half_is_promised_and_what_shrinks_is_free_again() {
        let budget = BufferBudget::new(100);
        let first = budget.promise(30);
        assert!(first.is_some() && budget.promise(30).is_none());
        drop(first);
        assert!(budget.promise(50).is_some());
        let mut held = budget.take(90);
        held.shrink_to(40);
        assert_eq!(budget.in_use(), 40);
        drop(budget.take(60));
        let bytes = held.around(vec![7; 40]);
        let part = bytes.slice(..1);
        drop(bytes);
        assert_eq!((budget.in_use(), &part[..]), (40, &[7][..]));
        drop(part);
        assert_eq!(budget.in_use(), 0);
    }
}
