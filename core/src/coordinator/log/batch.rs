//! The bytes of a batch, the unit that is there whole or not at all: a header of 40 bytes, then its records, a line each,
//! then zeros up to a multiple of eight. Pure.
//!
//! | bytes | little endian |
//! |---|---|
//! | 0..4 | ff `S` `L` fe: nowhere in records, which are UTF-8 |
//! | 4..8 | CRC32C of everything behind it up to the records' end |
//! | 8..16 | life of the log: how often it was opened before; batches of another one are stale |
//! | 16..24 | index of the first record |
//! | 24..32 | how many records |
//! | 32..40 | their bytes |

use super::Kept;
use crate::checksum::crc32c;

const MAGIC: [u8; 4] = [0xff, b'S', b'L', 0xfe];
/// Where the sum begins to count.
const SUMMED: usize = 8;
const HEADER: usize = 40;
/// Batches begin at multiples of it.
pub const ALIGNED: usize = 8;

#[derive(Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    pub life: u64,
    /// Index of its first record.
    pub index: u64,
    pub count: u64,
    pub records: &'a [u8],
}

/// Writes the batch into `to`, in place of what it held.
pub fn encode<S: Kept>(life: u64, index: u64, records: &[S::Record], to: &mut Vec<u8>) {
    to.clear();
    to.resize(HEADER, 0);
    records.iter().for_each(|record| S::write(record, to));
    let bytes = (to.len() - HEADER) as u64;
    for (field, value) in [life, index, records.len() as u64, bytes].into_iter().enumerate() {
        to[SUMMED + field * 8..][..8].copy_from_slice(&value.to_le_bytes());
    }
    let sum = crc32c(&to[SUMMED..]);
    to[4..SUMMED].copy_from_slice(&sum.to_le_bytes());
    to[..4].copy_from_slice(&MAGIC);
    to.resize(to.len().next_multiple_of(ALIGNED), 0);
}

impl Batch<'_> {
    /// The batch that begins these bytes; None: none does, or not whole.
    pub fn decode(bytes: &[u8]) -> Option<Batch<'_>> {
        let header = bytes.get(..HEADER).filter(|header| header[..4] == MAGIC)?;
        let field = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let end = usize::try_from(field(32)).ok()?.checked_add(HEADER)?;
        let summed = bytes.get(SUMMED..end)?;
        let sum = u32::from_le_bytes(header[4..SUMMED].try_into().expect("four bytes"));
        let whole = crc32c(summed) == sum;
        whole.then(|| Batch {
            life: field(8),
            index: field(16),
            count: field(24),
            records: &bytes[HEADER..end],
        })
    }

    /// With its padding.
    pub fn bytes(&self) -> usize {
        (HEADER + self.records.len()).next_multiple_of(ALIGNED)
    }

    pub fn next(&self) -> u64 {
        self.index + self.count
    }

    pub fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let lines = self.records.split_inclusive(|byte| *byte == b'\n');
        (self.index..).zip(lines)
    }
}

/// Walks the batches of one life from the front of a file, from the record `index` on.
pub struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    life: u64,
    index: u64,
}

impl<'a> Walk<'a> {
    pub fn new(bytes: &'a [u8], life: u64, index: u64) -> Walk<'a> {
        Walk { bytes, at: 0, life, index }
    }

    /// Where a whole batch lies behind the end of those that follow each other: what is between was damaged, since a batch
    /// is begun only when the one before it is durable. A torn last batch has none behind it.
    pub fn gap(&self) -> Option<Gap> {
        let behind = (self.at..self.bytes.len()).step_by(ALIGNED);
        let found = behind.filter_map(|at| Batch::decode(&self.bytes[at..]).map(|batch| (at, batch)));
        let mut ours = found.filter(|(_, batch)| batch.life == self.life && batch.index >= self.index);
        ours.next().map(|(good, batch)| Gap { bad: self.at, good, index: batch.index })
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Batch<'a>;

    fn next(&mut self) -> Option<Batch<'a>> {
        let batch = Batch::decode(self.bytes.get(self.at..)?)?;
        if (batch.life, batch.index) != (self.life, self.index) {
            return None;
        }
        self.at += batch.bytes();
        self.index = batch.next();
        Some(batch)
    }
}

/// Damage with a good batch behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the damaged one begins.
    pub bad: usize,
    pub good: usize,
    /// Of the good one's first record.
    pub index: u64,
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
