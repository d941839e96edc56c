//! This replica's copy of the state, as of the last entry that it knows to be decided, and the snapshot that takes the place of the
//! entries before.

use std::io::{self, Cursor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{AnyError, EntryPayload, OptionalSend, StorageIOError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::super::here;
use super::super::log::{Disk, Kept, snapshot};
use super::super::state::State;
use super::entry::{Entry, LogId, Membership, Outcome, Payload, StorageError, Types};
use crate::error::{Error, Result};

type Meta = SnapshotMeta<u64, openraft::BasicNode>;

/// A newer one is refused.
const VERSION: u32 = 1;

/// All that a snapshot holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    v: u32,
    applied: Option<LogId>,
    membership: Membership,
    /// Index of the entry that the newest reign began with.
    reign: u64,
    /// None: no reign has begun.
    state: Option<State>,
}

impl Kept for Image {
    /// It is never changed on the disk, only replaced.
    type Record = std::convert::Infallible;

    fn write(record: &std::convert::Infallible, _: &mut Vec<u8>) {
        match *record {}
    }

    fn replay(&mut self, at: u64, _: &[u8]) -> Result<()> {
        Err(Error::corrupt(format!("reading change {at} of a snapshot: snapshots are not changed")))
    }

    fn encode_into(&self, to: &mut dyn io::Write) -> io::Result<()> {
        serde_json::to_writer(to, self).map_err(io::Error::from)
    }

    fn decode(bytes: &[u8]) -> Result<Image> {
        let image: Image = serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("reading a snapshot of the set: {error}")))?;
        if image.v > VERSION {
            let message = format!(
                "reading a snapshot of the set: it has version {}, this build reads up to {VERSION}",
                image.v
            );
            return Err(Error::invalid(message)
                .hint("it was written by a newer strata: run that version; nothing has been changed"));
        }
        Ok(image)
    }
}

impl Image {
    fn empty() -> Image {
        Image { v: VERSION, applied: None, membership: Membership::default(), reign: 0, state: None }
    }

    fn meta(&self) -> Meta {
        let at = self.applied.map_or(0, |at| at.index + 1);
        Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{at}-{}", self.applied.map_or(0, |at| at.leader_id.term)),
        }
    }

    fn encoded(&self) -> Vec<u8> {
        snapshot::encode(0, self.applied.map_or(0, |at| at.index + 1), self)
    }

    /// Internal for a batch that does not fit: replicas would part, so this one goes no further.
    fn apply(&mut self, entry: Entry) -> Result<Outcome> {
        let at = entry.log_id;
        self.applied = Some(at);
        match entry.payload {
            EntryPayload::Blank => Ok(Outcome::Applied),
            EntryPayload::Membership(members) => {
                self.membership = Membership::new(Some(at), members);
                Ok(Outcome::Applied)
            }
            EntryPayload::Normal(Payload::Reign { fresh }) => {
                self.reign = at.index;
                self.state.get_or_insert_with(|| State::new(fresh));
                Ok(Outcome::Applied)
            }
            EntryPayload::Normal(Payload::Batch { reign, records }) => {
                if reign != self.reign {
                    return Ok(Outcome::Superseded);
                }
                let no_state = || Error::internal(format!("applying entry {at}: no reign has begun"));
                let state = self.state.as_mut().ok_or_else(no_state)?;
                for command in records.decode(at.index)? {
                    let refused =
                        |error: Error| Error::internal(format!("applying entry {at}: {}", error.message));
                    state.apply(&command).map_err(refused)?;
                }
                Ok(Outcome::Applied)
            }
        }
    }
}

/// All share one.
#[derive(Clone)]
pub struct Replica {
    image: Arc<Mutex<Image>>,
    disk: Arc<Mutex<Box<dyn Disk>>>,
    /// Of batches applied since the last snapshot.
    unsaved: Arc<AtomicU64>,
}

impl Replica {
    /// With the snapshot that is on the disk, or empty. Errors as [`snapshot::read`] has them.
    pub fn open(disk: Box<dyn Disk>) -> Result<Replica> {
        let found = snapshot::read::<Image>(&*disk)?;
        let image = found.map_or_else(Image::empty, |found| found.state);
        Ok(Replica {
            image: Arc::new(Mutex::new(image)),
            disk: Arc::new(Mutex::new(disk)),
            unsaved: Arc::default(),
        })
    }

    /// The state as of the newest decided entry, where the reign that began at `reign` is the newest and has changed nothing.
    pub fn state_of(&self, reign: u64) -> Option<State> {
        let image = self.image.lock();
        let unchanged = image.reign == reign && image.applied.is_some_and(|at| at.index == reign);
        image.state.clone().filter(|_| unchanged)
    }

    /// Whether a reign has ever begun.
    pub fn is_founded(&self) -> bool {
        self.image.lock().state.is_some()
    }

    /// Bytes of batches that a snapshot would spare.
    pub fn unsaved(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// For the tests: replicas that have applied the same entries have the same bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> (u64, Vec<u8>) {
        let image = self.image.lock();
        (image.applied.map_or(0, |at| at.index), image.state.as_ref().map(State::encode).unwrap_or_default())
    }

    fn save(&self, bytes: &[u8]) -> Result<()> {
        here(|| snapshot::write_encoded(&**self.disk.lock(), bytes))
    }
}

fn any(error: &Error) -> AnyError {
    AnyError::error(error.to_string())
}

impl RaftSnapshotBuilder<Types> for Replica {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (meta, bytes) = {
            let image = self.image.lock().clone();
            (image.meta(), image.encoded())
        };
        self.unsaved.store(0, Ordering::Relaxed);
        self.save(&bytes)
            .map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), any(&error)))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<Types> for Replica {
    type SnapshotBuilder = Replica;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let image = self.image.lock();
        Ok((image.applied, image.membership.clone()))
    }

    #[allow(clippy::result_large_err, reason = "the protocol's own error")]
    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut image = self.image.lock();
        let one = |entry: Entry| {
            let at = entry.log_id;
            if let EntryPayload::Normal(Payload::Batch { records, .. }) = &entry.payload {
                self.unsaved.fetch_add(records.bytes() as u64, Ordering::Relaxed);
            }
            image.apply(entry).map_err(|error| {
                tracing::error!("{error}; this coordinator goes no further");
                StorageIOError::apply(at, any(&error)).into()
            })
        };
        entries.into_iter().map(one).collect()
    }

    async fn get_snapshot_builder(&mut self) -> Replica {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        received: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = received.into_inner();
        let failed = |error: Error| StorageIOError::write_snapshot(Some(meta.signature()), any(&error));
        let image = snapshot::decode::<Image>(&bytes).map_err(failed)?.state;
        self.save(&bytes).map_err(failed)?;
        *self.image.lock() = image;
        self.unsaved.store(0, Ordering::Relaxed);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let failed = |error: Error| StorageIOError::read_snapshot(None, any(&error));
        let found = here(|| snapshot::read::<Image>(&**self.disk.lock())).map_err(failed)?;
        Ok(found.map(|found| {
            let image = found.state;
            Snapshot { meta: image.meta(), snapshot: Box::new(Cursor::new(image.encoded())) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::super::entry::Records;
    use super::*;
    use crate::coordinator::state::Command;
    use crate::ids::ClusterId;

    fn notify(step: u64) -> Command {
        let (kind, rank) = (Default::default(), 0.into());
        Command::Notify {
            job: "j".parse().unwrap(),
            step: step.into(),
            kind,
            rank,
            path: "p".into(),
            bytes: 1,
        }
    }

    #[test]
    fn p6_batch_of_a_reign_that_has_ended_changes_nothing() {
        let mut image = Image::empty();
        let mut at = 0;
        let mut apply = |image: &mut Image, payload| {
            at += 1;
            let log_id = LogId::new(CommittedLeaderId::new(1, 1), at);
            image.apply(Entry { log_id, payload: EntryPayload::Normal(payload) }).unwrap()
        };
        let batch = |reign, step| Payload::Batch { reign, records: Records::encode(&[notify(step)]) };
        apply(&mut image, Payload::Reign { fresh: ClusterId::new() });
        assert_eq!(apply(&mut image, batch(1, 1)), Outcome::Applied);
        let cluster = image.state.as_ref().unwrap().cluster;
        apply(&mut image, Payload::Reign { fresh: ClusterId::new() });
        let before = image.state.clone();
        assert_eq!(before.as_ref().unwrap().cluster, cluster, "a set is founded once");
        assert_eq!(apply(&mut image, batch(1, 2)), Outcome::Superseded);
        assert_eq!(image.state, before);
        assert_eq!(apply(&mut image, batch(3, 2)), Outcome::Applied);
        assert_ne!(image.state, before);
        let whole = image.encoded();
        assert_eq!(snapshot::decode::<Image>(&whole).unwrap().state.encode(), image.encode());
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        assert!(snapshot::decode::<Image>(&damaged).is_err());
    }
}
