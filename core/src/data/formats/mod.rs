//! What files of each format hold, and where in a file each sample lies.
//!
//! Called by `scan` (counting) and `reader` (finding samples). Opens files for reading only; must never panic over what it finds in
//! one: a file that is damaged, or of another format, is an error that names it.

pub mod archive;
mod guarded;
pub mod lines;
pub mod npy;
pub mod parquet;
pub mod tokens;

use super::cache::{Fetcher, Origin, Source};
use super::format::Format;
use crate::error::Result;

/// What one file was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub samples: u64,
    /// The format with all filled in that registering it left open, as this file has it.
    pub format: Format,
}

/// Bytes of one part of a sample in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub bytes: u32,
}

/// Counts a file's samples. Where it lies in a bucket no more of it is fetched than that takes.
///
/// Fails with Corrupt for a damaged file and for one of another format, with Invalid for one that this build can't read, and as
/// fetching does.
pub fn scan(format: &Format, origin: &Origin, fetcher: &Fetcher) -> Result<Held> {
    let name = origin.name();
    let source = || match origin.packing {
        None => fetcher.source(origin),
        Some(_) => Source::file(fetcher.open(origin)?, name),
    };
    match format {
        Format::Tokens { .. } => {
            let told = origin.listed.filter(|_| origin.packing.is_none());
            tokens::scan(format, name, told.map_or_else(|| source().map(|source| source.bytes()), Ok)?)
        }
        Format::Npy { .. } => npy::scan(name, &source()?),
        Format::Jsonl => lines::scan(name, &fetcher.open(origin)?),
        Format::WebDataset { .. } => archive::scan(name, &fetcher.open(origin)?),
        Format::Parquet { columns, .. } => parquet::scan(columns, name, &source()?),
        Format::Named(_) => unreachable!("files of other formats are not opened"),
    }
}
