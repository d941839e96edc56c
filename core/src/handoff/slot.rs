//! A slot as the sidecar sees it: its checked header, its transitions, its bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prost::Message;
use rustix::fs::{FallocateFlags, fallocate};

use super::arena::Arena;
use super::header::{SlotHeader, SlotSnapshot, check, crc32c};
use super::load::SlotLoad;
use super::mapping::Mapping;
use super::state::{SlotState, Word};
use crate::error::{Doing, Error, Result};
use crate::ids::{Generation, SessionId, Step};
use crate::proto::format::SlotIndex;

/// What a filling is for; kept in the slot's header.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    pub session: SessionId,
    pub generation: Generation,
    pub step: Step,
}

#[derive(Clone)]
pub struct Slot {
    pub(super) arena: Arena,
    pub(super) number: u32,
}

impl Slot {
    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// What the header says. Corrupt, naming the file, when a check fails.
    pub fn snapshot(&self) -> Result<SlotSnapshot> {
        let _begin = self.arena.shared.begin.lock();
        self.read().doing(|| format!("reading {self}"))
    }

    /// Free or Clean → Filling, for a trainer: the fill number it names when it opens and seals the slot.
    /// Conflict in any other state. Leases are the caller's to respect.
    pub fn begin_fill(&self, begin: &Begin) -> Result<u64> {
        let _lock = self.arena.shared.begin.lock();
        let word = self.word()?;
        if !matches!(word.state, SlotState::Free | SlotState::Clean) {
            return Err(self.wrong_state("filling", word, "Free or Clean"));
        }
        let next = Word { state: SlotState::Filling, fill: word.fill + 1 };
        self.swap(word, next, "filling")?;
        let header = self.header();
        let fields = [begin.session.0, begin.generation.0, begin.step.0];
        header.session.store(fields[0], Ordering::Relaxed);
        header.generation.store(fields[1], Ordering::Relaxed);
        header.step.store(fields[2], Ordering::Relaxed);
        header.begin_check.store(check(self.number, next.fill, &fields), Ordering::Release);
        Ok(next.fill)
    }

    /// Free or Clean → Filling, by the sidecar itself, with a restored step. Dropping what this gives before
    /// `finish` frees the slot again.
    pub fn begin_load(&self, generation: Generation, step: Step) -> Result<SlotLoad> {
        let fill = self.begin_fill(&Begin { session: SessionId(0), generation, step })?;
        Ok(SlotLoad::new(self.clone(), fill))
    }

    /// Sealed → Persisting.
    pub fn take_for_persist(&self, fill: u64) -> Result<()> {
        self.step_to(SlotState::Sealed, SlotState::Persisting, fill, "taking for persist")
    }

    /// Persisting → Sealed: the persist failed and may be tried again, or its sidecar died.
    pub fn return_to_sealed(&self, fill: u64) -> Result<()> {
        self.step_to(SlotState::Persisting, SlotState::Sealed, fill, "taking back from persist")
    }

    /// Persisting → Clean: the step is settled.
    pub fn mark_clean(&self, fill: u64) -> Result<()> {
        self.step_to(SlotState::Persisting, SlotState::Clean, fill, "marking clean")
    }

    /// Any state of this filling → Free. Persisting only once its IO has stopped; the caller knows. Conflict when
    /// the slot has passed on to another filling. Already free: nothing to do.
    pub fn free(&self, fill: u64) -> Result<()> {
        loop {
            let word = self.word()?;
            if word.fill != fill {
                return Err(self.wrong_state("freeing", word, &format!("fill {fill}")));
            }
            // The trainer may seal in between: then free what it sealed.
            if word.state == SlotState::Free
                || self.swap(word, Word { state: SlotState::Free, fill }, "freeing").is_ok()
            {
                return Ok(());
            }
        }
    }

    /// Frees a slot whose header is damaged, whatever it says. A fill number far ahead keeps late trainers out.
    pub fn reset(&self) {
        let fill =
            (self.header().word.load(Ordering::Acquire) >> 8).saturating_add(1 << 20) & (u64::MAX >> 8);
        self.header().word.store(Word { state: SlotState::Free, fill }.pack(), Ordering::Release);
    }

    /// Gives the memory of a slot back, of a file that has no name any more: a trainer whose restored tensors were once
    /// views of it keeps the file, but needs none of its pages. Its own copies of them stay.
    pub fn discard(&self) -> Result<()> {
        let header = &self.arena.shared.mapping.header;
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let file = &self.arena.shared.file;
        fallocate(file, how, header.slot_offset(self.number), header.slot_bytes)
            .doing(|| format!("giving back the memory of {self}"))
    }

    /// The index of a Sealed, Persisting or Clean slot. Corrupt when its bytes do not match the header's checksum.
    pub fn index(&self) -> Result<SlotIndex> {
        let doing = || format!("reading the index of {self}");
        self.sealed_snapshot().and_then(|_| read_index(&self.arena.shared.mapping, self.number)).doing(doing)
    }

    /// The data of a Sealed, Persisting or Clean slot, straight from the arena. Valid until the slot is filled again,
    /// which the holder's lease prevents.
    pub fn data(&self) -> Result<SlotBytes> {
        let snapshot = self.sealed_snapshot().doing(|| format!("reading the data of {self}"))?;
        Ok(SlotBytes {
            mapping: Arc::clone(&self.arena.shared.mapping),
            slot: self.number,
            bytes: snapshot.data_bytes as usize,
        })
    }

    fn sealed_snapshot(&self) -> Result<SlotSnapshot> {
        let snapshot = self.snapshot()?;
        match snapshot.state {
            SlotState::Free | SlotState::Filling => {
                Err(Error::conflict(format!("it is {} (fill {})", snapshot.state, snapshot.fill)))
            }
            _ => Ok(snapshot),
        }
    }

    fn read(&self) -> Result<SlotSnapshot> {
        read_snapshot(&self.arena.shared.mapping, self.number)
    }

    fn header(&self) -> &SlotHeader {
        self.arena.shared.mapping.slot(self.number)
    }

    fn word(&self) -> Result<Word> {
        read_word(self.header()).doing(|| format!("reading {self}"))
    }

    pub(super) fn step_to(&self, from: SlotState, to: SlotState, fill: u64, doing: &str) -> Result<()> {
        self.swap(Word { state: from, fill }, Word { state: to, fill }, doing)
    }

    fn swap(&self, from: Word, to: Word, doing: &str) -> Result<()> {
        swap(self.header(), from, to).map_err(|found| match found {
            Some(found) => self.wrong_state(doing, found, &format!("{} with fill {}", from.state, from.fill)),
            None => Error::corrupt(format!("{doing} {self}: its state is none that Strata knows")),
        })
    }

    fn wrong_state(&self, doing: &str, found: Word, wanted: &str) -> Error {
        Error::conflict(format!(
            "{doing} {self}: it is {} with fill {}, not {wanted}",
            found.state, found.fill
        ))
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slot {} of {}", self.number, self.arena.path().display())
    }
}

/// The data of a sealed slot. Keeps the mapping alive; cheap to clone.
#[derive(Clone)]
pub struct SlotBytes {
    mapping: Arc<Mapping>,
    slot: u32,
    bytes: usize,
}

impl AsRef<[u8]> for SlotBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: inside the mapping (the snapshot checked the length); nobody writes to a slot that is Sealed,
        // Persisting or Clean, and the holder's lease keeps it from being filled again.
        unsafe { std::slice::from_raw_parts(self.mapping.data(self.slot), self.bytes) }
    }
}

/// Compare-and-swap of a slot's word. Err: what was found instead.
pub(super) fn swap(header: &SlotHeader, from: Word, to: Word) -> Result<(), Option<Word>> {
    header
        .word
        .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire)
        .map(drop)
        .map_err(Word::unpack)
}

pub(super) fn read_word(header: &SlotHeader) -> Result<Word> {
    let word = header.word.load(Ordering::Acquire);
    Word::unpack(word)
        .ok_or_else(|| Error::corrupt(format!("its state ({word:#x}) is none that Strata knows")))
}

pub(super) fn read_snapshot(mapping: &Mapping, slot: u32) -> Result<SlotSnapshot> {
    let header = mapping.slot(slot);
    let word = read_word(header)?;
    let fields =
        [&header.session, &header.generation, &header.step].map(|field| field.load(Ordering::Relaxed));
    let held = word.state != SlotState::Free;
    if held && header.begin_check.load(Ordering::Acquire) != check(slot, word.fill, &fields) {
        return Err(Error::corrupt(format!("the header of its fill {} does not match its check", word.fill)));
    }
    let sealed = held && word.state != SlotState::Filling;
    let lengths = if sealed { sealed_lengths(mapping, slot, word.fill)? } else { [0; 4] };
    Ok(SlotSnapshot {
        slot,
        state: word.state,
        fill: word.fill,
        session: SessionId(fields[0]),
        generation: Generation(fields[1]),
        step: Step(fields[2]),
        rank: mapping.header.identity.rank,
        data_bytes: lengths[0],
        index_bytes: lengths[2],
    })
}

/// Data bytes, index offset, index bytes, index CRC: checked, and inside the slot.
fn sealed_lengths(mapping: &Mapping, slot: u32, fill: u64) -> Result<[u64; 4]> {
    let header = mapping.slot(slot);
    let fields = [&header.data_bytes, &header.index_offset, &header.index_bytes, &header.index_crc]
        .map(|field| field.load(Ordering::Relaxed));
    let [data, offset, bytes, _] = fields;
    let inside =
        data <= offset && offset.checked_add(bytes).is_some_and(|end| end <= mapping.header.slot_bytes);
    if header.seal_check.load(Ordering::Relaxed) != check(slot, fill, &fields) || !inside {
        return Err(Error::corrupt(format!("the seal of its fill {fill} does not match its check")));
    }
    Ok(fields)
}

/// The index of a slot whose header says that it is sealed.
pub(super) fn read_index(mapping: &Mapping, slot: u32) -> Result<SlotIndex> {
    let fill = read_word(mapping.slot(slot))?.fill;
    let [_, offset, bytes, crc] = sealed_lengths(mapping, slot, fill)?;
    let at = mapping.at(mapping.header.slot_offset(slot) + offset, bytes);
    // SAFETY: inside the mapping; a sealed slot's index is not written to.
    let encoded = unsafe { std::slice::from_raw_parts(at, bytes as usize) };
    if u64::from(crc32c(encoded)) != crc {
        return Err(Error::corrupt("its checksum does not match"));
    }
    SlotIndex::decode(encoded).map_err(|error| Error::corrupt(format!("decoding it: {error}")))
}

/// Writes the index behind `data_bytes` of data and the seal's fields, for a slot that is Filling with `fill`.
pub(super) fn write_seal(
    mapping: &Mapping,
    slot: u32,
    fill: u64,
    index: &SlotIndex,
    data_bytes: u64,
) -> Result<()> {
    let encoded = index.encode_to_vec();
    let offset = data_bytes.next_multiple_of(64);
    let (bytes, room) = (encoded.len() as u64, mapping.header.slot_bytes);
    if offset.checked_add(bytes).is_none_or(|end| end > room) {
        return Err(Error::invalid(format!(
            "writing the index of {bytes} bytes behind {data_bytes} bytes of data: the slot holds {room}"
        )));
    }
    mapping.wait_slot(slot)?;
    let at = mapping.at(mapping.header.slot_offset(slot) + offset, bytes);
    // SAFETY: inside the mapping, and it has memory; only the owner of this fill writes to a Filling slot.
    unsafe { std::ptr::copy_nonoverlapping(encoded.as_ptr(), at, encoded.len()) };
    let header = mapping.slot(slot);
    let fields = [data_bytes, offset, bytes, u64::from(crc32c(&encoded))];
    let places = [&header.data_bytes, &header.index_offset, &header.index_bytes, &header.index_crc];
    for (place, field) in places.into_iter().zip(fields) {
        place.store(field, Ordering::Relaxed);
    }
    header.seal_check.store(check(slot, fill, &fields), Ordering::Relaxed);
    Ok(())
}
