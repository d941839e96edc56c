//! Strata's core: everything that touches bytes, sockets, shared memory, timers or state. No Python in here.
//!
//! Rooms, from the faces down to the ground; a room imports only from rooms below it (docs/ARCHITECTURE.md).

// processes
pub mod roles;
// faces
pub mod admin;
pub mod coordinator;
pub mod launcher;
pub mod sidecar;
// what pylib calls
pub mod client;
// engines
pub mod checkpoint;
pub mod data;
pub mod handoff;
// pure, and IO by URL
pub mod format;
pub mod sharding;
pub mod storage;
// ground
pub mod checksum;
pub mod clock;
pub mod codec;
pub mod config;
pub mod error;
pub mod ids;
pub mod lock;
pub mod pace;
pub mod proto;
pub mod telemetry;
pub mod text;
pub mod transport;
pub mod version;

#[cfg(test)]
mod torture_tests;

/// The version of this build, as Hello, `strata version` and the wheel say it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
