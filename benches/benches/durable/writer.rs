//! The writer alone, as a persist drives it: chunks summed, written, summed again; file and directory fsynced.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use strata_core::storage::{Piece, StoreOptions, StoreUrl, crc32c, open};

use crate::table::Figure;

const CHUNK: usize = 4 << 20;

/// A new object of these bytes, removed afterwards.
pub fn write(folder: &Path, options: &StoreOptions, bytes: &Bytes) -> Figure {
    let url = StoreUrl::local(folder).expect("a temporary directory has an absolute path");
    let store = open(&url, options, "writer").expect("a directory needs no options");
    store.make_place().expect("the directory is ours");
    let figure = Figure::of(|| {
        let started = std::time::Instant::now();
        let writer = store.writer("pack", bytes.len() as u64).expect("the disk takes a file");
        let next = AtomicUsize::new(0);
        let append = || {
            loop {
                let start = next.fetch_add(CHUNK, Ordering::Relaxed);
                if start >= bytes.len() {
                    return;
                }
                let bytes = bytes.slice(start..bytes.len().min(start + CHUNK));
                writer.append(Piece { crc32c: crc32c(&bytes), bytes }).expect("the disk has room");
            }
        };
        std::thread::scope(|scope| (0..options.concurrency).for_each(|_| drop(scope.spawn(append))));
        writer.finish().expect("the disk takes it");
        started.elapsed()
    });
    store.delete(&["pack".into()]).expect("it was just written");
    figure
}
