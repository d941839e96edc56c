//! What the engine asks of a store, whatever it is.

use std::fmt;

use bytes::Bytes;

use crate::error::Result;

/// Objects under one prefix, named by paths such as `data/x/y`. Temporaries of a writer, alive or dead, are no objects.
pub trait Store: Send + Sync + fmt::Debug {
    /// The whole name of an object, for messages.
    fn name_of(&self, path: &str) -> String;

    /// Makes the place of all these objects, where a store has one of its own: a directory. Durable. What writes never makes
    /// it: a place that is gone may be a disk that is not mounted.
    fn make_place(&self) -> Result<()>;

    /// The user whose place it is, where the store knows users: a directory's owner.
    fn place_uid(&self) -> Result<Option<u32>>;

    /// Writes a small object that must not exist yet. Unavailable when the place is not there. Atomic: of several that try at once one creates it; nobody ever
    /// sees a part of it. Durable when it returns Ok. After Unavailable or Timeout it may exist all the same.
    fn create(&self, path: &str, content: Bytes) -> Result<Created>;

    /// Writes a small object, over another one too. Atomic and durable.
    fn replace(&self, path: &str, content: Bytes) -> Result<()>;

    /// A small object, whole. NotFound when there is none.
    fn read(&self, path: &str) -> Result<Bytes>;

    /// Opens a large object for ranged reads. NotFound when there is none.
    fn reader(&self, path: &str) -> Result<Box<dyn Reader>>;

    /// Begins a large object under a name that nobody else uses; `at_most` bytes will be appended. It can be seen only
    /// once it is finished.
    fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>>;

    /// As `writer`, and what is finished takes the place of an object of that name, which is seen whole until then.
    fn rewriter(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>>;

    /// Every object below `folder`, at any depth, in any order; none when there is no such folder. Never a part of the
    /// list: what can't be listed is an error.
    fn list(&self, folder: &str) -> Result<Vec<Listed>>;

    /// Names of the folders right below `folder`, without their path.
    fn folders(&self, folder: &str) -> Result<Vec<String>>;

    /// Deletes these objects, in any order; one that is not there is deleted. Durable: a crash brings none back.
    fn delete(&self, paths: &[String]) -> Result<()>;

    /// Removes what dead writers left in `folder`, of which nobody may be writing any more; the freed bytes.
    fn sweep(&self, folder: &str) -> Result<u64>;
}

/// A large object being written, by several threads at once. Dropped before `finish`, nothing of it stays.
pub trait Writer: Send + Sync {
    /// Appends; the offset at which it lies, a multiple of 4096. Returns when the bytes may still be on their way.
    fn append(&self, piece: Piece) -> Result<u64>;

    /// Makes all of it durable under its name, padded to 4096; its length. Called once, after every append returned.
    fn finish(&self) -> Result<u64>;
}

/// Bytes to append, and their CRC32C: a writer that has read them once more than it summed them looks again, and
/// reports Corrupt when they changed meanwhile.
#[derive(Clone)]
pub struct Piece {
    pub bytes: Bytes,
    pub crc32c: u32,
}

/// A large object being read, by several threads at once.
pub trait Reader: Send + Sync {
    /// Of the object.
    fn bytes(&self) -> u64;

    /// From now on nothing is read but the object as it was when it was opened: Conflict once another has its name, where the store can
    /// tell. What tells the two apart; None: the store has no such thing.
    fn pin(&mut self) -> Option<String> {
        None
    }

    /// Fills `target` from `offset` on. Corrupt when the object ends before. Where a local file is read into memory that is
    /// not aligned to 4096 it holds as much memory again meanwhile, else next to none.
    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()>;

    /// How many bytes had better be asked for at once, so that requests are long beside their way and several are on it; 0:
    /// any number.
    fn together(&self) -> u64 {
        0
    }

    /// Fills parts, by ascending offset, that lie close to each other: where the store has requests, as few as that makes.
    fn read_together(&self, parts: &mut [Part<'_>]) -> Result<()> {
        parts.iter_mut().try_for_each(|part| self.read_at(part.offset, part.target))
    }
}

/// Where some bytes of an object go.
pub struct Part<'a> {
    pub offset: u64,
    pub target: &'a mut [u8],
}

/// How a create-only write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    /// There was one already; it is as it was.
    Exists,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub path: String,
    pub bytes: u64,
}
