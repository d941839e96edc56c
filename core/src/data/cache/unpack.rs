//! From a source to a file of the cache, decompressed on the way.

use std::io::{self, BufRead, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

use super::origin::{Packing, Source};
use super::part::Part;
use crate::error::{Error, Result};

/// Of a source at once, where it does not ask for more: memory that a fetch takes.
const LEAST: u64 = 1 << 20;
const MOST: u64 = 32 << 20;
/// Handed over by a decoder at once.
const PIECE: usize = 1 << 20;
/// `zstd --long=31` writes such frames; no decoder takes more.
const LONGEST_WINDOW: u32 = 31;

/// Copies all of `source`, unpacked.
///
/// Fails with Corrupt where it is not whole, or not what its own checksums say.
pub fn copy(source: &Source, packing: Option<Packing>, name: &Path, part: &mut Part) -> Result<()> {
    let mut input = Input::new(source);
    match packing {
        None => {
            part.reserve(source.bytes())?;
            while input.next().map_err(|error| failed(name, error))? {
                part.write(&input.piece)?;
                input.at = input.piece.len();
            }
            Ok(())
        }
        Some(_) if source.bytes() == 0 => Err(damaged(name, "it is empty")),
        Some(Packing::Gzip) => drain(MultiGzDecoder::new(input), name, part),
        Some(Packing::Zstd) => {
            let mut decoder = Decoder::with_buffer(input).map_err(|error| failed(name, error))?;
            decoder.window_log_max(LONGEST_WINDOW).map_err(|error| failed(name, error))?;
            drain(decoder, name, part)
        }
    }
}

fn drain(mut decoder: impl Read, name: &Path, part: &mut Part) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = decoder.read(&mut piece).map_err(|error| failed(name, error))?;
        if read == 0 {
            return Ok(());
        }
        part.write(&piece[..read])?;
    }
}

/// What reading the source has come to, or else what the decoder makes of its bytes.
fn failed(name: &Path, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => damaged(name, "it ends too early"),
        Err(error) => damaged(name, &format!("it can't be decompressed: {error}")),
    }
}

fn damaged(name: &Path, why: &str) -> Error {
    Error::corrupt(format!("reading {}: {why}", name.display()))
        .hint("the file was cut off or written over: put the whole file back")
}

/// A source, piece by piece.
struct Input<'a> {
    source: &'a Source,
    most: u64,
    next: u64,
    piece: Vec<u8>,
    /// What was taken of it.
    at: usize,
}

impl Input<'_> {
    fn new(source: &Source) -> Input<'_> {
        let most = source.together().clamp(LEAST, MOST);
        Input { source, most, next: 0, piece: Vec::new(), at: 0 }
    }

    /// Whether there is one more.
    fn next(&mut self) -> io::Result<bool> {
        let take = self.most.min(self.source.bytes() - self.next);
        self.piece.resize(take as usize, 0);
        self.source.read_at(self.next, &mut self.piece).map_err(io::Error::other)?;
        (self.next, self.at) = (self.next + take, 0);
        Ok(take > 0)
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            self.next()?;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Input<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let take = piece.len().min(into.len());
        into[..take].copy_from_slice(&piece[..take]);
        self.consume(take);
        Ok(take)
    }
}
