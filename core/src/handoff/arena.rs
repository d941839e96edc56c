//! An arena as the sidecar holds it: created, scanned, kept across trainers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::allocation;
use super::boot::boot_id;
use super::budget::Promise;
use super::header::{ArenaHeader, ArenaIdentity, IDENTITY_BYTES};
use super::huge;
use super::mapping::Mapping;
use super::slot::Slot;
use crate::error::{Doing, Error, Result};

/// One tmpfs file of slots. Cheap to clone; the mapping lives as long as any clone, slot or slot's bytes.
#[derive(Clone)]
pub struct Arena {
    pub(super) shared: Arc<ArenaShared>,
}

pub(super) struct ArenaShared {
    pub path: PathBuf,
    pub file: File,
    pub mapping: Arc<Mapping>,
    /// Held while this process writes or reads the first group of a slot's header.
    pub begin: Mutex<()>,
}

impl Arena {
    pub(super) fn new(path: PathBuf, file: File, mapping: Arc<Mapping>) -> Arena {
        Arena { shared: Arc::new(ArenaShared { path, file, mapping, begin: Mutex::new(()) }) }
    }

    /// Gives the file the memory it still lacks, on a thread of its own.
    pub(super) fn allocate_in_background(&self, promise: Promise) -> Result<()> {
        allocation::in_background(&self.shared, promise, huge::collapse)
    }

    /// Memory ran out while the file was given its own: what is Sealed in it is whole, nothing more can be begun.
    pub fn allocation_failed(&self) -> bool {
        self.shared.mapping.allocation_failed()
    }

    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    pub fn identity(&self) -> &ArenaIdentity {
        &self.shared.mapping.header.identity
    }

    pub fn slots(&self) -> u32 {
        self.shared.mapping.header.slots
    }

    /// What one slot holds: data and index.
    pub fn slot_bytes(&self) -> u64 {
        self.shared.mapping.header.slot_bytes
    }

    /// Bytes of tmpfs that the file takes.
    pub fn file_bytes(&self) -> u64 {
        self.shared.mapping.header.file_bytes()
    }

    /// `number` counts from 0 and is below [`Arena::slots`].
    pub fn slot(&self, number: u32) -> Slot {
        assert!(number < self.slots(), "slot {number} of {}", self.slots());
        Slot { arena: self.clone(), number }
    }

    pub fn all_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.slots()).map(|number| self.slot(number))
    }

    /// Removes the file's name. Its memory goes when the last process unmaps it, so what is Sealed in it can still be
    /// persisted through this value.
    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.shared.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.doing(|| format!("removing the arena {}", self.shared.path.display())),
        }
    }
}

/// What a file in the arena directory turned out to be.
pub(super) enum Opened {
    Arena(File, Arc<Mapping>),
    /// Left by an earlier boot: its bytes are not what was sealed.
    OldBoot,
}

/// Opens and checks an arena file. Corrupt when it is damaged or shorter than its header says.
pub(super) fn open_mapping(path: &Path) -> Result<Opened> {
    let doing = || format!("opening the arena {}", path.display());
    let file = File::options().read(true).write(true).open(path).doing(doing)?;
    let mut page = [0; IDENTITY_BYTES];
    file.read_exact_at(&mut page, 0)
        .map_err(|error| Error::corrupt(format!("reading its header: {error}")))
        .doing(doing)?;
    let header = ArenaHeader::decode(&page).doing(doing)?;
    let length = file.metadata().doing(doing)?.len();
    if length != header.file_bytes() {
        return Err(Error::corrupt(format!(
            "{}: {length} bytes long, its header says {}",
            doing(),
            header.file_bytes()
        )));
    }
    if header.boot != boot_id()? {
        return Ok(Opened::OldBoot);
    }
    let mapping = Mapping::new(&file, header).doing(doing)?;
    Ok(Opened::Arena(file, mapping))
}
