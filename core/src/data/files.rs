//! The files of a dataset as a reader knows them: which file holds a sample, and the few that are open.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::spec::DataFile;
use crate::error::{Error, Result};

/// Files held open at once; a window of the order has 16 shards, of few files each. Far below the 1,024 that a process may open.
const OPEN: usize = 128;

/// In their order, with the samples that lie in each.
#[derive(Debug)]
pub struct Files {
    files: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    /// First sample of the dataset that lies in this file, and the first that doesn't any more.
    start: u64,
    stop: u64,
}

impl Files {
    pub fn new(files: Vec<DataFile>) -> Files {
        let mut start = 0;
        let files = files.into_iter().map(|file| {
            let held = Held { path: file.path, start, stop: start + file.samples };
            start = held.stop;
            held
        });
        Files { files: files.collect() }
    }

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

    /// How many of these samples, from the first on, lie one behind the other in one file.
    pub fn run(&self, samples: &[u64], file: usize) -> usize {
        let following = samples.iter().zip(samples[0]..self.files[file].stop);
        following.take_while(|(sample, expected)| *sample == expected).count()
    }
}

/// The files that are open, each with what is known of it; the one that was opened first goes first.
pub struct Open<T> {
    files: VecDeque<(usize, T)>,
}

impl<T> Default for Open<T> {
    fn default() -> Self {
        Open { files: VecDeque::new() }
    }
}

impl<T> Open<T> {
    pub fn get(&mut self, file: usize, open: impl FnOnce() -> Result<T>) -> Result<&T> {
        let at = match self.files.iter().position(|(known, _)| *known == file) {
            Some(at) => at,
            None => {
                let opened = open()?;
                if self.files.len() == OPEN {
                    self.files.pop_front();
                }
                self.files.push_back((file, opened));
                self.files.len() - 1
            }
        };
        Ok(&self.files[at].1)
    }
}
