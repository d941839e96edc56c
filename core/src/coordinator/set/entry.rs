//! The entries of the replicated log: a reign that begins, and the batches of commands of one. What a batch holds is encoded once, as
//! the records of a single coordinator's log are.

use std::io::Cursor;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::log::{Kept, decode_record};
use super::super::state::{Command, State};
use crate::error::{Error, Result};
use crate::ids::ClusterId;

openraft::declare_raft_types!(
    /// Which types the protocol runs over.
    pub Types:
        D = Payload,
        R = Outcome,
        NodeId = u64,
        Node = openraft::BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

pub type Raft = openraft::Raft<Types>;
pub type Entry = openraft::Entry<Types>;
pub type LogId = openraft::LogId<u64>;
pub type Vote = openraft::Vote<u64>;
pub type Membership = openraft::StoredMembership<u64, openraft::BasicNode>;
pub type StorageError = openraft::StorageError<u64>;

/// What one entry says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Payload {
    /// An engine begins on the state as of this entry, whose index names its reign. The first of all founds the cluster.
    Reign { fresh: ClusterId },
    /// What that engine has accepted. It counts only while no other reign has begun: an engine that does not know yet that it
    /// has ended changes nothing any more (P6).
    Batch { reign: u64, records: Records },
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Applied,
    /// Of a reign that had ended: it has changed nothing.
    Superseded,
}

/// A JSON array of records, as text: entries are copied, written and sent more often than read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Records(Arc<RawValue>);

impl Records {
    pub fn encode(commands: &[Command]) -> Records {
        let mut text = vec![b'['];
        for command in commands {
            State::write(command, &mut text);
            *text.last_mut().expect("a record has its line's end") = b',';
        }
        match text.last_mut() {
            Some(last @ b',') => *last = b']',
            _ => text.push(b']'),
        }
        let text = String::from_utf8(text).expect("records are JSON");
        Records(RawValue::from_string(text).expect("an array of records is JSON").into())
    }

    /// Corrupt for what is no record, Invalid for one of a newer version; `index` is the entry's.
    pub fn decode(&self, index: u64) -> Result<Vec<Command>> {
        let damaged = |error| Error::corrupt(format!("reading entry {index}: {error}"));
        let records: Vec<&RawValue> = serde_json::from_str(self.0.get()).map_err(damaged)?;
        records.into_iter().map(|record| decode_record(index, record.get().as_bytes())).collect()
    }

    pub fn bytes(&self) -> usize {
        self.0.get().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_reads_back_as_it_was_through_an_entry() {
        let commands = vec![
            Command::Notify {
                job: "j".parse().unwrap(),
                step: 3.into(),
                kind: crate::format::StepKind::Full,
                rank: 0.into(),
                path: "a \"quoted\"\npath".into(),
                bytes: 7,
            };
            2
        ];
        for commands in [&commands[..], &[]] {
            let payload = Payload::Batch { reign: 4, records: Records::encode(commands) };
            let bytes = serde_json::to_vec(&payload).unwrap();
            let Payload::Batch { reign: 4, records } = serde_json::from_slice(&bytes).unwrap() else {
                panic!("another payload")
            };
            assert_eq!(records.decode(9).unwrap(), commands);
        }
    }
}
