//! Reading every byte of a step, as a restore of all its ranks would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::objects::{Packs, Sum, read_manifests};
use super::parallel::each;
use super::restore::check_whole;
use super::store::Place;
use super::{Report, commits};
use crate::error::{Error, Result};
use crate::ids::Step;
use crate::proto::format::Pack;

/// Corrupt, naming the object, at the first damage.
pub fn verify(
    place: &Place,
    step: Step,
    progress: &(dyn Fn(&Report, &Report) + Sync),
    stop: &AtomicBool,
) -> Result<Report> {
    let record = commits::commit(place, step)?.record;
    let manifests = read_manifests(place, &record)?;
    check_whole(&record, &manifests)?;
    // Ranks that share a chunk agree on its sum, or one of them is wrong: each claim is read.
    let mut chunks: BTreeMap<(&str, u64, u64, u32), &Pack> = BTreeMap::new();
    for manifest in &manifests {
        for chunk in &manifest.chunks {
            let pack = &manifest.packs[chunk.pack as usize];
            chunks.insert((&pack.path, chunk.pack_offset, chunk.bytes, chunk.crc32c), pack);
        }
    }
    let packs: std::collections::BTreeSet<&str> = chunks.keys().map(|(path, ..)| *path).collect();
    let total = Report {
        objects: 1 + manifests.len() as u64 + packs.len() as u64,
        chunks: chunks.len() as u64,
        bytes: chunks.keys().map(|(_, _, bytes, _)| bytes).sum(),
    };
    let done = Mutex::new(Report { objects: total.objects, ..Report::default() });
    progress(&done.lock(), &total);
    let open = Packs::new(&place.objects);
    each(place.threads, chunks.into_iter().collect(), |((_, offset, bytes, crc32c), pack)| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::cancelled("nobody waits for it any more"));
        }
        let _room = place.buffers.take(2 * bytes);
        let mut target = vec![0; bytes as usize];
        open.read(pack, Sum { offset, crc32c }, &mut target)?;
        let mut done = done.lock();
        done.chunks += 1;
        done.bytes += bytes;
        progress(&done, &total);
        Ok(())
    })?;
    Ok(done.into_inner())
}
