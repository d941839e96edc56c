//! A chunk's bytes out of what is stored of it: every stored byte is checked against its own sum when it is read, and
//! what becomes of it against the chunk's, before anybody sees it (P2).

use std::ops::Range;

use super::objects::{Packs, Sum};
use crate::error::{Doing, Error, Result};
use crate::format::delta::{Onto, Width};
use crate::format::encoding::{Encoding, Stored, Whole};
use crate::format::manifest;
use crate::format::{chunks, delta};
use crate::proto::format::{Chunk, Manifest, Pack};
use crate::storage::{Aligned, crc32c};

/// The bytes of a chunk that is read already.
pub type Known<'k, 'a> = &'k dyn Fn(usize) -> Option<&'a [u8]>;

/// Memory that reading a chunk of so many bytes takes at most, beside where they go: for RAW what a reader holds; else the
/// compressed planes, and the planes. Of masters one chunk more at a time.
pub fn room(encoding: &Encoding<u32>, bytes: u64) -> u64 {
    match encoding {
        Encoding::Whole(Whole { planes: None, .. }) => bytes,
        Encoding::Whole(_) | Encoding::Difference { .. } => 3 * bytes,
        Encoding::Rounded { .. } => 4 * chunks::CHUNK_BYTES.max(bytes),
    }
}

/// The encoding of a chunk of a manifest that was checked when it was read.
pub fn encoding(chunk: &Chunk) -> Result<Encoding<u32>> {
    Encoding::of(chunk)
        .map_err(|why| Error::corrupt(format!("reading the chunk at {}: {why}", chunk.slot_offset)))
}

/// Reads chunk `number` of a manifest into `target`. `known` gives the bytes of chunks of it that are read already, which
/// spares reading masters twice.
pub fn read_chunk<'a>(
    packs: &Packs,
    manifest: &Manifest,
    number: usize,
    known: Known<'_, 'a>,
    target: &mut [u8],
) -> Result<()> {
    let chunk = &manifest.chunks[number];
    match encoding(chunk)? {
        Encoding::Whole(whole) => read_whole(packs, &manifest.packs, &whole, target),
        Encoding::Difference { stored, width, base } => {
            read_whole(packs, &manifest.packs, &base, target)
                .doing(|| "reading what a chunk differs from")?;
            read_planes(packs, &manifest.packs, &stored, (width, Onto::Base), target)?;
            check(packs, &manifest.packs, &stored, target, chunk.crc32c)
        }
        Encoding::Rounded { source } => {
            round(packs, manifest, &source, known, target)?;
            match crc32c(target) == chunk.crc32c {
                true => Ok(()),
                false => Err(Error::corrupt(format!(
                    "rounding the masters of the weights at {} of rank {}: they are not what was saved (CRC32C does not match)",
                    chunk.slot_offset, manifest.rank
                ))),
            }
        }
    }
}

/// Reads a chunk that needs no other one.
pub fn read_whole(packs: &Packs, table: &[Pack], whole: &Whole<u32>, target: &mut [u8]) -> Result<()> {
    let stored = &whole.stored;
    let Some(width) = whole.planes else {
        return packs.read(
            pack(table, stored)?,
            Sum { offset: stored.offset, crc32c: stored.crc32c },
            target,
        );
    };
    read_planes(packs, table, stored, (width, Onto::Nothing), target)?;
    check(packs, table, stored, target, whole.crc32c)
}

fn pack<'a>(table: &'a [Pack], stored: &Stored<u32>) -> Result<&'a Pack> {
    let pack = table.get(stored.pack as usize);
    pack.ok_or_else(|| {
        Error::corrupt(format!("a chunk lies in pack {}, of which there are {}", stored.pack, table.len()))
    })
}

/// Joins the planes that are stored there into `target`, as `whose` says.
fn read_planes(
    packs: &Packs,
    table: &[Pack],
    stored: &Stored<u32>,
    whose: (Width, Onto),
    target: &mut [u8],
) -> Result<()> {
    let pack = pack(table, stored)?;
    // A local disk reads straight into it.
    let mut memory = Aligned::new(stored.bytes as usize);
    packs.read(pack, Sum { offset: stored.offset, crc32c: stored.crc32c }, memory.get())?;
    delta::decompress(whose.0, memory.bytes(), whose.1, target)
        .doing(|| format!("reading {} bytes at {} of {}", stored.bytes, stored.offset, packs.name_of(pack)))
}

fn check(packs: &Packs, table: &[Pack], stored: &Stored<u32>, found: &[u8], sum: u32) -> Result<()> {
    if crc32c(found) == sum {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "rebuilding a chunk from {} bytes at {} of {}: it is not what was saved (CRC32C does not match)",
        stored.bytes,
        stored.offset,
        packs.name_of(pack(table, stored)?)
    )))
}

/// Fills `target` with the masters that lie at `source`, rounded, and zeros.
fn round<'a>(
    packs: &Packs,
    manifest: &Manifest,
    source: &Range<u64>,
    known: Known<'_, 'a>,
    target: &mut [u8],
) -> Result<()> {
    let nowhere =
        || Error::corrupt(format!("the masters at {} of rank {} are not there", source.start, manifest.rank));
    let mut scratch = Vec::new();
    for number in manifest::covering(manifest, source).ok_or_else(nowhere)? {
        let chunk = &manifest.chunks[number];
        let start = source.start.max(chunk.slot_offset);
        let end = source.end.min(chunk.slot_offset + chunk.bytes);
        if !(start - source.start).is_multiple_of(4) || !(end - start).is_multiple_of(4) {
            return Err(nowhere());
        }
        let bytes = match known(number) {
            Some(bytes) => bytes,
            None => {
                scratch.resize(chunk.bytes as usize, 0);
                match encoding(chunk)? {
                    Encoding::Rounded { .. } => return Err(nowhere()),
                    _ => read_chunk(packs, manifest, number, &|_| None, &mut scratch)?,
                }
                &scratch
            }
        };
        let masters = &bytes[(start - chunk.slot_offset) as usize..(end - chunk.slot_offset) as usize];
        let weights = (start - source.start) as usize / 2..(end - source.start) as usize / 2;
        delta::round(masters, &mut target[weights]);
    }
    target[(source.end - source.start) as usize / 2..].fill(0);
    Ok(())
}
