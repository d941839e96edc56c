//! What the Python package calls: the Unix socket, the arena writer, reconnection.
//! Called by pylib (and by the launcher for its sidecar); operators' commands come through [`Operator`].
//! Never holds a tensor beyond the call that passed it.

mod arenas;
pub(crate) mod asks;
mod call;
pub mod direct;
mod handle;
mod inspect;
mod interrupt;
mod lease;
mod link;
mod mapped;
mod operator;
mod options;
mod restore;
mod runtime;
mod save;
mod session;
mod socket;
mod stacks;
mod staging;
mod state;
mod steps;
mod stored;
mod tls;

pub use handle::{SaveHandle, SaveState, SaveStats};
pub use inspect::inspect;
pub use interrupt::{Interrupt, Uninterrupted};
pub use mapped::MappedSlot;
pub use operator::{Operator, Place};
pub use options::{ConnectOptions, OwnStacks};
pub use restore::{RestoreOptions, RestoredSlot};
pub use save::{SaveRequest, SourceTensor, slot_bytes};
pub use session::Session;
pub use socket::find_sidecar;
pub use stacks::{free_signal, own_stacks};
pub use staging::{ArenaMemory, Staging};
pub use stored::{RepairJob, StoredJob};
pub use tls::ClientTls;
