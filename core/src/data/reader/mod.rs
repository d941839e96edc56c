//! Reads samples by number: `fixed` where all have one size, `extents` where each lies somewhere in its file, `columns` where they
//! must be decoded.
//!
//! Called by `batches` and `ahead`, from several threads at once. Holds open files and what was decoded, within bounds; never a
//! sample that was handed over.

mod columns;
mod extents;
mod fixed;
#[cfg(test)]
mod tests;

use super::cache::Fetcher;
use super::files::Files;
use super::format::Format;
use super::rows::Rows;
use super::scan::{self, OnDamage, Scanned};
use super::spec::DatasetSpec;
use crate::error::{Error, Result};

pub struct Reader {
    format: Format,
    files: Files,
    way: Way,
}

enum Way {
    Fixed(fixed::Fixed),
    Extents(extents::Extents),
    Columns(columns::Columns),
}

impl Reader {
    /// A reader of this dataset. Scans it where it was registered from metadata alone.
    ///
    /// Fails with Invalid for a format this build doesn't open or a wrong count, NotFound where no file is here.
    pub fn new(spec: &DatasetSpec) -> Result<Reader> {
        Reader::with(spec, Fetcher::default())
    }

    /// With files that `fetcher` brings.
    pub(super) fn with(spec: &DatasetSpec, fetcher: Fetcher) -> Result<Reader> {
        let DatasetSpec { format, files, .. } =
            if spec.files.is_empty() { scanned(spec, &fetcher)? } else { spec.clone() };
        let way = match &format {
            Format::Tokens { .. } | Format::Npy { .. } => Way::Fixed(fixed::Fixed::new(&format)?),
            Format::Jsonl => Way::Extents(extents::Extents::lines()),
            Format::WebDataset { parts } => Way::Extents(extents::Extents::archives(parts)),
            Format::Parquet { columns, .. } => Way::Columns(columns::Columns::new(columns)),
            Format::Named(name) => {
                return Err(Error::invalid(format!("reading dataset {:?}: this build doesn't open {name} files", spec.id))
                    .hint("use get_shard and read the files yourself, or store the samples in a format that Strata reads"));
            }
        };
        Ok(Reader { format, files: Files::new(files, fetcher), way })
    }

    /// The format with all filled in that was found in the files.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The dataset's files: who knows which samples are next may have those files at hand before they are read.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// These samples, in this order.
    ///
    /// Fails with Corrupt, naming the file, where a file is not what it was when it was registered.
    pub fn read(&self, samples: &[u64]) -> Result<Rows> {
        match &self.way {
            Way::Fixed(fixed) => fixed.read(&self.files, samples).map(Rows::Fixed),
            Way::Extents(extents) => extents.read(&self.files, samples).map(Rows::Table),
            Way::Columns(columns) => columns.read(&self.files, samples).map(Rows::Table),
        }
    }
}

fn scanned(spec: &DatasetSpec, fetcher: &Fetcher) -> Result<DatasetSpec> {
    if let Format::Named(_) = spec.format {
        return Ok(spec.clone());
    }
    match scan::resolve_with(spec.clone(), OnDamage::Raise, fetcher)? {
        (scanned, Scanned::Yes) => Ok(scanned),
        (_, Scanned::No(reason)) => Err(Error::not_found(format!("reading dataset {:?}: {reason}", spec.id))
            .hint("the path must be readable on every node that trains; check its mounts")),
    }
}
