//! The checkpoint engine: persist, commit, restore, removal, verification, on a [`JobStore`].
//! Called by the sidecar (and by `inspect`, `verify` without one). Never decides which step is newest: the
//! coordinator does.

mod attach;
mod commits;
mod copy;
mod decode;
mod extents;
mod glob;
mod inspect;
mod objects;
mod parallel;
mod persist;
mod remove;
mod restore;
mod share;
mod store;
mod types;
mod verify;

pub use crate::format::Attempt;
pub use restore::RankRestore;
pub use share::NodeShare;
pub use store::JobStore;
pub use types::{
    Attached, BaseSlot, Claimant, Commit, Copied, Durable, Inspection, ListedStep, PersistRequest, RankSlot,
    Report, Surveyed, Takeover, TensorInfo,
};

#[cfg(test)]
mod tests;
