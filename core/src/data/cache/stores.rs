//! The buckets that this process reads from, one client each.

use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::storage::{self, Store, StoreOptions, StoreUrl};

type Known = Vec<(StoreUrl, StoreOptions, Arc<dyn Store>)>;

/// With the process that they belong to: the connections of a parent are watched by its threads.
static KNOWN: Mutex<(u32, Known)> = Mutex::new((0, Vec::new()));

/// Reaches for nothing yet. Invalid for options that the store can't work with.
pub fn bucket(url: &StoreUrl, options: &StoreOptions) -> Result<Arc<dyn Store>> {
    let process = std::process::id();
    let mut known = KNOWN.lock();
    if known.0 != process {
        // Not dropped: that would take the parent's sockets out of the parent's event queue, which a forked child shares.
        mem::forget(mem::replace(&mut *known, (process, Vec::new())));
    }
    let same =
        |(bucket, like, _): &&(StoreUrl, StoreOptions, Arc<dyn Store>)| bucket == url && like == options;
    if let Some((.., store)) = known.1.iter().find(same) {
        return Ok(store.clone());
    }
    let store = storage::open(url, options, "")?;
    known.1.push((url.clone(), options.clone(), store.clone()));
    Ok(store)
}
