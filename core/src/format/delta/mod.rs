//! How a chunk's bytes are made small: the difference to an older state, byte planes, zstd; and bf16 weights as what
//! they are, rounded fp32 masters.
//! Called by `checkpoint` (persist, restore, verify). Does no IO, holds no memory beyond one call, and trusts nothing it
//! decodes: whoever calls compares sums before anybody sees a byte.

mod compress;
mod estimate;
mod planes;
mod rounding;

pub use compress::{Onto, compress, decompress};
pub use estimate::{Estimate, estimate};
pub use planes::{Width, join, join_difference, split, split_difference};
pub use rounding::{is_rounded, round};
