//! Which slot of a rank's arena the next save, or restored step, gets.

use super::{Fate, SlotKey, State, Use};
use crate::error::Result;
use crate::handoff::{Arena, ArenaIdentity, Begin};
use crate::ids::{SessionId, Step};

/// What a rank that asks for a slot is told.
pub(in super::super) enum Grant {
    Slot(SlotKey),
    /// All are busy.
    Wait,
    /// No file, or the file's slots are too small, or it did not get its memory.
    NeedArena(ArenaIdentity),
}

impl State {
    /// The arenas of the session's rank become its own, as far as nobody else may write to them: without proof that the
    /// old process is dead its file only finishes what was sealed in it.
    pub fn claim_arenas(&mut self, session: SessionId) {
        let Some(new) = self.sessions.get(&session) else { return };
        let record = &new.record;
        let (job, rank, uuid) = (&record.job, record.rank, record.job_uuid);
        let mut newest = None;
        for (id, entry) in &mut self.arenas.by_id {
            let identity = entry.arena.identity();
            if identity.job != *job || identity.rank != rank || entry.uid != record.uid {
                continue;
            }
            let old = entry.writer.and_then(|writer| self.sessions.get(&writer));
            // A process that joins again is the one that would have written.
            let is_same =
                |old: &super::Session| old.record.process.is_some() && old.record.process == record.process;
            let passes_on = entry.writer.is_none() || old.is_some_and(is_same);
            if passes_on && entry.fate == Fate::Kept && entry.is_of(job, uuid, rank) {
                entry.writer = Some(session);
                newest = newest.max(Some((entry.arena.identity().file, *id)));
            } else {
                entry.fate = Fate::Going;
            }
        }
        // One file a rank; older ones go when they are done.
        for (id, entry) in &mut self.arenas.by_id {
            if entry.writer == Some(session) && newest.is_some_and(|(_, newest)| newest != *id) {
                entry.fate = Fate::Going;
            }
        }
        self.note_arena(session);
        self.todo.push(super::Todo::Sweep);
    }

    /// After a restart: the file that the record names is the session's again.
    pub(super) fn reclaim_arena(&mut self, session: SessionId) {
        let Some(known) = self.sessions.get(&session) else { return };
        let Some(path) = known.record.arena.clone() else { return };
        for entry in self.arenas.by_id.values_mut().filter(|entry| entry.arena.path() == path) {
            entry.writer = Some(session);
        }
    }

    fn note_arena(&mut self, session: SessionId) {
        let path = self.own_arena(session).map(|(_, arena)| arena.path().to_owned());
        if let Some(known) = self.sessions.get_mut(&session) {
            known.record.arena = path;
        }
        self.note_session(session);
    }

    /// The file the session is granted slots of.
    pub fn own_arena(&self, session: SessionId) -> Option<(u64, &Arena)> {
        let own = self.arenas.by_id.iter().rev();
        let mut own = own.filter(|(_, entry)| entry.writer == Some(session) && entry.fate == Fate::Kept);
        own.next().map(|(id, entry)| (*id, &entry.arena))
    }

    /// `needed`: what one slot must hold.
    pub fn grant(&self, session: SessionId, needed: u64) -> Grant {
        let does = |arena: &Arena| arena.slot_bytes() >= needed && !arena.allocation_failed();
        let own = self.own_arena(session).filter(|(_, arena)| does(arena));
        match own {
            None => Grant::NeedArena(self.next_identity(session)),
            Some((arena, _)) => match self.arenas.by_id[&arena].pick() {
                Some(slot) => Grant::Slot(SlotKey { arena, slot }),
                None => Grant::Wait,
            },
        }
    }

    fn next_identity(&self, session: SessionId) -> ArenaIdentity {
        let record = &self.sessions[&session].record;
        let files = self.arenas.by_id.values().map(|entry| entry.arena.identity());
        let newest = files
            .filter(|identity| identity.job == record.job && identity.rank == record.rank)
            .map(|identity| identity.file)
            .max();
        ArenaIdentity {
            job: record.job.clone(),
            job_uuid: record.job_uuid,
            rank: record.rank,
            file: newest.map_or(1, |file| file + 1),
        }
    }

    /// A new file replaces the session's older ones.
    pub fn replace_arena(&mut self, session: SessionId, arena: Arena) {
        let uid = self.sessions.get(&session).map_or(0, |known| known.record.uid);
        for entry in self.arenas.by_id.values_mut().filter(|entry| entry.writer == Some(session)) {
            entry.fate = Fate::Going;
        }
        let now = self.now();
        self.arenas.add(arena, uid, Some(session), now);
        self.note_arena(session);
        self.todo.push(super::Todo::Sweep);
    }

    /// Begins the filling for a trainer: the fill number.
    pub fn begin_fill(&mut self, session: SessionId, key: SlotKey, step: Step) -> Result<u64> {
        let generation = self.sessions[&session].generation();
        self.arenas.begin(key, &Begin { session, generation, step })
    }

    /// Why all of a rank's slots are busy, for its error.
    pub fn busy_slots(&self, session: SessionId) -> String {
        let Some((arena, _)) = self.own_arena(session) else { return "there is no arena".to_owned() };
        let entry = &self.arenas.by_id[&arena];
        let describe = |slot: &super::arenas::SlotEntry| match slot.used {
            Use::Clean => format!("step {} is being read ({} leases)", slot.step, slot.leases),
            Use::Free | Use::Vacated(_) => "one is still being let go".to_owned(),
            used => format!("step {} is {}", slot.step, used.name()),
        };
        entry.slots.iter().map(describe).collect::<Vec<_>>().join(", ")
    }
}
