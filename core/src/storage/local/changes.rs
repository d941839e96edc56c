//! Every change that a local store makes to its disk, said before and after it is made. In a build it is made and that is
//! all; in tests a watcher of the store's directory may record it, or let it fail.

use std::path::Path;

use rustix::io::Errno;

/// One system call that changes what is on the disk.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "only watchers look into it"))]
pub enum Change<'a> {
    MakeFolder(&'a Path),
    RemoveFolder(&'a Path),
    /// Makes durable which names it holds.
    SyncFolder(&'a Path),
    Create(&'a Path),
    /// Anything that changes its bytes or its length.
    Write(&'a Path),
    Sync(&'a Path),
    /// Over a file of that name, where there is one.
    Rename(&'a Path, &'a Path),
    Link(&'a Path, &'a Path),
    Unlink(&'a Path),
}

#[cfg(not(test))]
#[inline]
pub fn change<T, E: From<Errno>>(_: Change<'_>, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    make()
}

#[cfg(test)]
pub use watched::{Watcher, change, watch};

#[cfg(test)]
mod watched {
    use std::path::PathBuf;
    use std::sync::{Arc, Weak};

    use parking_lot::Mutex;

    use super::*;

    /// Of the changes below one directory, by whatever thread.
    pub trait Watcher: Send + Sync {
        fn before(&self, change: Change<'_>) -> Result<(), Errno>;
        /// It succeeded.
        fn after(&self, change: Change<'_>);
    }

    /// Tests run side by side: each watches its own directory.
    static WATCHERS: Mutex<Vec<(PathBuf, Weak<dyn Watcher>)>> = Mutex::new(Vec::new());

    /// For as long as the watcher lives.
    pub fn watch(root: &Path, watcher: &Arc<dyn Watcher>) {
        let mut watchers = WATCHERS.lock();
        watchers.retain(|(_, watcher)| watcher.strong_count() > 0);
        watchers.push((root.to_owned(), Arc::downgrade(watcher)));
    }

    pub fn change<T, E: From<Errno>>(
        change: Change<'_>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(watcher) = watcher_of(change) else { return make() };
        watcher.before(change)?;
        let made = make()?;
        watcher.after(change);
        Ok(made)
    }

    fn watcher_of(change: Change<'_>) -> Option<Arc<dyn Watcher>> {
        let (Change::MakeFolder(path)
        | Change::RemoveFolder(path)
        | Change::SyncFolder(path)
        | Change::Create(path)
        | Change::Write(path)
        | Change::Sync(path)
        | Change::Rename(path, _)
        | Change::Link(path, _)
        | Change::Unlink(path)) = change;
        WATCHERS.lock().iter().find(|(root, _)| path.starts_with(root)).and_then(|(_, found)| found.upgrade())
    }
}
