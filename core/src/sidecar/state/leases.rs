//! Leases: a slot that somebody reads is neither filled nor freed. They are written down with the session, because a
//! restarted sidecar must not fill what a trainer still has views over.

use super::super::records::LeasedSlot;
use super::{SlotKey, State};
use crate::error::{Error, Result};
use crate::ids::SessionId;

impl State {
    /// For a trainer's restored view; recorded before this returns. Fenced when the session has ended: nobody would ever
    /// release it.
    pub fn lease(&mut self, session: SessionId, key: SlotKey) -> Result<u64> {
        let gone = || Error::fenced("leasing a restored slot: the session has ended");
        let known = self.sessions.get_mut(&session).filter(|known| !known.record.closed).ok_or_else(gone)?;
        let arena = self.arenas.by_id.get(&key.arena).ok_or_else(gone)?.arena.path().to_owned();
        let entry = self.arenas.get_mut(key).ok_or_else(gone)?;
        let lease = self.next_lease;
        self.next_lease += 1;
        known.record.leases.insert(lease, LeasedSlot { arena, slot: key.slot, fill: entry.fill });
        entry.leases += 1;
        self.record_session(session).inspect_err(|_| self.forget_lease(session, lease))?;
        Ok(lease)
    }

    /// For the sidecar's own work: a base, a verification.
    pub fn hold(&mut self, key: SlotKey) {
        if let Some(entry) = self.arenas.get_mut(key) {
            entry.leases += 1;
        }
    }

    pub fn let_off(&mut self, key: SlotKey) {
        if let Some(entry) = self.arenas.get_mut(key) {
            entry.leases = entry.leases.saturating_sub(1);
        }
    }

    /// Idempotent.
    pub fn release(&mut self, session: SessionId, lease: u64) {
        self.forget_lease(session, lease);
        self.note_session(session);
        if self
            .sessions
            .get(&session)
            .is_some_and(|known| known.record.closed && known.record.leases.is_empty())
        {
            self.forget_left(session);
        }
    }

    fn forget_lease(&mut self, session: SessionId, lease: u64) {
        let leased = self.sessions.get_mut(&session).and_then(|session| session.record.leases.remove(&lease));
        let Some(leased) = leased else { return };
        if let Some(key) = self.leased_key(&leased) {
            self.let_off(key);
        }
    }

    pub(super) fn release_all(&mut self, session: SessionId) {
        let leases: Vec<u64> = match self.sessions.get(&session) {
            Some(session) => session.record.leases.keys().copied().collect(),
            None => return,
        };
        for lease in leases {
            self.forget_lease(session, lease);
        }
    }

    pub(super) fn leased_key(&self, leased: &LeasedSlot) -> Option<SlotKey> {
        let found = self.arenas.slots().find(|(_, entry, slot)| {
            entry.arena.path() == leased.arena
                && slot.slot.number() == leased.slot
                && slot.fill == leased.fill
        });
        found.map(|(key, ..)| key)
    }

    /// At start: what the records say is read.
    pub(super) fn take_up_leases(&mut self, session: SessionId) {
        let Some(known) = self.sessions.get(&session) else { return };
        let leases: Vec<(u64, LeasedSlot)> = known.record.leases.clone().into_iter().collect();
        for (lease, leased) in leases {
            self.next_lease = self.next_lease.max(lease + 1);
            match self.leased_key(&leased) {
                Some(key) => self.hold(key),
                None => {
                    if let Some(known) = self.sessions.get_mut(&session) {
                        known.record.leases.remove(&lease);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MachineClock;
    use crate::error::Kind;
    use crate::handoff::{ArenaDirectory, ArenaIdentity, MachineMemory};
    use crate::ids::{JobUuid, Rank};
    use crate::telemetry::Metrics;

    #[test]
    fn p5_dead_trainer_holds_no_slot_that_was_still_being_loaded_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let directory = ArenaDirectory::open(folder.path(), uid).unwrap();
        let identity =
            ArenaIdentity { job: "j".parse().unwrap(), job_uuid: JobUuid::new(), rank: Rank(0), file: 1 };
        let arena = directory.create(&identity, 2, 4096, &MachineMemory::default()).unwrap();
        let mut state = State::new("n".into(), MachineClock::shared(), Metrics::new(), Default::default());
        let id = state.arenas.add(arena, uid, None, state.now());
        let key = SlotKey { arena: id, slot: 0 };
        let error = state.lease(SessionId(7), key).unwrap_err();
        assert_eq!(error.kind, Kind::Fenced);
        assert_eq!(state.arenas.get(key).unwrap().leases, 0);
    }
}
