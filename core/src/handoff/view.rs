//! An arena as a trainer holds it: opened by the path that its sidecar named.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arena::{Opened, open_mapping};
use super::header::ArenaIdentity;
use super::mapping::{Mapping, populate};
use super::reader::SlotReader;
use super::slot::read_snapshot;
use super::state::SlotState;
use super::writer::SlotWriter;
use crate::error::{Doing, Error, Result};

/// The trainer's own mapping. Cheap to clone; lives as long as any writer or reader made from it.
#[derive(Clone)]
pub struct ArenaView {
    path: Arc<PathBuf>,
    file: Arc<File>,
    mapping: Arc<Mapping>,
}

impl ArenaView {
    /// Opens, checks and maps the file; touches none of its data pages. Denied when it belongs to another user,
    /// Corrupt when it is damaged.
    pub fn open(path: &Path) -> Result<ArenaView> {
        match open_mapping(path)? {
            Opened::Arena(file, mapping) => {
                Ok(ArenaView { path: Arc::new(path.to_owned()), file: Arc::new(file), mapping })
            }
            Opened::OldBoot => Err(Error::conflict(format!(
                "opening the arena {}: it was made before this machine's last boot",
                path.display()
            ))),
        }
    }

    #[cfg(test)]
    pub(super) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn identity(&self) -> &ArenaIdentity {
        &self.mapping.header.identity
    }

    pub fn slots(&self) -> u32 {
        self.mapping.header.slots
    }

    pub fn slot_bytes(&self) -> u64 {
        self.mapping.header.slot_bytes
    }

    /// Fills this process's page tables on a thread of its own, so that the first save does not pay for it
    /// (measured: the first copy through a fresh mapping takes 5 times as long as later ones). Without a thread it does.
    pub fn populate_in_background(&self) {
        if let Err(error) = self.mapping.populate_in_background() {
            tracing::warn!("the first save takes longer: {error}");
        }
    }

    /// The same before it returns, or as far as there is memory.
    pub fn populate(&self) {
        populate(&Arc::downgrade(&self.mapping));
    }

    /// Whether all pages of the slot have been touched by this process.
    pub fn is_populated(&self, slot: u32) -> bool {
        self.mapping.is_populated(slot)
    }

    /// Where the file lies in this process's memory, and its length, once it has all of its own: for a device's driver
    /// to register. Mapped as long as this view, or a clone of it, lives. Overloaded when memory ran out.
    pub fn memory(&self) -> Result<(*mut u8, u64)> {
        let bytes = self.mapping.header.file_bytes();
        self.mapping.wait_allocated(bytes).doing(|| format!("the arena {}", self.path.display()))?;
        Ok((self.mapping.at(0, bytes), bytes))
    }

    /// Whether nothing else in this process has the mapping.
    pub fn is_alone(&self) -> bool {
        Arc::strong_count(&self.mapping) == 1
    }

    /// A slot that the sidecar granted under the number `fill`. Conflict when it has passed on since.
    pub fn writer(&self, slot: u32, fill: u64) -> Result<SlotWriter> {
        let doing = || format!("opening slot {slot} of {} for writing", self.path.display());
        self.has(slot).doing(doing)?;
        let writer = SlotWriter::new(Arc::clone(&self.mapping), slot, fill);
        writer.check().doing(doing)?;
        Ok(writer)
    }

    /// A slot that the sidecar leased to this process: Sealed, Persisting or Clean, else Conflict.
    pub fn reader(&self, slot: u32) -> Result<SlotReader> {
        let doing = || format!("opening slot {slot} of {} for reading", self.path.display());
        self.has(slot).doing(doing)?;
        let snapshot = read_snapshot(&self.mapping, slot).doing(doing)?;
        if matches!(snapshot.state, SlotState::Free | SlotState::Filling) {
            return Err(Error::conflict(format!("{}: it is {}", doing(), snapshot.state)));
        }
        Ok(SlotReader::new(Arc::clone(&self.file), Arc::clone(&self.mapping), snapshot))
    }

    fn has(&self, slot: u32) -> Result<()> {
        if slot < self.slots() {
            return Ok(());
        }
        Err(Error::invalid(format!("the arena has {} slots", self.slots())))
    }
}
