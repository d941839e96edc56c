//! Samples of one size: tokens and arrays.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::{Errno, pread};

use crate::data::files::{Files, Open, Opened};
use crate::data::format::Format;
use crate::data::formats::npy;
use crate::error::{Doing, Error, Result};

/// Reads with `pread`, one call per run of neighbouring samples. Not mmap: a file that shrinks under a map is a SIGBUS,
/// here it is an error that names it.
pub struct Fixed {
    format: Format,
    sample: u64,
    open: Open<Source>,
}

struct Source {
    file: File,
    /// Where its first sample begins.
    start: u64,
}

impl Fixed {
    pub fn new(format: &Format) -> Result<Fixed> {
        let unknown =
            || Error::invalid(format!("reading {} files: the size of a sample is not known", format.name()));
        Ok(Fixed {
            format: format.clone(),
            sample: format.sample_bytes().ok_or_else(unknown)?,
            open: Open::default(),
        })
    }

    pub fn read(&self, files: &Files, samples: &[u64]) -> Result<Vec<u8>> {
        let length = samples.len() * self.sample as usize;
        let mut bytes = Vec::with_capacity(length);
        // A file after the other: of those that are fetched a node may hold few at once.
        let mut runs = self.runs(files, samples, &mut bytes.spare_capacity_mut()[..length])?;
        runs.sort_unstable_by_key(|run| (run.file, run.row));
        for Run { file, row, into } in runs {
            let path = files.path(file);
            let source = self.open.get(files, file, |opened| open(&self.format, path, opened))?;
            fill_at(&source.file, path, source.start + row * self.sample, into)?;
        }
        // SAFETY: the runs are side by side, begin with the first byte, and each was filled.
        unsafe { bytes.set_len(length) };
        Ok(bytes)
    }

    /// Samples that lie side by side in one file, and where they go.
    fn runs<'a>(&self, files: &Files, samples: &[u64], mut bytes: &'a mut [Unread]) -> Result<Vec<Run<'a>>> {
        let (mut runs, mut at) = (Vec::new(), 0);
        while at < samples.len() {
            let (file, row) = files.locate(samples[at])?;
            let count = files.run(&samples[at..], file);
            let (into, rest) = bytes.split_at_mut(count * self.sample as usize);
            runs.push(Run { file, row, into });
            bytes = rest;
            at += count;
        }
        debug_assert!(bytes.is_empty());
        Ok(runs)
    }
}

/// A byte that is yet to be read: zeroing them first took an eighth of the time.
type Unread = MaybeUninit<u8>;

struct Run<'a> {
    file: usize,
    row: u64,
    into: &'a mut [Unread],
}

impl Opened for Source {
    fn file(&self) -> &File {
        &self.file
    }
}

fn open(format: &Format, path: &Path, file: File) -> Result<Source> {
    let doing = || format!("reading {}", path.display());
    let Format::Npy { dtype, shape } = format else { return Ok(Source { file, start: 0 }) };
    let header = npy::read(&file).doing(doing)?;
    match (Some(header.dtype), &header.shape[1..]) == (*dtype, shape) {
        true => Ok(Source { file, start: header.start }),
        false => Err(Error::corrupt(format!("{}: it is another array than when it was registered", doing()))
            .hint("put the file back, or register the dataset anew under another id")),
    }
}

/// Fails with Corrupt where the file has become shorter.
pub fn read_at(file: &File, path: &Path, offset: u64, into: &mut [u8]) -> Result<()> {
    file.read_exact_at(into, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => shorter(path, offset + into.len() as u64),
        _ => Error::io(format!("reading {} at byte {offset}", path.display()), &error),
    })
}

/// As [`read_at`]: afterwards each byte was read.
fn fill_at(file: &File, path: &Path, mut offset: u64, mut into: &mut [Unread]) -> Result<()> {
    let stop = offset + into.len() as u64;
    while !into.is_empty() {
        let read = match pread(file, &mut *into, offset) {
            Err(Errno::INTR) => continue,
            read => read.doing(|| format!("reading {} at byte {offset}", path.display()))?.0.len(),
        };
        if read == 0 {
            return Err(shorter(path, stop));
        }
        offset += read as u64;
        into = &mut into[read..];
    }
    Ok(())
}

fn shorter(path: &Path, wanted: u64) -> Error {
    let path = path.display();
    Error::corrupt(format!(
        "reading {path}: it ends before byte {wanted}, which it had when it was registered"
    ))
    .hint("put the whole file back, or register the dataset anew under another id")
}
