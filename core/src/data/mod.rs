//! Datasets: what is registered, which files hold which samples, and batches of them.
//!
//! Called by `coordinator` and `sidecar` (specs, and which rank holds which shards) and by `client` and pylib, which read
//! in the trainer's process. Opens files for reading only and writes nothing but the node's cache; holds no state that a restarted process would need: a
//! [`crate::sharding::Cursor`] says it all.

mod assignment;
mod batches;
#[cfg(test)]
mod batches_tests;
mod cache;
mod dtype;
mod files;
mod format;
mod formats;
mod held;
mod known;
mod listing;
mod prefetch;
mod quarantine;
mod reader;
mod rows;
mod scan;
mod shard;
mod share;
mod spec;
mod wire;

pub use assignment::Assignment;
pub use batches::Batches;
pub use dtype::Dtype;
pub use format::{About, Format};
pub use held::HeldShards;
pub use quarantine::LeftOut;
pub use reader::Reader;
pub use rows::Rows;
pub use scan::{OnDamage, Scanned, resolve};
pub use shard::{Shard, ShardFile};
pub use share::{Batch, Share};
pub use spec::{DataFile, DatasetSpec, MAX_SHARDS, Quarantined};
