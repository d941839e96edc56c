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

use std::path::Path;

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

/// Counts a file's samples.
///
/// Fails with Corrupt for a damaged file and for one of another format, with Invalid for one that this build can't read.
pub fn scan(format: &Format, path: &Path) -> Result<Held> {
    match format {
        Format::Tokens { .. } => tokens::scan(format, path),
        Format::Npy { .. } => npy::scan(path),
        Format::Jsonl => lines::scan(path),
        Format::WebDataset { .. } => archive::scan(path),
        Format::Parquet { columns, .. } => parquet::scan(columns, path),
        Format::Named(_) => unreachable!("files of other formats are not opened"),
    }
}
