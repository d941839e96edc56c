//! Restored tensors that are views of the arena's slot: no byte is copied before the caller has them. The memory is
//! this process's own, page by page: what the caller writes to at once, the rest by a thread in the background. The lease
//! on the slot is given back when all of it is, or when nobody looks at it any more.

use std::ops::Range;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::restore::RestoredSlot;
use super::session::Inner;
use crate::error::{Doing, Result};
use crate::handoff::{MachineMemory, PrivateMapping, own_before_forks};
use crate::pace::Pace;

/// Below this copying is done sooner than a thread has started and the lease has come back (2 GB/s; 2 ms).
const WORTH_A_LEASE: u64 = 4 << 20;

/// The slot as this process's own memory. Cheap to clone; dropped with the last view.
#[derive(Clone)]
pub struct MappedSlot(Arc<Shared>);

struct Shared {
    memory: Arc<PrivateMapping>,
    /// Its end gives the lease back. Behind `memory`: unmapped first.
    lease: Mutex<Option<Arc<RestoredSlot>>>,
    /// Of the thread in the background.
    pace: Pace,
}

/// The mappings of a session.
#[derive(Default)]
pub(super) struct MappedSlots(Mutex<Vec<Weak<Shared>>>);

impl MappedSlot {
    /// Of a slot of which these tensors will be looked at. None where copying is better: they are small, memory is too
    /// short for what will be this process's own, or the kernel refuses. Invalid for a tensor that is not in the slot.
    pub fn new(slot: &Arc<RestoredSlot>, tensors: &[usize]) -> Result<Option<MappedSlot>> {
        MappedSlot::within(&MachineMemory::default(), slot, tensors)
    }

    /// The same where `memory` says what there is.
    pub fn within(
        memory: &MachineMemory,
        slot: &Arc<RestoredSlot>,
        tensors: &[usize],
    ) -> Result<Option<MappedSlot>> {
        let place = |number: &usize| -> Result<Range<u64>> {
            let (offset, bytes) =
                (slot.tensors().get(*number).map_or(0, |tensor| tensor.offset), slot.bytes(*number)?);
            Ok(offset..offset + bytes.len() as u64)
        };
        let places = tensors.iter().map(place).collect::<Result<Vec<_>>>()?;
        let bytes: u64 = places.iter().map(|place| place.end - place.start).sum();
        if bytes < WORTH_A_LEASE {
            return Ok(None);
        }
        let made = memory.room_for_own(bytes).and_then(|()| slot.map_private(&places));
        let memory = match made {
            Ok(memory) => memory,
            Err(error) => {
                tracing::info!("restored tensors are copied: {error}");
                return Ok(None);
            }
        };
        let memory = own_before_forks(memory);
        let lease = Mutex::new(Some(Arc::clone(slot)));
        let shared = Arc::new(Shared { memory, lease, pace: Pace::yielding() });
        if let Some(session) = slot.session() {
            session.mapped.add(&shared);
        }
        Ok(Some(MappedSlot(shared)))
    }

    /// Of the slot's first byte; valid, and writable, as long as this value or a clone lives.
    pub fn address(&self) -> *mut u8 {
        self.0.memory.address()
    }

    /// Whether there are clones.
    pub fn is_viewed(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Makes all of it this process's own, on a thread that yields to everybody else, and gives the lease back; at once
    /// when this is the last of its clones.
    pub fn own_in_background(self) -> Result<()> {
        if self.is_viewed() { own_on_a_thread(&self.0) } else { Ok(()) }
    }
}

/// At the pace that it has by then.
fn own_on_a_thread(shared: &Arc<Shared>) -> Result<()> {
    let (pace, shared) = (shared.pace.clone(), Arc::downgrade(shared));
    let work = move || {
        let _lowered = (!pace.is_hurried()).then(|| pace.lower_thread());
        while let Some(shared) = shared.upgrade() {
            if shared.memory.own_next() {
                shared.lease.lock().take();
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("strata-own".into())
        .spawn(work)
        .map(drop)
        .doing(|| "starting the thread that makes restored tensors this process's own")
}

impl MappedSlots {
    fn add(&self, shared: &Arc<Shared>) {
        let mut known = self.0.lock();
        known.retain(|known| known.strong_count() > 0);
        known.push(Arc::downgrade(shared));
    }

    /// Somebody will want a slot soon: what is left is done at this process's ordinary priority.
    fn hurry(&self) -> Result<()> {
        let known: Vec<Arc<Shared>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for shared in known {
            let leased = shared.lease.lock().is_some();
            if leased && !shared.pace.is_hurried() {
                shared.pace.hurry();
                own_on_a_thread(&shared)?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Before a save or a restore: one of few slots may be leased to restored tensors.
    pub fn hurry_mapped(&self) {
        if let Err(error) = self.mapped.hurry() {
            tracing::warn!("{error}");
        }
    }
}
