//! Which rank holds which shard, and in which order samples come: ring, quotas, order, cursor.
//!
//! Called by `coordinator` (placement), `data` and `client` (order, cursor). Pure: no IO, no clock, no randomness;
//! the same arguments give the same answer on every machine and in every release (golden samples hold it to that).
//! Must never import another room than the ground.

mod cursor;
mod divisor;
mod order;
mod permutation;
mod placement;
mod ring;

pub use cursor::{Consumption, Cursor, Segment, Slice, Tail};
pub use order::{ORDER_WINDOW, Order, Window};
pub use permutation::Permutation;
pub use placement::{Move, Placement};
pub use ring::{DatasetKey, Ring, VIRTUAL_NODES};
