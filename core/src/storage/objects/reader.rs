//! Ranged reads of a large object.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::Provider;
use super::error::failed;
use super::runtime::wait;
use crate::error::{Error, Result};
use crate::storage::Reader;

pub struct BucketReader {
    pub objects: Arc<dyn ObjectStore>,
    pub provider: Provider,
    pub location: Path,
    pub name: String,
    pub bytes: u64,
}

impl Reader for BucketReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        if target.is_empty() {
            return Ok(());
        }
        let ends_early = |end: u64| {
            Error::corrupt(format!(
                "reading {} bytes at {offset} of {}: it ends at {end}",
                target.len(),
                self.name
            ))
        };
        let range = offset..offset.saturating_add(target.len() as u64);
        if range.end > self.bytes {
            return Err(ends_early(self.bytes));
        }
        let bytes = wait(async { self.objects.get_range(&self.location, range).await })?
            .map_err(|error| failed(self.provider, format!("reading {}", self.name), &error))?;
        if bytes.len() != target.len() {
            return Err(ends_early(offset + bytes.len() as u64));
        }
        target.copy_from_slice(&bytes);
        Ok(())
    }
}
