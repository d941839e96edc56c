//! What lies in arenas and stores: manifest, chunk table, COMMIT, OWNER, object names. Pure and versioned.
//! Called by everyone above. Does no IO; every format has a golden sample.

pub mod chunks;
pub mod commit;
pub mod delta;
pub mod encoding;
pub mod manifest;
pub mod owner;
pub mod paths;
pub mod sealed_json;

pub use chunks::{Run, Span};
pub use commit::{CommitRecord, RankManifest, StepKind};
pub use encoding::Encoding;
pub use owner::Owner;
pub use paths::Attempt;
