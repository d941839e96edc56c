//! What is known of a pack's bytes from the manifests that refer to it: which stretches are whose, and their sums. With
//! it a pack can be checked and copied as it is, without decoding anything.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::decode::encoding;
use crate::error::{Error, Result};
use crate::format::Encoding;
use crate::format::chunks::ALIGNMENT;
use crate::format::encoding::Stored;
use crate::proto::format::Manifest;
use crate::storage::{Reader, crc32c};

/// Read and written at once. A chunk has no more, so that a piece is one chunk or several small ones.
pub const PIECE: u64 = 4 << 20;

/// By path.
#[derive(Debug, Default)]
pub struct Extents(BTreeMap<String, PackExtents>);

#[derive(Debug, Default)]
pub struct PackExtents {
    /// Of the whole pack.
    pub bytes: u64,
    /// Offset, length, CRC32C of what is stored there. Where two manifests disagree both claims are kept: one is wrong.
    claims: BTreeSet<(u64, u64, u32)>,
}

/// A stretch of a pack, from and up to a multiple of 4096 or the pack's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub offset: u64,
    pub bytes: u64,
    /// Inside of it; none: nobody at hand knows what should be there.
    claims: Vec<(u64, u64, u32)>,
}

impl Extents {
    pub fn of(manifests: &[Manifest]) -> Result<Extents> {
        let mut extents = Extents::default();
        for manifest in manifests {
            extents.name_packs(manifest)?;
            extents.add(manifest)?;
        }
        Ok(extents)
    }

    /// A manifest's packs are to be there, also those that none of its chunks lies in.
    fn name_packs(&mut self, manifest: &Manifest) -> Result<()> {
        for pack in &manifest.packs {
            let known = self.0.entry(pack.path.clone()).or_default();
            if known.bytes != 0 && known.bytes != pack.bytes {
                return Err(Error::corrupt(format!(
                    "manifests disagree about the length of {}: {} and {}",
                    pack.path, known.bytes, pack.bytes
                )));
            }
            known.bytes = pack.bytes;
        }
        Ok(())
    }

    /// What a manifest says about packs that are known already; others stay unknown.
    pub fn add(&mut self, manifest: &Manifest) -> Result<()> {
        let path = |pack: u32| manifest.packs.get(pack as usize).map(|pack| pack.path.as_str());
        for chunk in &manifest.chunks {
            match encoding(chunk)? {
                Encoding::Whole(whole) => self.claim(path(whole.stored.pack), &whole.stored),
                Encoding::Difference { stored, base, .. } => {
                    self.claim(path(stored.pack), &stored);
                    self.claim(path(base.stored.pack), &base.stored);
                }
                Encoding::Rounded { .. } => {}
            }
        }
        Ok(())
    }

    fn claim(&mut self, path: Option<&str>, stored: &Stored<u32>) {
        if let Some(pack) = path.and_then(|path| self.0.get_mut(path)) {
            pack.claims.insert((stored.offset, stored.bytes, stored.crc32c));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &PackExtents)> {
        self.0.iter().map(|(path, pack)| (path.as_str(), pack))
    }
}

impl PackExtents {
    /// All of the pack, in order, in stretches of about [`PIECE`]; no claim is cut in two.
    pub fn stretches(&self) -> Vec<Stretch> {
        let mut found: Vec<Stretch> = Vec::new();
        let mut end = 0;
        for &(offset, bytes, sum) in &self.claims {
            let from = offset - offset % ALIGNMENT;
            let to = (offset + bytes).next_multiple_of(ALIGNMENT).min(self.bytes.max(offset + bytes));
            if from > end {
                unclaimed(&mut found, end, from);
            }
            let start = from.max(end);
            match found.last_mut() {
                // It begins inside of what is there.
                Some(last) if from < end => {
                    last.bytes = last.bytes.max(to - last.offset);
                    last.claims.push((offset, bytes, sum));
                }
                Some(last)
                    if !last.claims.is_empty()
                        && last.offset + last.bytes == start
                        && to - last.offset <= PIECE =>
                {
                    last.bytes = to - last.offset;
                    last.claims.push((offset, bytes, sum));
                }
                _ => found.push(Stretch {
                    offset: start,
                    bytes: to - start,
                    claims: vec![(offset, bytes, sum)],
                }),
            }
            end = end.max(to);
        }
        unclaimed(&mut found, end, self.bytes);
        found
    }
}

fn unclaimed(found: &mut Vec<Stretch>, from: u64, to: u64) {
    let mut at = from;
    while at < to {
        let bytes = PIECE.min(to - at);
        found.push(Stretch { offset: at, bytes, claims: Vec::new() });
        at += bytes;
    }
}

impl Stretch {
    /// Whether `bytes`, which lie at this stretch's place, are what every claim says.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.claims.iter().all(|&(offset, length, sum)| {
            let start = (offset - self.offset) as usize;
            bytes.get(start..start + length as usize).is_some_and(|chunk| crc32c(chunk) == sum)
        })
    }

    /// Its bytes, checked; read a second time where they are wrong at first: a flip on the way is not one in the store.
    /// Corrupt, naming `what`, when they are not what was written.
    pub fn read(&self, reader: &dyn Reader, what: &str) -> Result<Bytes> {
        let mut memory = Page::of(self.bytes as usize);
        for _ in 0..2 {
            reader.read_at(self.offset, memory.bytes())?;
            if self.holds(memory.bytes()) {
                return Ok(memory.into());
            }
        }
        Err(Error::corrupt(format!(
            "reading {} bytes at {} of {what}: they are not what was written (CRC32C does not match)",
            self.bytes, self.offset
        )))
    }
}

/// Memory from a page's start on: a local disk reads straight into it, and writes straight from it.
struct Page {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Page {
    fn of(bytes: usize) -> Page {
        let memory = vec![0; bytes + ALIGNMENT as usize];
        let start = memory.as_ptr().align_offset(ALIGNMENT as usize);
        Page { memory, start, bytes }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

impl From<Page> for Bytes {
    fn from(page: Page) -> Bytes {
        let range = page.start..page.start + page.bytes;
        Bytes::from(page.memory).slice(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretches(bytes: u64, claims: &[(u64, u64)]) -> Vec<(u64, u64, usize)> {
        let claims = claims.iter().map(|&(offset, bytes)| (offset, bytes, 7)).collect();
        let pack = PackExtents { bytes, claims };
        pack.stretches().into_iter().map(|found| (found.offset, found.bytes, found.claims.len())).collect()
    }

    #[test]
    fn stretches_cover_the_pack_once_and_cut_no_claim() {
        let mib = 1 << 20;
        assert_eq!(stretches(8192, &[]), [(0, 8192, 0)]);
        assert_eq!(stretches(8192, &[(0, 10), (4096, 4096)]), [(0, 8192, 2)]);
        assert_eq!(stretches(12288, &[(4096, 10)]), [(0, 4096, 0), (4096, 4096, 1), (8192, 4096, 0)]);
        let large =
            stretches(12 * mib, &[(0, 4 * mib), (4 * mib, 3 * mib), (4 * mib, 4 * mib), (8 * mib, mib)]);
        assert_eq!(large, [(0, 4 * mib, 1), (4 * mib, 4 * mib, 2), (8 * mib, mib, 1), (9 * mib, 3 * mib, 0)]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            let mut next = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let pages = 1 + next(4000);
            let mut claims = Vec::new();
            for _ in 0..next(20) {
                let (page, length) = (next(pages), (1 + next(1024)) * 4096 - next(4096));
                claims.push((page * 4096, length.min((pages - page) * 4096)));
            }
            let found = stretches(pages * 4096, &claims);
            let mut end = 0;
            for (offset, bytes, _) in &found {
                assert_eq!(*offset, end, "{claims:?}: {found:?}");
                end += bytes;
            }
            assert_eq!(end, pages * 4096);
            for (offset, bytes) in claims {
                let inside =
                    |(at, long, _): &&(u64, u64, usize)| *at <= offset && offset + bytes <= at + long;
                assert!(found.iter().any(|stretch| inside(&stretch)), "{offset} {bytes}: {found:?}");
            }
        }
    }
}
