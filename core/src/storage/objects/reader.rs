//! Ranged reads of a large object.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::Provider;
use super::error::failed;
use super::runtime::wait;
use crate::error::{Error, Result};
use crate::storage::{Part, Reader};

pub struct BucketReader {
    pub objects: Arc<dyn ObjectStore>,
    pub provider: Provider,
    pub location: Path,
    pub name: String,
    pub bytes: u64,
}

/// A request of 16 MiB takes long enough beside its way there and back; eight of them are half of the default memory.
const TOGETHER: u64 = 16 << 20;

impl Reader for BucketReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        self.read_together(&mut [Part { offset, target }])
    }

    fn together(&self) -> u64 {
        TOGETHER
    }

    fn read_together(&self, parts: &mut [Part<'_>]) -> Result<()> {
        let end = |part: &Part| part.offset.saturating_add(part.target.len() as u64);
        let start = parts.iter().map(|part| part.offset).min().unwrap_or(0);
        let range = start..parts.iter().map(end).max().unwrap_or(0);
        if parts.iter().all(|part| part.target.is_empty()) {
            return Ok(());
        }
        let ends_early = |end: u64| {
            let wanted = range.end - range.start;
            Error::corrupt(format!("reading {wanted} bytes at {start} of {}: it ends at {end}", self.name))
        };
        if range.end > self.bytes {
            return Err(ends_early(self.bytes));
        }
        let bytes = wait(async { self.objects.get_range(&self.location, range.clone()).await })?
            .map_err(|error| failed(self.provider, format!("reading {}", self.name), &error))?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(ends_early(start + bytes.len() as u64));
        }
        for part in parts {
            let from = (part.offset - start) as usize;
            part.target.copy_from_slice(&bytes[from..from + part.target.len()]);
        }
        Ok(())
    }
}
