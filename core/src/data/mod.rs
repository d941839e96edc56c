//! Datasets: what is registered, which files hold which samples, and batches of them.
//!
//! Called by `coordinator` and `sidecar` (specs, and which rank holds which shards) and by `client` and pylib, which read
//! in the trainer's process. Opens files for reading only; must never write, and holds no state that a restarted process would need: a
//! [`crate::sharding::Cursor`] says it all.

mod assignment;
mod batches;
mod held;
mod reader;
mod scan;
mod shard;
mod spec;
mod wire;

pub use assignment::Assignment;
pub use batches::{Batch, Batches};
pub use held::HeldShards;
pub use reader::Reader;
pub use scan::{Scanned, resolve};
pub use shard::{Shard, ShardFile};
pub use spec::{DataFile, DatasetSpec, Dtype, Format, MAX_SHARDS};
