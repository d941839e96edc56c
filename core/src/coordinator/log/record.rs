//! One accepted command as the log holds it: a line of JSON with the version that it needs to be read.

use serde::{Deserialize, Serialize};

use super::super::state::Command;
use crate::error::{Error, Result};

/// Versions of records that this build reads: [`Command::version`] says which one a record has.
const VERSION: u8 = 6;

#[derive(Serialize, Deserialize)]
struct Record<C> {
    v: u8,
    c: C,
}

/// Appends the record and the line's end, which is nowhere inside.
pub fn encode(command: &Command, to: &mut Vec<u8>) {
    let record = Record { v: command.version(), c: command };
    serde_json::to_writer(&mut *to, &record).expect("commands are plain data");
    to.push(b'\n');
}

/// Corrupt for what is no record, Invalid for one of a newer version; `at` is its index.
pub fn decode(at: u64, bytes: &[u8]) -> Result<Command> {
    #[derive(Deserialize)]
    struct Version {
        v: u8,
    }
    let damaged = |error| Error::corrupt(format!("reading record {at}: {error}"));
    let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
    if v > VERSION {
        return Err(Error::invalid(format!(
            "reading record {at}: it has version {v}, this build reads up to {VERSION}"
        ))
        .hint("it was written by a newer strata: run that version; nothing has been changed"));
    }
    serde_json::from_slice::<Record<Command>>(bytes).map(|record| record.c).map_err(damaged)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
