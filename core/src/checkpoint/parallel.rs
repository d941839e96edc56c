//! The same work on many things by a few threads, the caller's among them.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::Result;

/// Results in the order of `items`. The first error stops the others at their next item.
pub fn each<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let results: Mutex<Vec<Option<R>>> = Mutex::new((0..count).map(|_| None).collect());
    let (failed, stop) = (Mutex::new(None), AtomicBool::new(false));
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
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
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            // No thread to be had (a pids limit): the others do its part.
            if std::thread::Builder::new().name("strata-store-io".into()).spawn_scoped(scope, worker).is_err()
            {
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
}
