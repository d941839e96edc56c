//! What the agents of a launcher agree over: small records by rendezvous and key, changed by compare-and-set, or added to.
//!
//! A rendezvous is a launcher's run: it begins before there are ranks, and its id is another at every relaunch. So it is
//! no part of a job and has no generation; like a job it belongs to the token of its first write.

use std::collections::{BTreeMap, VecDeque};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// torchrun's own record has some 90 bytes for each agent.
const RECORD_BYTES: usize = 1 << 20;
/// Room for 1000 agents with the keys of several rounds.
const GROUP_BYTES: usize = 8 << 20;
const ALL_BYTES: usize = 64 << 20;
/// Counted for each record and each rendezvous beside their text, so that their number is bounded too.
const OVERHEAD: usize = 128;
const NAME_BYTES: usize = 512;
/// Changes that a record remembers to know a retry by: as many agents may add to one while the coordinator restarts.
const WRITES_KEPT: usize = 4096;

/// All rendezvous, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rendezvous {
    /// Changes so far: tells what was written to longest ago, without a clock.
    writes: u64,
    groups: BTreeMap<String, Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Group {
    token: String,
    written: u64,
    bytes: usize,
    records: BTreeMap<String, Record>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the change that made it so: never used again, also when a record went and came back.
    pub version: u64,
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub value: Vec<u8>,
    writes: VecDeque<u64>,
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordWrite {
    pub rendezvous: String,
    pub token: String,
    pub key: String,
    pub change: Change,
    /// Drawn by the caller: a retry with the same number is the same change.
    pub write: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// With a version only over that one; 0: only where there is none, or an empty one.
    Set {
        #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
        value: Vec<u8>,
        version: Option<u64>,
    },
    Add(i64),
}

impl Rendezvous {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Denied to another token than that of the rendezvous' first write.
    pub fn get(&self, rendezvous: &str, token: &str, key: &str) -> Result<Option<&Record>> {
        let Some(group) = self.groups.get(rendezvous) else { return Ok(None) };
        if group.token != token {
            return Err(Error::denied(format!(
                "calling rendezvous {rendezvous:?}: it belongs to another token"
            ))
            .hint("set STRATA_TOKEN to the same value for all its agents, or take another --rdzv-id"));
        }
        Ok(group.records.get(key))
    }

    /// Whether this change was made already: its answer was lost.
    pub fn is_repeated(&self, write: &RecordWrite) -> Result<bool> {
        let known = self.get(&write.rendezvous, &write.token, &write.key)?;
        Ok(known.is_some_and(|record| record.writes.contains(&write.write)))
    }

    /// Conflict where the record has another version; Invalid for what is too large, or no number to add to.
    pub(super) fn write(&mut self, write: &RecordWrite) -> Result<()> {
        let RecordWrite { rendezvous, token, key, change, write: number } = write;
        check_names(rendezvous, key)?;
        let known = self.get(rendezvous, token, key)?;
        let (value, mut writes) = match change {
            Change::Set { value, version } => {
                check_version(write, known, *version)?;
                (value.clone(), VecDeque::new())
            }
            Change::Add(amount) => (
                sum(write, known, *amount)?.to_string().into_bytes(),
                known.map(|record| record.writes.clone()).unwrap_or_default(),
            ),
        };
        if value.len() > RECORD_BYTES {
            return Err(Error::invalid(format!(
                "{}: it has {} bytes, a record takes at most {RECORD_BYTES}",
                doing(write),
                value.len()
            )));
        }
        writes.push_back(*number);
        if writes.len() > WRITES_KEPT {
            writes.pop_front();
        }
        self.writes += 1;
        let group = self.groups.entry(rendezvous.clone()).or_insert_with(|| Group {
            token: token.clone(),
            bytes: rendezvous.len() + token.len() + OVERHEAD,
            ..Group::default()
        });
        group.put(key, Record { version: self.writes, value, writes });
        self.make_room(rendezvous);
        Ok(())
    }

    /// Whole rendezvous go, those that were written to longest ago: an agent that lives writes every few seconds.
    fn make_room(&mut self, kept: &str) {
        let mut bytes: usize = self.groups.values().map(|group| group.bytes).sum();
        while bytes > ALL_BYTES {
            let others = self.groups.iter().filter(|(name, _)| name.as_str() != kept);
            let Some((name, _)) = others.min_by_key(|(_, group)| group.written) else { return };
            let name = name.clone();
            bytes -= self.groups.remove(&name).map_or(0, |group| group.bytes);
        }
    }
}

impl Group {
    fn put(&mut self, key: &str, record: Record) {
        self.written = record.version;
        self.bytes += size(key, &record);
        if let Some(before) = self.records.insert(key.to_owned(), record) {
            self.bytes -= size(key, &before);
        }
        // Keys of rounds that are over: what a round uses was written in it.
        while self.bytes > GROUP_BYTES {
            let oldest = self.records.iter().min_by_key(|(_, record)| record.version);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()).filter(|oldest| oldest != key) else {
                return;
            };
            self.bytes -= self.records.remove(&oldest).map_or(0, |record| size(&oldest, &record));
        }
    }
}

fn size(key: &str, record: &Record) -> usize {
    OVERHEAD + key.len() + record.value.len() + record.writes.len() * size_of::<u64>()
}

fn doing(write: &RecordWrite) -> String {
    format!("writing record {:?} of rendezvous {:?}", write.key, write.rendezvous)
}

fn check_names(rendezvous: &str, key: &str) -> Result<()> {
    for (what, name) in [("a rendezvous", rendezvous), ("a record's key", key)] {
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(Error::invalid(format!(
                "naming {what}: the name has {} bytes, it may have 1 to {NAME_BYTES}",
                name.len()
            )));
        }
    }
    Ok(())
}

fn check_version(write: &RecordWrite, known: Option<&Record>, wanted: Option<u64>) -> Result<()> {
    let fits = match (wanted, known) {
        (None, _) | (Some(0), None) => true,
        (Some(0), Some(record)) => record.value.is_empty(),
        (Some(wanted), known) => known.is_some_and(|record| record.version == wanted),
    };
    match fits {
        true => Ok(()),
        false => Err(Error::conflict(format!("{}: somebody else has changed it", doing(write)))
            .hint("read it again first")),
    }
}

fn sum(write: &RecordWrite, known: Option<&Record>, amount: i64) -> Result<i64> {
    let before =
        known.map(|record| std::str::from_utf8(&record.value).ok().and_then(|text| text.parse().ok()));
    let sum = before.unwrap_or(Some(0i64)).and_then(|before| before.checked_add(amount));
    sum.ok_or_else(|| {
        Error::invalid(format!("{}: it is no number that {amount} can be added to", doing(write)))
    })
}

/// Bytes in the log and in snapshots: JSON has no shorter way.
fn to_text<S: Serializer>(bytes: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
#[path = "rendezvous_tests.rs"]
mod tests;
