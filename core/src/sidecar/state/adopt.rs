//! Taking over what an earlier sidecar left: sessions and jobs from their records, steps from the slot headers.

use std::path::PathBuf;
use std::sync::Arc;

use super::saves::begun_in;
use super::{Part, SaveId, Session, SlotKey, Stage, State, Todo, Use};
use crate::error::Result;
use crate::handoff::{Arena, SlotSnapshot, SlotState};
use crate::proto::v1;

use super::super::process::is_dead;
use super::super::records::{JobRecord, SessionRecord};
use super::super::sums::Sums;

impl State {
    /// Everything of one user's directory. Slots first: sessions refer to them.
    pub fn adopt(
        &mut self,
        uid: u32,
        folder: PathBuf,
        arenas: Vec<Arena>,
        sessions: Vec<SessionRecord>,
        jobs: Vec<JobRecord>,
    ) {
        self.folders.insert(uid, folder);
        for record in jobs {
            // One user's folder says nothing about another's jobs.
            if self.jobs.get(&record.job).is_none_or(|known| known.store.is_none() || known.uid == uid) {
                self.adopt_job(uid, record);
            }
        }
        let mut known = Vec::new();
        for record in sessions.into_iter().filter(|record| record.uid == uid) {
            let id = record.id;
            let pidfd = record.process.and_then(|process| process.open());
            let dead = record.process.is_some() && pidfd.as_deref().is_none_or(is_dead);
            self.sessions.insert(id, Session::new(record, String::new(), pidfd));
            known.push((id, dead));
        }
        let now = self.now();
        for arena in arenas {
            let id = self.arenas.add(arena.clone(), uid, None, now);
            self.adopt_arena(id, &arena);
        }
        for (id, dead) in known {
            self.take_up_leases(id);
            self.reclaim_arena(id);
            if dead {
                self.died(id, "it was gone when the sidecar came back");
            }
        }
        self.persist_adopted();
        self.todo.push(Todo::Sweep);
    }

    fn adopt_job(&mut self, uid: u32, record: JobRecord) {
        let known = self.job(&record.job);
        known.uuid = Some(record.job_uuid);
        known.store = Some(record.store);
        known.uid = uid;
        known.latest = record.generation;
        (known.nodes, known.place) = (record.nodes, record.place);
    }

    fn adopt_arena(&mut self, id: u64, arena: &Arena) {
        for slot in arena.all_slots() {
            let key = SlotKey { arena: id, slot: slot.number() };
            let adopted = slot.snapshot().and_then(|found| self.adopt_slot(key, &found));
            if let Err(error) = adopted {
                tracing::error!("adopting a slot: {error}");
                slot.reset();
                if let Some(entry) = self.arenas.get_mut(key) {
                    entry.used = Use::Free;
                }
            }
        }
    }

    fn adopt_slot(&mut self, key: SlotKey, found: &SlotSnapshot) -> Result<()> {
        let entry = self.arenas.get_mut(key).expect("the arena was just added");
        (entry.fill, entry.step, entry.generation) = (found.fill, found.step, found.generation);
        match found.state {
            SlotState::Free => {}
            // A restore that the earlier sidecar did not finish.
            SlotState::Filling if found.session.0 == 0 => {
                entry.used = Use::Loading;
                self.arenas.free(key, found.fill);
            }
            SlotState::Filling => self.adopt_filling(key, found)?,
            SlotState::Clean => self.adopt_clean(key, found),
            SlotState::Persisting | SlotState::Sealed => {
                if found.state == SlotState::Persisting {
                    entry.slot.return_to_sealed(found.fill)?;
                }
                entry.used = Use::Sealed;
                entry.sums = Sums::read(&entry.slot, found.fill).map(Arc::new);
                self.adopt_sealed(key, found)?;
            }
        }
        Ok(())
    }

    /// Kept for restores when its checksums are there to prove it.
    fn adopt_clean(&mut self, key: SlotKey, found: &SlotSnapshot) {
        self.arenas.found_clean(key, found.step, found.generation, found.fill);
        let Some(entry) = self.arenas.get_mut(key) else { return };
        entry.sums = Sums::read(&entry.slot, found.fill).map(Arc::new);
        // A leased one can't be freed: somebody reads it.
        if entry.sums.is_none() && !self.is_leased(key) {
            self.arenas.free(key, found.fill);
        }
    }

    fn is_leased(&self, key: SlotKey) -> bool {
        let mut leased = self.sessions.values().flat_map(|session| session.record.leases.values());
        leased.any(|lease| self.leased_key(lease) == Some(key))
    }

    fn adopt_filling(&mut self, key: SlotKey, found: &SlotSnapshot) -> Result<()> {
        let entry = self.arenas.get_mut(key).expect("the caller has it");
        entry.used = Use::Filling(found.session);
        let Some(session) = self.sessions.get(&found.session) else {
            // Nobody we know: its seal is refused, and the slot stays out of use while it may still be copying.
            self.arenas.free(key, found.fill);
            return Ok(());
        };
        let (job, uuid) = (session.record.job.clone(), session.record.job_uuid);
        let begun = v1::SaveBegun {
            caller: Some(v1::Caller { token: String::new(), ..session.caller() }),
            step: found.step.0,
            ..Default::default()
        };
        let id = SaveId { job, step: found.step, generation: found.generation };
        let part = Part {
            begun,
            is_told: false,
            session: found.session,
            slot: Some((key, found.fill)),
            stage: Stage::Filling,
        };
        self.save_of(&id, uuid, &[]).parts.insert(found.rank, part);
        Ok(())
    }

    fn adopt_sealed(&mut self, key: SlotKey, found: &SlotSnapshot) -> Result<()> {
        let arena = &self.arenas.by_id[&key.arena].arena;
        let (job, uuid) = (arena.identity().job.clone(), arena.identity().job_uuid);
        let begun = begun_in(&arena.slot(key.slot))?;
        let id = SaveId { job, step: found.step, generation: found.generation };
        let part = Part {
            session: found.session,
            slot: Some((key, found.fill)),
            stage: Stage::Sealed { bytes: found.data_bytes },
            begun: begun.clone(),
            is_told: true,
        };
        self.metrics.slots_adopted.inc();
        tracing::info!(job = %id.job, rank = found.rank.0, step = id.step.0, "adopted a sealed step");
        self.save_of(&id, uuid, &begun.ranks).parts.insert(found.rank, part);
        self.todo.push(Todo::Sum(key, found.fill));
        Ok(())
    }

    /// Once all slots are known: what is sealed is persisted.
    fn persist_adopted(&mut self) {
        let ready: Vec<SaveId> = self.saves.keys().cloned().collect();
        for id in ready {
            if let Some(save) = self.saves.get_mut(&id)
                && save.here.as_ref().is_some_and(|here| here.is_empty())
            {
                save.here = None;
            }
            self.persist_if_ready(&id);
        }
    }
}
