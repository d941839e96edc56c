//! Files that must be fetched, before they are read: those of the window of the order that is being read, then those of the next one.
//!
//! Called by `share`, from any thread that reads. When it is dropped its threads end with the files that they are fetching; what goes
//! wrong in them is met again by who reads.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

use super::cache::cost;
use super::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::sharding::{Order, Window};

/// Files that are fetched at once.
const THREADS: usize = 4;
/// This part of the cache is filled ahead at most. The rest is for what other jobs read, and for what was read before.
const PART: u64 = 4;

pub struct Prefetch {
    shared: Arc<Shared>,
    /// The one that has the threads: a forked child has none, and maybe locks that nobody will let go of.
    process: u32,
}

struct Shared {
    reader: Arc<Reader>,
    work: Mutex<Work>,
    wake: Condvar,
}

/// Of one window that is being read.
#[derive(Default)]
struct Work {
    epoch: u64,
    /// Positions of the window.
    window: Range<u64>,
    /// To be fetched, soonest first: files of the window, then of the one behind it.
    files: VecDeque<usize>,
    in_flight: u64,
    /// What was fetched for it takes of the cache.
    bytes: u64,
    largest: u64,
    /// One more for each window: what was begun for another one does not count.
    life: u64,
    threads: usize,
    closed: bool,
}

impl Prefetch {
    pub fn new(reader: Arc<Reader>) -> Prefetch {
        let shared = Shared { reader, work: Mutex::default(), wake: Condvar::new() };
        Prefetch { shared: Arc::new(shared), process: std::process::id() }
    }

    /// Whoever calls is about to read there; `following` is the order of the next epoch, and `is_left_out` knows files that are not
    /// read. Does nothing for files that are read where they lie.
    pub fn reading(
        &self,
        order: &Order,
        epoch: u64,
        position: u64,
        following: impl FnOnce() -> Order,
        is_left_out: impl Fn(usize) -> bool,
    ) {
        let Shared { reader, work, wake } = &*self.shared;
        let is_known = |work: &Work| work.epoch == epoch && work.window.contains(&position);
        if position >= order.samples() || !reader.files().are_fetched() || is_known(&work.lock()) {
            return;
        }
        let window = order.window(position);
        let behind = window.positions.end;
        let next = if behind < order.samples() { order.window(behind) } else { following().window(0) };
        let Ok(mut files) = self.files_of([&window, &next]) else { return };
        files.retain(|file| !is_left_out(*file));
        let mut work = work.lock();
        if is_known(&work) {
            return;
        }
        let (threads, life) = (work.threads, work.life + 1);
        *work = Work { epoch, window: window.positions, files, life, threads, ..Work::default() };
        wake.notify_all();
        if threads == 0 {
            work.threads = self.start_threads();
        }
    }

    /// Each once, in this order.
    fn files_of(&self, windows: [&Window; 2]) -> Result<VecDeque<usize>> {
        let files = self.shared.reader.files();
        let (mut found, mut seen) = (VecDeque::new(), HashSet::new());
        for samples in windows.into_iter().flat_map(|window| &window.samples) {
            found.extend(files.of(samples)?.filter(|file| seen.insert(*file)));
        }
        Ok(found)
    }

    fn start_threads(&self) -> usize {
        let start = |_| {
            let shared = self.shared.clone();
            thread::Builder::new().name("strata-fetch".to_owned()).spawn(move || shared.work())
        };
        let started = (0..THREADS).map(start).take_while(|started| match started {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "no more threads to fetch files ahead with");
                false
            }
        });
        started.count()
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        self.shared.work.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut work = self.work.lock();
        while !work.closed {
            let Some(file) = self.take(&mut work) else {
                self.wake.wait(&mut work);
                continue;
            };
            let life = work.life;
            drop(work);
            let fetched = catch_unwind(AssertUnwindSafe(|| self.fetch(file)));
            let fetched =
                fetched.unwrap_or_else(|_| Err(Error::internal("fetching a file ahead: it panicked")));
            work = self.work.lock();
            if work.life != life {
                continue;
            }
            work.in_flight -= 1;
            match fetched {
                Ok(bytes) => {
                    work.bytes += bytes;
                    work.largest = work.largest.max(bytes);
                }
                // Who reads it will say so, and may leave it out.
                Err(error) if error.kind == Kind::Corrupt => {}
                // The others would fail like it, for as long as that takes.
                Err(error) => {
                    tracing::debug!(%error, "a file could not be fetched ahead");
                    work.files.clear();
                }
            }
            self.wake.notify_all();
        }
    }

    /// The next file, if there is room for it. How large files are shows when one was fetched.
    fn take(&self, work: &mut Work) -> Option<usize> {
        let is_first = work.in_flight == 0 && work.bytes == 0;
        let would_take = work.bytes + (work.in_flight + 1) * work.largest;
        let room = || self.reader.files().cache_cap().map_or(0, |cap| cap / PART);
        let has_room = if work.largest == 0 { is_first } else { would_take <= room() };
        let file = if has_room { work.files.pop_front() } else { None }?;
        work.in_flight += 1;
        Some(file)
    }

    fn fetch(&self, file: usize) -> Result<u64> {
        let path = self.reader.files().local(file)?;
        let about = fs::metadata(&path)
            .map_err(|error| Error::io(format!("looking at {}", path.display()), &error))?;
        Ok(cost(about.len()))
    }
}

#[cfg(test)]
mod tests;
