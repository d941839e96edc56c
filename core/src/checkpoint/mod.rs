//! The checkpoint engine: persist, commit, restore, removal, verification, on a [`JobStore`].
//! Called by the sidecar (and by `inspect`, `verify` without one). Never decides which step is newest: the
//! coordinator does.

mod attach;
mod commits;
mod decode;
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
pub(crate) use glob::matches_any;
pub use parallel::each_at;
pub use restore::RankRestore;
pub use share::NodeShare;
pub use store::JobStore;
pub use types::{
    Attached, BaseSlot, Claimant, Commit, Durable, EncodingInfo, Inspection, ListedStep, PersistRequest,
    Piece, RankSlot, Report, Run, Takeover, TensorInfo,
};

#[cfg(test)]
mod tests;
