//! Writes in flight through io_uring (io_uring(7)): the disk's queue stays deep while the threads that fill it sum the
//! next bytes. Where the kernel has none, or a sandbox forbids it, there is no ring and threads write.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use super::aligned::Aligned;
use crate::storage::Piece;

/// Writes in flight at once. Eight of 4 MiB are as fast as any more on the disks that we met; the others are for the last
/// blocks of tensors, which are small.
const DEPTH: u32 = 16;
/// What the kernel writes at most in one request (0x7ffff000), rounded down.
const LONGEST: usize = 1 << 30;

/// One file's writes; those of several files never mix.
pub struct Ring {
    ring: IoUring,
    /// By the number that the kernel gives back.
    flights: Vec<Option<Flight>>,
    free: Vec<usize>,
}

/// Bytes on their way to the disk. They are kept until the kernel has done with them.
pub struct Flight {
    pub memory: Memory,
    pub offset: u64,
}

pub enum Memory {
    /// The first so many bytes of a piece, aligned.
    Piece(Piece, usize),
    /// A copy, padded.
    Block(Aligned),
}

impl Flight {
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Piece(piece, straight) => &piece.bytes[..*straight],
            Memory::Block(block) => block.bytes(),
        }
    }
}

/// What the kernel has done with: so many bytes are written, or none and why.
pub struct Landed {
    pub flight: Flight,
    pub written: io::Result<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    No,
    ForOne,
}

impl Ring {
    /// Asking for one is the probe: EPERM (seccomp, kernel.io_uring_disabled), ENOSYS and a kernel before 5.6, which has
    /// no plain write, are errors here.
    pub fn open() -> io::Result<Ring> {
        let ring = IoUring::builder().dontfork().build(DEPTH)?;
        let mut known = io_uring::Probe::new();
        ring.submitter().register_probe(&mut known)?;
        if !known.is_supported(opcode::Write::CODE) {
            return Err(ErrorKind::Unsupported.into());
        }
        let depth = DEPTH as usize;
        Ok(Ring { ring, flights: (0..depth).map(|_| None).collect(), free: (0..depth).collect() })
    }

    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.flights.len()
    }

    /// Begins to write; not when it is full. Of very long bytes only the beginning may be written.
    pub fn write(&mut self, file: &File, flight: Flight) -> io::Result<()> {
        let number = self.free.pop().expect("the caller has asked whether there is room");
        let flight = self.flights[number].insert(flight);
        let bytes = flight.bytes();
        let length = bytes.len().min(LONGEST) as u32;
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), length)
            .offset(flight.offset)
            .build()
            .user_data(number as u64);
        // SAFETY: the bytes live in `flights` until their completion was seen (`land`, `drop`), and lie on the heap or in a
        // mapping, so that moving the flight does not move them. The file outlives the ring in LocalWriter.
        unsafe { self.ring.submission().push(&entry) }.expect("the queue has as many places as flights");
        match self.ring.submit() {
            // What is not taken yet is taken with the next call.
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// What has been done meanwhile; waits for one, if told so and any is in flight.
    pub fn land(&mut self, wait: Wait) -> io::Result<Vec<Landed>> {
        let mut landed = self.seen();
        while wait == Wait::ForOne && landed.is_empty() && !self.is_empty() {
            match self.ring.submit_and_wait(1) {
                Err(error) if !is_passing(&error) => return Err(error),
                _ => landed = self.seen(),
            }
        }
        Ok(landed)
    }

    fn seen(&mut self) -> Vec<Landed> {
        let mut landed = Vec::new();
        for entry in self.ring.completion() {
            let number = entry.user_data() as usize;
            let flight = self.flights[number].take().expect("each is completed once");
            self.free.push(number);
            let written = match entry.result() {
                errno if errno < 0 => Err(io::Error::from_raw_os_error(-errno)),
                written => Ok(written as usize),
            };
            landed.push(Landed { flight, written });
        }
        landed
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

/// The disk reads from the bytes until it is done: they may be given to nobody else before that.
impl Drop for Ring {
    fn drop(&mut self) {
        while !self.is_empty() {
            if let Err(error) = self.land(Wait::ForOne) {
                tracing::warn!(%error, "keeping memory that the disk may still read from");
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
        }
    }
}
