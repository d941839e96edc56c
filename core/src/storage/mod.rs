//! Stores by URL: local directory with direct IO; S3, GCS and Azure through object_store; and the conformance suite.
//! Called by `checkpoint`. Never knows what the objects mean.
//!
//! Every call blocks the thread it is made on, and never needs the caller's runtime: call it on threads that may block.

mod budget;
mod local;
mod objects;
mod options;
mod store;
mod url;
mod user;

use std::sync::Arc;

pub use budget::{BufferBudget, Held, Promised};
pub use local::Aligned;
pub use options::{DiskQueue, StoreOptions};
pub use store::{Created, Listed, Part, Piece, Reader, Store, Writer};
pub use url::{Scheme, StoreUrl};
pub use user::User;

pub use crate::checksum::crc32c;
use crate::error::Result;

/// The store at `url`, narrowed to names below `folder` (empty: all of it). Reaches for nothing yet. Invalid for
/// options that the store can't work with.
pub fn open(url: &StoreUrl, options: &StoreOptions, folder: &str) -> Result<Arc<dyn Store>> {
    Ok(match url.scheme() {
        Scheme::Local(root) => Arc::new(local::LocalStore::new(root, folder, options.disk_queue)),
        Scheme::S3 { .. } | Scheme::Gcs { .. } | Scheme::Azure { .. } => {
            Arc::new(objects::BucketStore::connect(url, options, folder)?)
        }
    })
}

/// A store over any object store, for tests.
#[cfg(test)]
pub fn over_object_store(
    objects: Arc<dyn object_store::ObjectStore>,
    prefix: &str,
    options: &StoreOptions,
) -> Arc<dyn Store> {
    let provider = objects::Provider::S3;
    let lanes = objects::Lanes::new("memory:", options.requests);
    Arc::new(objects::BucketStore::over(objects, provider, lanes, "memory:".into(), prefix.into(), options))
}

#[cfg(test)]
pub mod conformance;
#[cfg(test)]
pub use local::changes::{Change, Watcher, watch};
