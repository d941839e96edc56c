//! The arenas of this node and what each of their slots is used for. The headers are the truth; what they can't say
//! (leases, who may still be writing, checksums) is kept here beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::sums::Sums;
use crate::checkpoint::SlotSums;
use crate::error::Result;
use crate::handoff::{Arena, Begin, Slot, SlotLoad};
use crate::ids::{Generation, JobName, JobUuid, Rank, SessionId, Step};

/// Names a slot for this process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct SlotKey {
    pub arena: u64,
    pub slot: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Use {
    Free,
    /// A trainer copies.
    Filling(SessionId),
    /// Given up, but its trainer may still be in the middle of a copy: nobody's until it has let go or is dead.
    Vacated(SessionId),
    /// The sidecar brings a restored step into it.
    Loading,
    Sealed,
    /// Its bytes are on their way to the store, or there and not yet committed.
    Persisting,
    Clean,
}

impl Use {
    pub fn name(self) -> &'static str {
        match self {
            Use::Free | Use::Vacated(_) => "free",
            Use::Filling(_) | Use::Loading => "filling",
            Use::Sealed => "sealed",
            Use::Persisting => "persisting",
            Use::Clean => "clean",
        }
    }
}

pub(in super::super) struct SlotEntry {
    pub slot: Slot,
    pub used: Use,
    pub fill: u64,
    pub step: Step,
    pub generation: Generation,
    pub leases: u32,
    pub sums: Option<Arc<Sums>>,
    /// The checksums that are being taken, and of which filling.
    pub summing: Option<(u64, Arc<SlotSums>)>,
    /// When it became Clean, as a count: the smallest is the oldest.
    settled: u64,
}

/// What is to become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fate {
    Kept,
    /// Replaced by another file, or its job was closed: removed once nothing is left in it to do.
    Going,
}

pub(in super::super) struct ArenaEntry {
    pub arena: Arena,
    pub uid: u32,
    /// The session that is granted its slots.
    pub writer: Option<SessionId>,
    pub fate: Fate,
    /// Since when nobody has it.
    pub idle_since: Duration,
    pub slots: Vec<SlotEntry>,
}

#[derive(Default)]
pub(in super::super) struct Arenas {
    pub by_id: BTreeMap<u64, ArenaEntry>,
    next: u64,
    settled: u64,
}

impl SlotEntry {
    /// The checksums of what is sealed in it: known, or taken by whoever needs them first.
    pub fn slot_sums(&mut self) -> Result<Arc<SlotSums>> {
        if let Some(known) = &self.sums {
            return known.of_slot(&self.slot).map(Arc::new);
        }
        if let Some((_, sums)) = self.summing.as_ref().filter(|(fill, _)| *fill == self.fill) {
            return Ok(Arc::clone(sums));
        }
        let sums = Arc::new(SlotSums::untaken(&self.slot.index()?, self.slot.data()?.as_ref().len() as u64)?);
        self.summing = Some((self.fill, Arc::clone(&sums)));
        Ok(sums)
    }

    pub fn is_summing(&self, fill: u64) -> bool {
        self.summing.as_ref().is_some_and(|(summed, _)| *summed == fill)
    }
}

impl ArenaEntry {
    pub fn is_of(&self, job: &JobName, uuid: JobUuid, rank: Rank) -> bool {
        let identity = self.arena.identity();
        identity.job == *job && identity.job_uuid == uuid && identity.rank == rank
    }

    /// Something in it still has to reach the store, or is being read. (Who merely may still be writing to a slot that
    /// was given up loses nothing with the file's name.)
    pub fn is_needed(&self) -> bool {
        let idle = |used| matches!(used, Use::Free | Use::Clean | Use::Vacated(_));
        let needed = |slot: &SlotEntry| !idle(slot.used) || slot.leases > 0;
        self.slots.iter().any(needed)
    }

    /// A slot for something new: free, or holding the step that was settled first. The newest goes last.
    pub fn pick(&self) -> Option<u32> {
        let free = self.slots.iter().find(|slot| slot.used == Use::Free && slot.leases == 0);
        let oldest = || {
            let clean = self.slots.iter().filter(|slot| slot.used == Use::Clean && slot.leases == 0);
            clean.min_by_key(|slot| slot.settled)
        };
        free.or_else(oldest).map(|slot| slot.slot.number())
    }
}

impl Arenas {
    /// A file with free slots.
    pub fn add(&mut self, arena: Arena, uid: u32, writer: Option<SessionId>, now: Duration) -> u64 {
        let free = |slot: Slot| SlotEntry {
            slot,
            used: Use::Free,
            fill: 0,
            step: Step(0),
            generation: Generation(0),
            leases: 0,
            sums: None,
            summing: None,
            settled: 0,
        };
        let slots = arena.all_slots().map(free).collect();
        self.next += 1;
        let entry = ArenaEntry { arena, uid, writer, fate: Fate::Kept, idle_since: now, slots };
        self.by_id.insert(self.next, entry);
        self.next
    }

    pub fn get(&self, key: SlotKey) -> Option<&SlotEntry> {
        self.by_id.get(&key.arena).and_then(|entry| entry.slots.get(key.slot as usize))
    }

    pub fn get_mut(&mut self, key: SlotKey) -> Option<&mut SlotEntry> {
        self.by_id.get_mut(&key.arena).and_then(|entry| entry.slots.get_mut(key.slot as usize))
    }

    pub fn slots(&self) -> impl Iterator<Item = (SlotKey, &ArenaEntry, &SlotEntry)> {
        self.by_id.iter().flat_map(|(id, entry)| {
            let key = move |slot: &SlotEntry| SlotKey { arena: *id, slot: slot.slot.number() };
            entry.slots.iter().map(move |slot| (key(slot), entry, slot))
        })
    }

    pub fn keys(&self, pick: impl Fn(&ArenaEntry, &SlotEntry) -> bool) -> Vec<SlotKey> {
        self.slots().filter(|(_, entry, slot)| pick(entry, slot)).map(|(key, ..)| key).collect()
    }

    /// Free or Clean → Filling, for a trainer; the fill number.
    pub fn begin(&mut self, key: SlotKey, begin: &Begin) -> Result<u64> {
        let entry = self.get_mut(key).expect("a slot that was just picked");
        entry.fill = entry.slot.begin_fill(begin)?;
        // Fill numbers begin anew with every file: sums left by one of the same name must not be taken for this one's.
        Sums::remove(&entry.slot);
        (entry.used, entry.step, entry.generation) =
            (Use::Filling(begin.session), begin.step, begin.generation);
        entry.sums = None;
        Ok(entry.fill)
    }

    /// Free or Clean → Filling, by the sidecar itself.
    pub fn begin_load(&mut self, key: SlotKey, step: Step, generation: Generation) -> Result<SlotLoad> {
        let entry = self.get_mut(key).expect("a slot that was just picked");
        let load = entry.slot.begin_load(generation, step)?;
        Sums::remove(&entry.slot);
        (entry.used, entry.fill) = (Use::Loading, load.fill());
        (entry.step, entry.generation, entry.sums) = (step, generation, None);
        Ok(load)
    }

    /// The load gave its slot back.
    pub fn load_failed(&mut self, key: SlotKey) {
        if let Some(entry) = self.get_mut(key).filter(|entry| entry.used == Use::Loading) {
            entry.used = Use::Free;
        }
    }

    /// Any state of this filling → Free. The trainer of a slot that is Filling may be in the middle of a copy: that one
    /// is Vacated.
    pub fn free(&mut self, key: SlotKey, fill: u64) {
        let Some(entry) = self.get_mut(key).filter(|entry| entry.fill == fill) else { return };
        if let Err(error) = entry.slot.free(fill) {
            tracing::error!("freeing a slot: {error}");
            entry.slot.reset();
        }
        entry.used = match entry.used {
            Use::Filling(session) | Use::Vacated(session) => Use::Vacated(session),
            _ => Use::Free,
        };
        entry.sums = None;
    }

    /// The session's trainer is in no copy any more (or dead): what it had vacated is free.
    pub fn let_go(&mut self, session: SessionId) {
        for entry in self.by_id.values_mut().flat_map(|entry| &mut entry.slots) {
            if entry.used == Use::Vacated(session) {
                entry.used = Use::Free;
            }
        }
    }

    pub fn take_for_persist(&mut self, key: SlotKey, fill: u64) -> Result<()> {
        let entry = self.get_mut(key).expect("slots of a save live as long as it");
        entry.slot.take_for_persist(fill)?;
        entry.used = Use::Persisting;
        Ok(())
    }

    pub fn return_to_sealed(&mut self, key: SlotKey, fill: u64) {
        let Some(entry) = self.get_mut(key).filter(|entry| entry.fill == fill) else { return };
        match entry.slot.return_to_sealed(fill) {
            Ok(()) => entry.used = Use::Sealed,
            Err(error) => tracing::error!("giving a slot back: {error}"),
        }
    }

    /// Sealed or Persisting → Clean: its step is settled in the store.
    pub fn settle(&mut self, key: SlotKey, fill: u64) {
        self.settled += 1;
        let settled = self.settled;
        let Some(entry) = self.get_mut(key).filter(|entry| entry.fill == fill) else { return };
        let taken = match entry.used {
            Use::Sealed => entry.slot.take_for_persist(fill),
            _ => Ok(()),
        };
        match taken.and_then(|()| entry.slot.mark_clean(fill)) {
            Ok(()) => (entry.used, entry.settled) = (Use::Clean, settled),
            Err(error) => tracing::error!("marking a slot clean: {error}"),
        }
    }

    /// A step that the sidecar brought in itself, or found at start.
    pub fn found_clean(&mut self, key: SlotKey, step: Step, generation: Generation, fill: u64) {
        self.settled += 1;
        let settled = self.settled;
        if let Some(entry) = self.get_mut(key) {
            (entry.used, entry.step, entry.generation) = (Use::Clean, step, generation);
            (entry.fill, entry.settled) = (fill, settled);
        }
    }
}
