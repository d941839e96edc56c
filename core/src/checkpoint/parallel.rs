//! The same work on many things by a few threads, the caller's among them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::pace::Pace;

/// Results in the order of `items`. The first error stops the others at their next item.
pub fn each<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    each_at(&Pace::hurried(), threads, items, work)
}

/// The same at a pace: as long as that is not hurried, by threads that yield to everybody else; these end with their item
/// when it is, and others go on.
pub fn each_at<T: Send, R: Send>(
    pace: &Pace,
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let results: Mutex<Vec<Option<R>>> = Mutex::new((0..count).map(|_| None).collect());
    let (failed, stop) = (Mutex::new(None), AtomicBool::new(false));
    let work_while = |wanted: &dyn Fn() -> bool| {
        while !stop.load(Ordering::Relaxed) && wanted() {
            let Some((number, item)) = queue.lock().next() else { return };
            match work(item) {
                Ok(result) => results.lock()[number] = Some(result),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failed.lock().get_or_insert(error);
                }
            }
        }
    };
    let yielding = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let worker = || work_while(&|| true);
        let yielding_worker = || {
            let _left = Left(&yielding, pace);
            let _lowered = pace.lower_thread();
            work_while(&|| !pace.is_hurried());
        };
        if !pace.is_hurried() {
            for _ in 0..threads.min(count) {
                yielding.fetch_add(1, Ordering::Relaxed);
                if !spawned(scope, yielding_worker) {
                    yielding.fetch_sub(1, Ordering::Relaxed);
                    break;
                }
            }
            pace.wait_until(|| yielding.load(Ordering::Acquire) == 0);
        }
        for _ in 1..threads.min(queue.lock().len()) {
            // No thread to be had (a pids limit): the others do its part.
            if !spawned(scope, worker) {
                break;
            }
        }
        worker();
    });
    match failed.into_inner() {
        Some(error) => Err(error),
        None => Ok(results.into_inner().into_iter().map(|result| result.expect("no item failed")).collect()),
    }
}

fn spawned<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> bool {
    std::thread::Builder::new().name("strata-store-io".into()).spawn_scoped(scope, work).is_ok()
}

/// Of the threads that yield, one: told off also when it panics.
struct Left<'a>(&'a AtomicUsize, &'a Pace);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
        self.1.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_keep_their_order_and_an_error_is_returned() {
        for threads in [1, 3, 50] {
            let squares = each(threads, (0..100u64).collect(), |n| Ok(n * n)).unwrap();
            assert_eq!(squares, (0..100).map(|n| n * n).collect::<Vec<u64>>());
            let error = each(threads, (0..100).collect(), |n| match n {
                57 => Err(Error::corrupt("57")),
                _ => Ok(n),
            });
            assert_eq!(error.unwrap_err().message, "57");
        }
        assert!(each(4, Vec::<u8>::new(), Ok).unwrap().is_empty());
    }

    /// The policy that the kernel has for the calling thread (sched(7)).
    fn policy() -> i32 {
        // SAFETY: asks about the calling thread alone.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn work_yields_until_it_is_hurried_and_others_go_on_with_it_then() {
        let pace = Pace::yielding();
        let policies = each_at(&pace, 2, (0..200).collect(), |n| {
            let began_with = policy();
            if n == 100 {
                pace.hurry();
            }
            Ok((n, began_with))
        })
        .unwrap();
        assert!(policies.iter().enumerate().all(|(number, (n, _))| number == *n));
        let idle = policies.iter().filter(|(_, policy)| *policy == libc::SCHED_IDLE).count();
        // The other thread may have begun an item when the hundredth hurried.
        assert!((101..=102).contains(&idle), "{idle} of 200 items yielded");
        assert_eq!(policies[199].1, libc::SCHED_OTHER);
        assert_eq!(policy(), libc::SCHED_OTHER, "whoever waits for the work has not lowered itself");
    }

    #[test]
    fn work_that_nobody_hurries_ends_and_an_error_or_a_panic_ends_it_early() {
        let pace = Pace::yielding();
        let policies = each_at(&pace, 3, (0..50).collect(), |_| Ok(policy())).unwrap();
        assert!(policies.iter().all(|policy| *policy == libc::SCHED_IDLE));
        let failed = each_at(&pace, 3, (0..50).collect(), |n| match n {
            7 => Err(Error::corrupt("seven")),
            _ => Ok(()),
        });
        assert_eq!(failed.unwrap_err().message, "seven");
        let panics =
            || each_at(&pace, 2, (0..50).collect(), |n| if n == 7 { panic!("seven") } else { Ok(()) });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    }
}
