//! The files of a dataset as a reader knows them: which file holds a sample, and the few that are open.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::cache::{Fetcher, Origin};
use super::spec::DataFile;
use crate::error::{Error, Result};

/// Files held open at once; a window of the order has 16 shards, of few files each. Far below the 1,024 that a process may open.
const OPEN: usize = 128;

/// In their order, with the samples that lie in each. Threads may share them.
pub struct Files {
    files: Vec<Held>,
    fetcher: Fetcher,
}

struct Held {
    /// As the dataset names it.
    path: PathBuf,
    /// Found out when it is wanted.
    origin: OnceLock<Origin>,
    /// First sample of the dataset that lies in this file, and the first that doesn't any more.
    start: u64,
    stop: u64,
}

/// A row of a file, and where it stands among the samples that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    pub file: usize,
    pub row: u64,
    pub place: usize,
}

impl Files {
    pub fn new(files: Vec<DataFile>, fetcher: Fetcher) -> Files {
        let mut start = 0;
        let files = files.into_iter().map(|file| {
            let held = Held { path: file.path, origin: OnceLock::new(), start, stop: start + file.samples };
            start = held.stop;
            held
        });
        Files { files: files.collect(), fetcher }
    }

    /// A file whole, unpacked, to be read at any place, from the node's cache where it can't be read where it lies. Blocking while it is
    /// fetched.
    ///
    /// Fails with NotFound where it is not there, Corrupt where it can't be unpacked, Overloaded where the cache's disk is full, and as
    /// a bucket does.
    pub fn open(&self, file: usize) -> Result<File> {
        self.fetcher.open(self.origin(file)?)
    }

    /// Has a file at hand before it is opened: where its bytes lie now. Fails as [`Files::open`] does, which finds it without waiting
    /// unless it was evicted meanwhile.
    pub fn local(&self, file: usize) -> Result<PathBuf> {
        self.fetcher.local(self.origin(file)?)
    }

    fn origin(&self, file: usize) -> Result<&Origin> {
        let held = &self.files[file];
        if let Some(origin) = held.origin.get() {
            return Ok(origin);
        }
        let origin = Origin::of(&held.path)?;
        Ok(held.origin.get_or_init(|| origin))
    }

    /// Whether reading may mean to wait for a fetch. As the first file says: a dataset lies in one place.
    pub fn are_fetched(&self) -> bool {
        !self.files.is_empty() && self.origin(0).is_ok_and(|origin| origin.plain().is_none())
    }

    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// How many it held when it was counted.
    pub fn samples(&self, file: usize) -> u64 {
        self.files[file].stop - self.files[file].start
    }

    /// Its name, for messages.
    pub fn path(&self, file: usize) -> &Path {
        &self.files[file].path
    }

    /// File and row in it. Invalid for a sample beyond the last.
    pub fn locate(&self, sample: u64) -> Result<(usize, u64)> {
        let file = self.files.partition_point(|file| file.stop <= sample);
        match self.files.get(file) {
            Some(held) => Ok((file, sample - held.start)),
            None => {
                let samples = self.files.last().map_or(0, |file| file.stop);
                Err(Error::invalid(format!("reading sample {sample}: the dataset has {samples}")))
            }
        }
    }

    /// The files that hold these samples. Invalid for one beyond the last.
    pub fn of(&self, samples: &Range<u64>) -> Result<RangeInclusive<usize>> {
        Ok(self.locate(samples.start)?.0..=self.locate(samples.end - 1)?.0)
    }

    /// Bytes that the node's cache may have.
    pub fn cache_cap(&self) -> Result<u64> {
        self.fetcher.cap()
    }

    /// Where each sample lies, a file after the other: each is opened once, and of those that are fetched a node may hold few at once.
    pub fn by_file(&self, samples: &[u64]) -> Result<Vec<Located>> {
        let locate = |(place, sample): (usize, &u64)| {
            let (file, row) = self.locate(*sample)?;
            Ok(Located { file, row, place })
        };
        let mut located: Vec<Located> = samples.iter().enumerate().map(locate).collect::<Result<_>>()?;
        located.sort_unstable();
        Ok(located)
    }

    /// How many of these samples, from the first on, lie one behind the other in one file.
    pub fn run(&self, samples: &[u64], file: usize) -> usize {
        let following = samples.iter().zip(samples[0]..self.files[file].stop);
        following.take_while(|(sample, expected)| *sample == expected).count()
    }
}

/// What is known of an open file.
pub trait Opened {
    fn file(&self) -> &File;
}

/// The files that are open, each with what is known of it; the one that was opened first goes first. Threads share it: a file is
/// opened by one of them, for which the others that want it wait.
pub struct Open<T> {
    files: Mutex<VecDeque<(usize, Place<T>)>>,
}

/// None until it has been opened.
type Place<T> = Arc<Mutex<Option<Arc<T>>>>;

impl<T> Default for Open<T> {
    fn default() -> Self {
        Open { files: Mutex::default() }
    }
}

impl<T: Opened> Open<T> {
    /// The file of this number. Those that were evicted from the cache take room on its disk as long as they are open: they are
    /// closed before another is opened.
    pub fn get(&self, files: &Files, file: usize, open: impl FnOnce(File) -> Result<T>) -> Result<Arc<T>> {
        let place = self.place(file, files.are_fetched());
        let mut place = place.lock();
        if let Some(opened) = &*place {
            return Ok(opened.clone());
        }
        let opened = Arc::new(open(files.open(file)?)?);
        *place = Some(opened.clone());
        Ok(opened)
    }

    fn place(&self, file: usize, may_be_evicted: bool) -> Place<T> {
        let mut files = self.files.lock();
        if let Some((_, place)) = files.iter().find(|(known, _)| *known == file) {
            return place.clone();
        }
        if files.len() == OPEN {
            files.pop_front();
        }
        if may_be_evicted {
            files.retain(|(_, place)| !was_evicted(place));
        }
        let place = Place::default();
        files.push_back((file, place.clone()));
        place
    }
}

/// One that is being opened was not.
fn was_evicted<T: Opened>(place: &Place<T>) -> bool {
    let Some(place) = place.try_lock() else { return false };
    place.as_ref().is_some_and(|opened| opened.file().metadata().is_ok_and(|about| about.nlink() == 0))
}
