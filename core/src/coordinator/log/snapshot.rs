//! The state as of a record, in a file of its own: a line of JSON that says which record and sums it all, then the state.
//! Replaced whole: written beside the one before, synced, renamed over it.

use serde::{Deserialize, Serialize};

use super::Kept;
use super::disk::Disk;
use crate::error::{Doing, Error, Result};

const NAME: &str = "snapshot";
const FRESH: &str = "snapshot.new";
/// A newer one is refused.
const VERSION: u32 = 1;

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
    /// BLAKE3 of [`Head::summed`].
    blake3: String,
}

impl Head {
    fn new(life: u64, next: u64, body: &[u8]) -> Head {
        let mut head = Head { v: VERSION, life, next, blake3: String::new() };
        head.blake3 = head.sum(body);
        head
    }

    fn sum(&self, body: &[u8]) -> String {
        let mut sum = blake3::Hasher::new();
        sum.update(format!("{} {} {}\n", self.v, self.life, self.next).as_bytes());
        sum.update(body);
        sum.finalize().to_hex().to_string()
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
    if head.sum(body) != head.blake3 {
        return Err(Error::corrupt("its checksum does not match"));
    }
    Ok(Snapshot { life: head.life, next: head.next, state: S::decode(body)? })
}

/// Durable when it returns; atomic: a crash leaves this one or the one before.
pub fn write(disk: &dyn Disk, life: u64, next: u64, state: &impl Kept) -> Result<()> {
    write_encoded(disk, &encode(life, next, state))
}

/// What [`write`] writes.
pub fn encode(life: u64, next: u64, state: &impl Kept) -> Vec<u8> {
    let body = state.encode();
    let mut bytes = serde_json::to_vec(&Head::new(life, next, &body)).expect("a header is plain data");
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    bytes
}

/// As [`write`].
pub fn write_encoded(disk: &dyn Disk, bytes: &[u8]) -> Result<()> {
    let write = || {
        let file = disk.create(FRESH)?;
        file.write(0, bytes)?;
        file.sync()?;
        disk.rename(FRESH, NAME)?;
        disk.sync()
    };
    write().doing(|| format!("writing {}", disk.path(NAME).display()))
}
