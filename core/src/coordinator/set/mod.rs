//! A coordinator as one of a set of three or five: the log of its state machine is replicated (Raft, by openraft), so that what was
//! acknowledged survives the loss of any minority. Called by the coordinator's start alone; a single coordinator has no part of it.
//! An engine runs where the set's leader is, and nothing it has decided leaves before a majority has it, or while it can't tell
//! that it still leads (P6, P7).
//!
//! `entry` what the log's entries say, `journal` the log and `replica` the state of this coordinator on its disk, `peers` who is in the
//! set, `phase` what it remembers of its part in it, `seat` all of these together, `forming` how an empty home comes to be one of the
//! set, `network` and `doors` the messages out and in, `acks` by which a leader knows that it leads, `reign` one engine's time.

mod acks;
mod doors;
mod entry;
mod forming;
mod journal;
mod network;
mod peers;
mod phase;
mod reign;
mod replica;
mod seat;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use doors::Doors;
pub use peers::{Peers, SetSettings};
pub use reign::Reign;
pub use seat::{Seat, Standing};

/// How often a leader is heard of where nothing happens.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Followers vote for nobody else for so long after they heard of a leader, and stand themselves after one of these more: its
/// death is answered within two seconds, and seven heartbeats must be lost on a busy machine before a living one is taken for dead.
const ELECTION: (Duration, Duration) = (Duration::from_millis(700), Duration::from_millis(1000));
/// A leader that a majority obeyed so lately is the only one: less than the followers' patience by what clocks may differ.
const LEASE: Duration = Duration::from_millis(800);
/// A leader that no majority has obeyed for so long gives up: whoever waits for it is told, and asks again.
const ALONE: Duration = Duration::from_secs(2);
