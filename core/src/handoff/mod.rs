//! Arenas: layout, fill, seal, adoption. The shared memory between a trainer and its sidecar.
//! Called by `client` (fills, seals, reads) and `sidecar` (creates, scans, frees). Truth is in the slot headers.
//! Never touches a store or a socket.

mod allocation;
mod arena;
mod boot;
mod budget;
mod cgroup;
mod collapsing;
mod copy;
mod directory;
mod fork;
mod forkable;
mod header;
mod huge;
pub mod life;
mod load;
mod mapping;
pub mod plan;
mod private;
mod progress;
mod reader;
mod rejoin;
mod samples;
mod slot;
mod state;
mod stream;
mod tables;
mod view;
mod writer;

pub use arena::Arena;
pub use budget::{MachineMemory, MemoryBudget, Promise};
pub use copy::default_threads;
pub use directory::ArenaDirectory;
pub use fork::ForkedCopy;
pub use header::{ArenaIdentity, SlotSnapshot};
pub use load::SlotLoad;
pub use private::{PrivateMapping, own_before_forks};
pub use progress::Progress;
pub use reader::{CopyOut, SlotReader};
pub use samples::Samples;
pub use slot::{Begin, Slot, SlotBytes};
pub use state::SlotState;
pub use view::ArenaView;
pub use writer::{CopyIn, FillPlan, SlotWriter};

#[cfg(test)]
mod tests;
