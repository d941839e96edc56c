//! One rank's batches, resumable from a cursor: read before they are asked for, by threads, within bounds, and handed out in the
//! order of their steps.
//!
//! Whoever is free takes the next step on, the caller too: when no thread has begun the step that is due, the caller reads it
//! itself rather than wait for one to wake up. Not where files are fetched first: a wait for a thread can be interrupted.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::share::{Batch, Share};
use crate::error::{Error, Result};
use crate::sharding::{Cursor, Order};

/// Of batches that wait to be handed out. One may always wait, however large.
const MOST_BYTES: usize = 256 << 20;
/// Between two looks at whether the caller was interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// The batches of one rank from a cursor to the epoch's end. Every rank has the same number of them. Blocking; safe to use
/// without the interpreter lock. Ends its threads when it is dropped, and does not wait for them.
pub struct Batches {
    lane: Arc<Lane>,
    /// Steps that may be read before they are asked for, each by a thread of its own.
    depth: usize,
    /// How many there are, once there are.
    threads: usize,
    /// The one that has the threads: a forked child has none, and maybe locks that nobody will let go of.
    process: u32,
}

struct Lane {
    share: Arc<Share>,
    every: u64,
    steps: Mutex<Steps>,
    /// A step was read.
    ready: Condvar,
    /// There may be one to take on.
    room: Condvar,
}

struct Steps {
    /// The first that nobody has taken on.
    next: Cursor,
    order: Arc<Order>,
    /// Taken on by threads and not handed out, in their order.
    taken: VecDeque<Taken>,
    /// Of those that were read.
    bytes: usize,
    /// One more each time that all which was taken on became void.
    life: u64,
    closed: bool,
}

struct Taken {
    at: Cursor,
    read: Option<Result<Option<Batch>>>,
}

impl Batches {
    /// Starts at `cursor`, which this share made, and takes every step, or each `every`th (so that several readers, of which each
    /// begins one step later, take each once). Up to `depth` batches are read ahead.
    pub fn new(share: Arc<Share>, cursor: Cursor, every: u64, depth: usize) -> Batches {
        let order = Arc::new(share.spec().order(cursor.epoch));
        let steps = Steps { next: cursor, order, taken: VecDeque::new(), bytes: 0, life: 0, closed: false };
        let (ready, room) = (Condvar::new(), Condvar::new());
        let lane = Arc::new(Lane { share, every, steps: Mutex::new(steps), ready, room });
        Batches { lane, depth, threads: 0, process: std::process::id() }
    }

    /// The next batch, or `None` at the epoch's end. After an error the same batch is tried again. `interrupted` ends a wait
    /// for a thread with its error.
    ///
    /// Fails with Invalid in a forked child, and as the reader does: with Corrupt, naming the file, where a file is not what it was.
    pub fn next_batch(&mut self, interrupted: impl Fn() -> Result<()>) -> Result<Option<Batch>> {
        if self.process != std::process::id() {
            let id = &self.lane.share.spec().id;
            return Err(Error::invalid(format!("reading dataset {id:?}: this loop was begun before the process was forked"))
                .hint("begin a loop in the process that reads; torch's DataLoader takes strata.torch.IterableDataset"));
        }
        self.start_threads();
        let lane = &*self.lane;
        let by_threads = self.threads > 0 && lane.share.reader().files().are_fetched();
        let mut steps = lane.steps.lock();
        while !steps.is_due(by_threads, &lane.share) {
            if lane.ready.wait_for(&mut steps, LOOK).timed_out() {
                interrupted()?;
            }
        }
        if let Some(Taken { at, read: Some(read) }) = steps.taken.pop_front() {
            steps.bytes -= bytes(&read);
            if read.is_ok() {
                lane.room.notify_one();
                return read;
            }
            lane.go_to(&mut steps, at);
            if by_threads {
                return read;
            }
            // That was before it was due: it may be there by now.
        }
        let (at, order, _) = steps.take_on(lane.every);
        drop(steps);
        let read = lane.share.read(&at, &order);
        if !matches!(read, Ok(Some(_))) {
            lane.go_to(&mut lane.steps.lock(), at);
        }
        read
    }

    /// Where the next batch will be taken from.
    #[cfg(test)]
    pub fn cursor(&self) -> Cursor {
        let steps = self.lane.steps.lock();
        steps.taken.front().map_or_else(|| steps.next.clone(), |first| first.at.clone())
    }

    /// Whether a thread has taken on the step that is due.
    #[cfg(test)]
    pub fn is_reading(&self) -> bool {
        self.lane.steps.lock().taken.front().is_some_and(|first| first.read.is_none())
    }

    /// Not before the first step is asked for: who only looks where an epoch stands needs none.
    pub(super) fn start_threads(&mut self) {
        while self.threads < self.depth {
            let (lane, depth) = (self.lane.clone(), self.depth);
            let thread = thread::Builder::new().name("strata-data".to_owned());
            if let Err(error) = thread.spawn(move || lane.work(depth)) {
                tracing::warn!(%error, threads = self.threads, "no more threads to read ahead with");
                self.depth = self.threads;
                return;
            }
            self.threads += 1;
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        self.lane.steps.lock().closed = true;
        self.lane.room.notify_all();
    }
}

impl Lane {
    fn work(&self, depth: usize) {
        let mut steps = self.steps.lock();
        while !steps.closed {
            if !steps.has_room(depth, &self.share) {
                self.room.wait(&mut steps);
                continue;
            }
            let (at, order, life) = steps.take_on(self.every);
            steps.taken.push_back(Taken { at: at.clone(), read: None });
            drop(steps);
            let read = catch_unwind(AssertUnwindSafe(|| self.share.read(&at, &order)));
            // A step whose thread is gone would be waited for without end.
            let read =
                read.unwrap_or_else(|_| Err(Error::internal("reading a batch ahead: the reader panicked")));
            steps = self.steps.lock();
            if steps.life == life {
                steps.put(&at, read);
                self.ready.notify_one();
            }
        }
    }

    /// What was taken on is void.
    fn go_to(&self, steps: &mut Steps, next: Cursor) {
        (steps.next, steps.bytes, steps.life) = (next, 0, steps.life + 1);
        steps.taken.clear();
        self.room.notify_all();
    }
}

impl Steps {
    /// Whether the caller need not wait: the step that is due was read, or is the caller's to read.
    fn is_due(&self, by_threads: bool, share: &Share) -> bool {
        match self.taken.front() {
            Some(first) => first.read.is_some(),
            None => !by_threads || share.is_over(&self.next),
        }
    }

    /// Nothing is taken on behind a step that could not be read.
    fn has_room(&self, depth: usize, share: &Share) -> bool {
        let failed = |taken: &Taken| matches!(taken.read, Some(Err(_)));
        self.taken.len() < depth
            && self.bytes < MOST_BYTES
            && !share.is_over(&self.next)
            && !self.taken.iter().any(failed)
    }

    fn take_on(&mut self, every: u64) -> (Cursor, Arc<Order>, u64) {
        let following = self.next.skipped(every);
        (std::mem::replace(&mut self.next, following), self.order.clone(), self.life)
    }

    fn put(&mut self, at: &Cursor, read: Result<Option<Batch>>) {
        self.bytes += bytes(&read);
        if let Some(taken) = self.taken.iter_mut().find(|taken| taken.at == *at) {
            taken.read = Some(read);
        }
    }
}

fn bytes(read: &Result<Option<Batch>>) -> usize {
    match read {
        Ok(Some(batch)) => batch.rows.bytes(),
        _ => 0,
    }
}
