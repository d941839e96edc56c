//! Raw little-endian items without a header.

use std::path::Path;

use super::Held;
use crate::data::format::Format;
use crate::error::{Error, Result};

/// Whole samples; a file that ends within an item was cut off, which is Corrupt.
pub fn scan(format: &Format, path: &Path, bytes: u64) -> Result<Held> {
    let Format::Tokens { dtype, .. } = format else { unreachable!("asked for tokens alone") };
    if !bytes.is_multiple_of(dtype.bytes()) {
        let (path, item) = (path.display(), dtype.bytes());
        return Err(Error::corrupt(format!(
            "reading {path}: {bytes} bytes are not a whole number of {item}-byte items"
        ))
        .hint("the file was cut off, or dtype= is not what it was written with"));
    }
    let sample = format.sample_bytes().unwrap_or(u64::MAX);
    Ok(Held { samples: bytes / sample, format: format.clone() })
}
