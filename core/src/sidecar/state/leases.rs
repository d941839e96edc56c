//! Leases: a slot that somebody reads is neither filled nor freed. They are written down with the session, because a
//! restarted sidecar must not fill what a trainer still has views over.

use super::super::records::LeasedSlot;
use super::{SlotKey, State};
use crate::error::Result;
use crate::ids::SessionId;

impl State {
    /// For a trainer's restored view; recorded before this returns.
    pub fn lease(&mut self, session: SessionId, key: SlotKey) -> Result<u64> {
        let lease = self.next_lease;
        self.next_lease += 1;
        let path = self.arenas.by_id[&key.arena].arena.path().to_owned();
        let Some(entry) = self.arenas.get_mut(key) else { return Ok(lease) };
        let leased = LeasedSlot { arena: path, slot: key.slot, fill: entry.fill };
        entry.leases += 1;
        if let Some(session) = self.sessions.get_mut(&session) {
            session.record.leases.insert(lease, leased);
        }
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
