//! A large file written straight from the caller's memory where that is aligned: through io_uring where that can be had,
//! else by the calling threads themselves.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

use super::aligned::{ALIGNMENT, Aligned, BOUNCE, DirectFile, is_aligned};
use super::changes::{Change, change};
use super::error::failed;
use super::publish::{Existing, Temporary};
use super::ring::{Flight, Landed, Memory, Ring, Wait};
use crate::error::{Error, Result};
use crate::storage::{Created, DiskQueue, Piece, Writer, crc32c};

/// Room is allocated ahead: an extent that is there lets writers go on side by side (an ext4 write past the end of a file
/// locks it alone), and a full disk shows before the bytes are sent. Each allocation waits until the file has nothing in
/// flight (10 to 35 ms on ext4 with sixteen writes of 4 MiB; steps of 256 MiB cost a fifth of the rate), so they are few: this
/// much first, and then as much again as there is. An INCREMENTAL save may need far less than it was announced with.
const FIRST_ALLOCATION: u64 = 4 << 30;
/// Smaller files are written in one or two requests: a queue has nothing to keep busy.
const RING_FROM: u64 = 8 << 20;

pub struct LocalWriter {
    /// First, so that it is dropped first: what it has in flight goes to the file. None: the callers' threads write.
    ring: Option<Mutex<Ring>>,
    file: DirectFile,
    target: PathBuf,
    existing: Existing,
    at_most: u64,
    ends: Mutex<Ends>,
    /// Taken by `finish`; dropped before, it unlinks the file.
    temporary: Mutex<Option<Temporary>>,
}

#[derive(Default)]
struct Ends {
    data: u64,
    allocated: u64,
}

impl LocalWriter {
    #[cfg(test)]
    pub fn begin(place: &Path, target: &Path, at_most: u64, queue: DiskQueue) -> Result<LocalWriter> {
        LocalWriter::begin_as(place, target, at_most, queue, Existing::Keep)
    }

    /// `existing`: whether it may take the place of a file of that name.
    pub fn begin_as(
        place: &Path,
        target: &Path,
        at_most: u64,
        queue: DiskQueue,
        existing: Existing,
    ) -> Result<LocalWriter> {
        let temporary = Temporary::create(place, target, libc::O_DIRECT)?;
        let file = temporary.file.try_clone();
        let file = file.map_err(|error| failed(format!("creating {}", target.display()), target, &error))?;
        let file = DirectFile::new(file, &temporary.path);
        // Through the page cache a write copies and is done: a queue has nothing to wait for.
        let wanted = queue == DiskQueue::Probed && at_most >= RING_FROM && file.is_direct();
        Ok(LocalWriter {
            ring: wanted.then(open_ring).flatten().map(Mutex::new),
            file,
            target: target.to_owned(),
            existing,
            at_most: at_most.next_multiple_of(ALIGNMENT as u64),
            ends: Mutex::default(),
            temporary: Mutex::new(Some(temporary)),
        })
    }

    #[cfg(test)]
    pub fn is_direct(&self) -> bool {
        self.file.is_direct()
    }

    #[cfg(test)]
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// As if room had been found for all of it, so that only writing tells.
    #[cfg(test)]
    pub fn pretend_allocated(&self) {
        self.ends.lock().allocated = u64::MAX;
    }

    /// As it must never be done: from an address that O_DIRECT refuses.
    #[cfg(test)]
    pub fn write_unaligned_for_test(&self, bytes: &[u8]) {
        self.file.write_at(bytes, 0).unwrap();
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        failed(format!("writing {}", self.target.display()), &self.target, error)
    }

    /// The next `bytes` of the file.
    fn reserve(&self, bytes: u64) -> Result<u64> {
        let mut ends = self.ends.lock();
        let (offset, end) = (ends.data, ends.data + bytes);
        if end > ends.allocated {
            let step = ends.allocated.max(FIRST_ALLOCATION);
            let wished = ends.allocated.saturating_add(step).min(self.at_most).max(end);
            ends.allocated = self
                .allocate_some(ends.allocated, wished, end)
                .map_err(|errno| self.failed(&errno.into()))?;
        }
        ends.data = end;
        Ok(offset)
    }

    /// Up to `wished`, or less where the disk lacks that, but up to `needed` at least.
    fn allocate_some(&self, from: u64, wished: u64, needed: u64) -> rustix::io::Result<u64> {
        match self.allocate(from, wished) {
            Err(Errno::NOSPC) if wished > needed => {
                let less = from + ((wished - from) / 2).next_multiple_of(ALIGNMENT as u64);
                self.allocate_some(from, less.max(needed).min(wished - 1), needed)
            }
            other => other,
        }
    }

    fn allocate(&self, from: u64, to: u64) -> rustix::io::Result<u64> {
        let allocate = || match fallocate(&self.file.file, FallocateFlags::empty(), from, to - from) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => ftruncate(&self.file.file, to),
            other => other,
        };
        change(Change::Write(self.file.path()), allocate).map(|()| to)
    }

    /// Through aligned memory, the last block padded with zeros.
    fn write_through(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let mut bounce = Aligned::new(BOUNCE.min(bytes.len().next_multiple_of(ALIGNMENT)));
        for (number, part) in bytes.chunks(BOUNCE).enumerate() {
            let padded = part.len().next_multiple_of(ALIGNMENT);
            bounce.get()[..part.len()].copy_from_slice(part);
            bounce.get()[part.len()..padded].fill(0);
            self.file.write_at(&bounce.get()[..padded], offset + (number * BOUNCE) as u64)?;
        }
        Ok(())
    }
}

/// None, and threads, where there is none to be had.
fn open_ring() -> Option<Ring> {
    Ring::open().inspect_err(|error| tracing::debug!(%error, "io_uring is not to be had: threads write")).ok()
}

impl LocalWriter {
    /// By the calling thread: done when it returns.
    fn write(&self, piece: &Piece, straight: usize, offset: u64) -> Result<()> {
        let (head, tail) = piece.bytes.split_at(straight);
        self.file
            .write_at(head, offset)
            .and_then(|()| self.write_through(tail, offset + straight as u64))
            .map_err(|error| self.failed(&error))?;
        self.check(piece, offset)
    }

    /// Through the ring: on its way when it returns. Looks after those that have landed meanwhile, whoever sent them.
    fn send(&self, ring: &Mutex<Ring>, piece: Piece, straight: usize, offset: u64) -> Result<()> {
        let mut tail = Aligned::new((piece.bytes.len() - straight).next_multiple_of(ALIGNMENT));
        tail.get()[..piece.bytes.len() - straight].copy_from_slice(&piece.bytes[straight..]);
        let tail = Flight { memory: Memory::Block(tail), offset: offset + straight as u64 };
        let head = Flight { memory: Memory::Piece(piece, straight), offset };
        let mut landed = Vec::new();
        {
            let mut ring = ring.lock();
            for flight in [head, tail].into_iter().filter(|flight| !flight.bytes().is_empty()) {
                while ring.is_full() {
                    landed.extend(ring.land(Wait::ForOne).map_err(|error| self.failed(&error))?);
                }
                let write = || ring.write(&self.file.file, flight);
                change(Change::Write(self.file.path()), write).map_err(|error| self.failed(&error))?;
            }
            landed.extend(ring.land(Wait::No).map_err(|error| self.failed(&error))?);
        }
        landed.into_iter().try_for_each(|landed| self.settle(landed))
    }

    /// What the ring did not write, or not all of it, is written again by this thread, and its answer counts: an interrupted
    /// request is made up for, a disk that is full or broken says so once more, and the refusal of O_DIRECT is heeded.
    fn settle(&self, landed: Landed) -> Result<()> {
        let Landed { flight, written } = landed;
        let bytes = flight.bytes();
        let written = written.unwrap_or(0);
        if written < bytes.len() {
            let whole = written - written % ALIGNMENT;
            let rest = self.file.write_at(&bytes[whole..], flight.offset + whole as u64);
            rest.map_err(|error| self.failed(&error))?;
        }
        match &flight.memory {
            Memory::Piece(piece, _) => self.check(piece, flight.offset),
            Memory::Block(_) => Ok(()),
        }
    }

    /// Waits for all that is in flight.
    fn land(&self, ring: &Mutex<Ring>) -> Result<()> {
        let mut ring = ring.lock();
        while !ring.is_empty() {
            let landed = ring.land(Wait::ForOne).map_err(|error| self.failed(&error))?;
            landed.into_iter().try_for_each(|landed| self.settle(landed))?;
        }
        Ok(())
    }

    /// The disk has taken these bytes: are they those that were summed?
    fn check(&self, piece: &Piece, offset: u64) -> Result<()> {
        if crc32c(&piece.bytes) == piece.crc32c {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "writing {}: the bytes at its {offset} were changed in memory after they were summed",
            self.target.display()
        )))
    }
}

impl Writer for LocalWriter {
    fn append(&self, piece: Piece) -> Result<u64> {
        let bytes = piece.bytes.as_ref();
        let offset = self.reserve(bytes.len().next_multiple_of(ALIGNMENT) as u64)?;
        let straight = if is_aligned(bytes) { bytes.len() - bytes.len() % ALIGNMENT } else { 0 };
        match &self.ring {
            // What must be copied first in more than one block is no matter of the disk's queue.
            Some(ring) if straight > 0 => self.send(ring, piece, straight, offset)?,
            _ => self.write(&piece, straight, offset)?,
        }
        Ok(offset)
    }

    fn finish(&self) -> Result<u64> {
        let Some(temporary) = self.temporary.lock().take() else {
            return Err(Error::internal(format!("finishing {} a second time", self.target.display())));
        };
        if let Some(ring) = &self.ring {
            self.land(ring)?;
        }
        let ends = self.ends.lock();
        let cut = || ftruncate(&self.file.file, ends.data);
        change(Change::Write(self.file.path()), cut).map_err(|errno| self.failed(&errno.into()))?;
        change(Change::Sync(self.file.path()), || self.file.file.sync_all())
            .map_err(|error| failed(format!("syncing {}", self.target.display()), &self.target, &error))?;
        match temporary.publish(&self.target, self.existing)? {
            Created::New => Ok(ends.data),
            Created::Exists => {
                Err(Error::conflict(format!("publishing {}: the name is taken", self.target.display())))
            }
        }
    }
}
