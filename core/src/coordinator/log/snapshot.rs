//! The state as of a record, in a file of its own: a line of JSON that says which record and sums it all, then the state.
//! Replaced whole: written beside the one before, synced, renamed over it.

use std::io::{self, BufWriter, IntoInnerError};

use serde::{Deserialize, Serialize};

use super::Kept;
use super::disk::{Disk, DiskFile};
use crate::error::{Doing, Error, Result};

const NAME: &str = "snapshot";
const FRESH: &str = "snapshot.new";
/// A newer one is refused.
const VERSION: u32 = 1;
/// Of its text, written at once.
const PIECE: usize = 256 << 10;

pub struct Snapshot<S> {
    /// How often the log had been opened when it was written.
    pub life: u64,
    /// Index of the first record that is not in it.
    pub next: u64,
    pub state: S,
}

#[derive(Serialize, Deserialize)]
struct Head {
    v: u32,
    life: u64,
    next: u64,
    /// Of the other fields and the text, as [`Head::summed`] begins it.
    blake3: String,
}

impl Head {
    /// Of a body that is still to be summed: [`Head::line`] is as long whatever its sum.
    fn new(life: u64, next: u64) -> Head {
        Head { v: VERSION, life, next, blake3: "0".repeat(2 * blake3::OUT_LEN) }
    }

    fn summed(&self) -> blake3::Hasher {
        let mut sum = blake3::Hasher::new();
        sum.update(format!("{} {} {}\n", self.v, self.life, self.next).as_bytes());
        sum
    }

    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a header is plain data");
        line.push(b'\n');
        line
    }
}

/// Writes and sums what comes, a piece at a time: the text of a world of 100,000 ranks has 40 MB.
struct Body<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    sum: blake3::Hasher,
}

impl io::Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(self.offset, bytes)?;
        self.sum.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// None: there is none. Corrupt for a damaged one, Invalid for one of a newer version.
pub fn read<S: Kept>(disk: &dyn Disk) -> Result<Option<Snapshot<S>>> {
    let doing = || format!("reading {}", disk.path(NAME).display());
    let Some(mut file) = disk.open(NAME).doing(doing)? else { return Ok(None) };
    let bytes = file.read().doing(doing)?;
    decode(&bytes).map(Some).doing(doing)
}

/// Corrupt where the sum does not hold, Invalid for one of a newer version.
pub fn decode<S: Kept>(bytes: &[u8]) -> Result<Snapshot<S>> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, body) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let damaged = |_| Error::corrupt("its first line is no header of a snapshot");
    let head: Head = serde_json::from_slice(line).map_err(damaged)?;
    if head.v > VERSION {
        return Err(Error::invalid(format!("it has version {}, this build reads up to {VERSION}", head.v))
            .hint("it was written by a newer strata: run that version; nothing has been changed"));
    }
    if head.summed().update(body).finalize().to_hex().as_str() != head.blake3 {
        return Err(Error::corrupt("its checksum does not match"));
    }
    Ok(Snapshot { life: head.life, next: head.next, state: S::decode(body)? })
}

/// Durable when it returns; atomic: a crash leaves this one or the one before.
pub fn write(disk: &dyn Disk, life: u64, next: u64, state: &impl Kept) -> Result<()> {
    replace(disk, |file| {
        let mut head = Head::new(life, next);
        let body = Body { file, offset: head.line().len() as u64, sum: head.summed() };
        let mut pieces = BufWriter::with_capacity(PIECE, body);
        state.encode_into(&mut pieces)?;
        let body = pieces.into_inner().map_err(IntoInnerError::into_error)?;
        head.blake3 = body.sum.finalize().to_hex().to_string();
        file.write(0, &head.line())
    })
}

/// What [`write`] writes.
pub fn encode(life: u64, next: u64, state: &impl Kept) -> Vec<u8> {
    let body = state.encode();
    let mut head = Head::new(life, next);
    head.blake3 = head.summed().update(&body).finalize().to_hex().to_string();
    let mut bytes = head.line();
    bytes.extend_from_slice(&body);
    bytes
}

/// As [`write`].
pub fn write_encoded(disk: &dyn Disk, bytes: &[u8]) -> Result<()> {
    replace(disk, |file| file.write(0, bytes))
}

fn replace(disk: &dyn Disk, fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>) -> Result<()> {
    let write = || {
        let file = disk.create(FRESH)?;
        fill(&*file)?;
        file.sync()?;
        disk.rename(FRESH, NAME)?;
        disk.sync()
    };
    write().doing(|| format!("writing {}", disk.path(NAME).display()))
}
