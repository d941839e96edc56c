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
mod repair;
mod restore;
mod share;
mod store;
mod sums;
mod types;
mod verify;

pub use crate::format::Attempt;
pub(crate) use glob::matches_any;
pub use parallel::each_at;
pub use repair::Holders;
pub use restore::RankRestore;
pub use share::NodeShare;
pub use store::JobStore;
pub use sums::SlotSums;
pub use types::{
    Attached, BaseSlot, Claimant, Commit, Copied, Durable, EncodingInfo, Fault, Inspection, ListedStep,
    Mended, Mending, PersistRequest, Piece, RankSlot, RepairMode, Report, Run, Surveyed, Takeover,
    TensorInfo,
};

#[cfg(test)]
mod tests;
