//! The arena files that this process has mapped.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use parking_lot::Mutex;

use crate::error::{Doing, Result};
use crate::handoff::ArenaView;

/// The newest file is kept mapped; an older one lives as long as a writer or reader of it.
#[derive(Default)]
pub(super) struct Arenas {
    newest: Mutex<Option<Mapped>>,
}

struct Mapped {
    view: ArenaView,
    inode: u64,
}

impl Arenas {
    /// The mapping of the file at `path`, which becomes the newest.
    pub fn use_file(&self, path: &Path) -> Result<ArenaView> {
        // A path may be used again for another file.
        let inode = std::fs::metadata(path).doing(|| format!("opening the arena {}", path.display()))?.ino();
        let mut newest = self.newest.lock();
        if let Some(known) = newest.as_ref().filter(|known| known.inode == inode && known.view.path() == path)
        {
            return Ok(known.view.clone());
        }
        let view = ArenaView::open(path)?;
        *newest = Some(Mapped { view: view.clone(), inode });
        Ok(view)
    }
}
