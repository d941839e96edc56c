//! How a chunk is stored, as code reads it: the fields of `format.v1.Chunk` that belong together, together.
//!
//! `P` says where a pack's name is: in a manifest a number; while one is being made, whatever its maker knows.

use std::ops::Range;

use super::Span;
use super::delta::Width;
use crate::proto::format::{BaseChunk, Chunk, ChunkEncoding};

/// Bytes in a pack, and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<P> {
    pub pack: P,
    pub offset: u64,
    pub bytes: u64,
    pub crc32c: u32,
}

/// A chunk that needs no other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<P> {
    pub stored: Stored<P>,
    /// None: as in the slot; else byte planes, compressed.
    pub planes: Option<Width>,
    /// Of its bytes as they are in the slot.
    pub crc32c: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding<P> {
    Whole(Whole<P>),
    /// The difference to a whole chunk of an older step, as long as this one.
    Difference {
        stored: Stored<P>,
        width: Width,
        base: Whole<P>,
    },
    /// fp32 masters at `source` in the same slot, rounded; zeros behind them.
    Rounded {
        source: Range<u64>,
    },
}

impl<P> Stored<P> {
    fn map<Q>(self, name: &mut impl FnMut(P) -> Q) -> Stored<Q> {
        let Stored { pack, offset, bytes, crc32c } = self;
        Stored { pack: name(pack), offset, bytes, crc32c }
    }
}

impl<P> Whole<P> {
    pub fn map<Q>(self, name: &mut impl FnMut(P) -> Q) -> Whole<Q> {
        let Whole { stored, planes, crc32c } = self;
        Whole { stored: stored.map(name), planes, crc32c }
    }
}

impl<P> Encoding<P> {
    /// With its packs named differently.
    pub fn map<Q>(self, mut name: impl FnMut(P) -> Q) -> Encoding<Q> {
        match self {
            Encoding::Whole(whole) => Encoding::Whole(whole.map(&mut name)),
            Encoding::Difference { stored, width, base } => {
                let stored = stored.map(&mut name);
                Encoding::Difference { stored, width, base: base.map(&mut name) }
            }
            Encoding::Rounded { source } => Encoding::Rounded { source },
        }
    }

    /// Bytes that a restore reads for it.
    pub fn read_bytes(&self) -> u64 {
        match self {
            Encoding::Whole(whole) => whole.stored.bytes,
            Encoding::Difference { stored, base, .. } => stored.bytes + base.stored.bytes,
            Encoding::Rounded { .. } => 0,
        }
    }
}

impl Encoding<u32> {
    /// Err, saying what is wrong, for what no version of this code writes.
    pub fn of(chunk: &Chunk) -> Result<Encoding<u32>, String> {
        let Ok(kind) = ChunkEncoding::try_from(chunk.encoding) else {
            return Err(format!("its encoding {} is of a newer version of Strata", chunk.encoding));
        };
        let planes = |stored_bytes, crc32c| Stored {
            pack: chunk.pack,
            offset: chunk.pack_offset,
            bytes: stored_bytes,
            crc32c,
        };
        Ok(match kind {
            ChunkEncoding::Raw => Encoding::Whole(Whole {
                stored: planes(chunk.bytes, chunk.crc32c),
                planes: None,
                crc32c: chunk.crc32c,
            }),
            ChunkEncoding::Planes => Encoding::Whole(Whole {
                stored: planes(chunk.stored_bytes, chunk.stored_crc32c),
                planes: Some(width(chunk.width)?),
                crc32c: chunk.crc32c,
            }),
            ChunkEncoding::Difference => Encoding::Difference {
                stored: planes(chunk.stored_bytes, chunk.stored_crc32c),
                width: width(chunk.width)?,
                base: base_of(chunk)?,
            },
            ChunkEncoding::Rounded => {
                let end = chunk.source_offset.checked_add(chunk.source_bytes);
                let end = end.filter(|_| chunk.source_bytes.is_multiple_of(4));
                let end = end.filter(|_| (4..=2 * chunk.bytes).contains(&chunk.source_bytes));
                let Some(end) = end else { return Err("it has no masters to be rounded from".to_owned()) };
                Encoding::Rounded { source: chunk.source_offset..end }
            }
        })
    }

    pub fn into_chunk(self, span: Span, crc32c: u32) -> Chunk {
        let chunk = Chunk { slot_offset: span.offset, bytes: span.bytes, crc32c, ..Chunk::default() };
        match self {
            Encoding::Whole(Whole { stored, planes: None, .. }) => {
                Chunk { pack: stored.pack, pack_offset: stored.offset, ..chunk }
            }
            Encoding::Whole(Whole { stored, planes: Some(width), .. }) => {
                of_planes(chunk, ChunkEncoding::Planes, stored, width)
            }
            Encoding::Difference { stored, width, base } => {
                let kind = if base.planes.is_some() { ChunkEncoding::Planes } else { ChunkEncoding::Raw };
                let planes = base.planes.map_or(0, |width| width.bytes() as u32);
                let base = BaseChunk {
                    pack: base.stored.pack,
                    pack_offset: base.stored.offset,
                    crc32c: base.crc32c,
                    encoding: kind.into(),
                    stored_bytes: if planes == 0 { 0 } else { base.stored.bytes },
                    stored_crc32c: if planes == 0 { 0 } else { base.stored.crc32c },
                    width: planes,
                };
                Chunk { base: Some(base), ..of_planes(chunk, ChunkEncoding::Difference, stored, width) }
            }
            Encoding::Rounded { source } => Chunk {
                encoding: ChunkEncoding::Rounded.into(),
                source_offset: source.start,
                source_bytes: source.end - source.start,
                ..chunk
            },
        }
    }
}

fn of_planes(chunk: Chunk, kind: ChunkEncoding, stored: Stored<u32>, width: Width) -> Chunk {
    Chunk {
        pack: stored.pack,
        pack_offset: stored.offset,
        encoding: kind.into(),
        stored_bytes: stored.bytes,
        stored_crc32c: stored.crc32c,
        width: width.bytes() as u32,
        ..chunk
    }
}

fn width(bytes: u32) -> Result<Width, String> {
    Width::from_bytes(bytes).ok_or_else(|| format!("its elements have {bytes} bytes"))
}

fn base_of(chunk: &Chunk) -> Result<Whole<u32>, String> {
    let base = chunk.base.ok_or("it is a difference to nothing")?;
    let stored = |bytes, crc32c| Stored { pack: base.pack, offset: base.pack_offset, bytes, crc32c };
    match ChunkEncoding::try_from(base.encoding) {
        Ok(ChunkEncoding::Raw) => {
            Ok(Whole { stored: stored(chunk.bytes, base.crc32c), planes: None, crc32c: base.crc32c })
        }
        Ok(ChunkEncoding::Planes) => Ok(Whole {
            stored: stored(base.stored_bytes, base.stored_crc32c),
            planes: Some(width(base.width)?),
            crc32c: base.crc32c,
        }),
        Ok(_) => Err("it is a difference to a chunk that needs another one".to_owned()),
        Err(_) => Err(format!("its base's encoding {} is of a newer version of Strata", base.encoding)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(pack: u32, bytes: u64) -> Stored<u32> {
        Stored { pack, offset: 4096, bytes, crc32c: 11 + pack }
    }

    #[test]
    fn every_encoding_comes_back_from_its_chunk() {
        let span = Span { offset: 8192, bytes: 1000 };
        let raw = Whole { stored: Stored { crc32c: 7, ..stored(1, 1000) }, planes: None, crc32c: 7 };
        let planes = Whole { stored: stored(2, 500), planes: Some(Width::Four), crc32c: 7 };
        let difference = |base| Encoding::Difference { stored: stored(3, 300), width: Width::Two, base };
        let all = [
            Encoding::Whole(raw),
            Encoding::Whole(planes),
            difference(raw),
            difference(planes),
            Encoding::Rounded { source: 4096..6096 },
        ];
        for encoding in all {
            let chunk = encoding.clone().into_chunk(span, 7);
            assert_eq!((chunk.slot_offset, chunk.bytes, chunk.crc32c), (8192, 1000, 7));
            assert_eq!(Encoding::of(&chunk).unwrap(), encoding);
        }
    }

    #[test]
    fn what_only_a_newer_version_writes_is_said_to_be_that() {
        let chunk = Chunk { bytes: 8, encoding: 17, ..Chunk::default() };
        assert!(Encoding::of(&chunk).unwrap_err().contains("newer version"));
        let base = BaseChunk { encoding: 2, ..BaseChunk::default() };
        let chunk = Chunk { bytes: 8, encoding: 2, width: 4, base: Some(base), ..Chunk::default() };
        assert!(Encoding::of(&chunk).unwrap_err().contains("needs another one"), "no chain of two");
        let chunk = Chunk { bytes: 8, encoding: 3, source_bytes: 20, ..Chunk::default() };
        assert!(Encoding::of(&chunk).is_err(), "more masters than weights");
    }
}
