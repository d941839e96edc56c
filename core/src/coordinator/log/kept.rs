//! What a log can keep: the coordinator's state by its commands, and a replica's part of the Raft log by its changes.

use std::io;

use super::super::state::{Command, State};
use super::record;
use crate::error::{Error, Result};

/// Something that records change one after the other, and a snapshot holds whole.
pub trait Kept: Sized {
    type Record;

    /// Appends the record as a line of UTF-8, with its end, which is nowhere inside.
    fn write(record: &Self::Record, to: &mut Vec<u8>);

    /// Does what the line `at` says. Corrupt for one that can't have been written here, Invalid for one of a newer version.
    fn replay(&mut self, at: u64, line: &[u8]) -> Result<()>;

    /// All of it; equal ones encode to equal bytes.
    fn encode_into(&self, to: &mut dyn io::Write) -> io::Result<()>;

    /// The same, at once.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes).expect("memory takes what is written");
        bytes
    }

    /// Corrupt for bytes that are none.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

impl Kept for State {
    type Record = Command;

    fn write(command: &Command, to: &mut Vec<u8>) {
        record::encode(command, to);
    }

    fn replay(&mut self, at: u64, line: &[u8]) -> Result<()> {
        let command = record::decode(at, line)?;
        let refused = |error: Error| Error::corrupt(format!("replaying record {at}: {}", error.message));
        self.apply(&command).map(drop).map_err(refused)
    }

    fn encode_into(&self, to: &mut dyn io::Write) -> io::Result<()> {
        State::encode_into(self, to)
    }

    fn decode(bytes: &[u8]) -> Result<State> {
        State::decode(bytes)
    }
}
