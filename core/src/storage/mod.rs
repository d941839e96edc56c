//! Stores by URL: local directory with direct IO, S3 through object_store; and the conformance suite.
//! Called by `checkpoint`. Never knows what the objects mean.

mod options;
mod url;

pub use options::StoreOptions;
pub use url::{Scheme, StoreUrl};
