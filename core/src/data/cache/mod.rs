//! The node's cache: files that can't be read where they lie (objects of a bucket, compressed files), each fetched and decompressed
//! once, whole, for all processes and jobs of a user on the node.
//!
//! Called by `listing`, `scan` and `files`, in any process that reads, also in forked ones, by several threads at once. Needs no
//! session and no sidecar. Never writes outside the cache's folder, and never hands out a file that is not whole.

mod fetcher;
mod node;
mod origin;
mod part;
mod room;
mod settings;
mod stores;
#[cfg(test)]
pub mod tests;
mod unpack;

pub use fetcher::Fetcher;
pub use origin::{Onward, Origin, Packing, Place, Source};
pub use room::cost;
