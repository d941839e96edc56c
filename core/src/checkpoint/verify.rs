//! Reading every byte of a step, as a restore of all its ranks would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::decode::{encoding, read_chunk, room};
use super::objects::{Packs, read_manifests};
use super::parallel::each;
use super::restore::check_whole;
use super::store::Place;
use super::{Report, commits};
use crate::error::{Error, Result};
use crate::format::Encoding;
use crate::ids::Step;
use crate::proto::format::Manifest;

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
    let chunks = chunks(&manifests)?;
    let packs: BTreeSet<&str> =
        manifests.iter().flat_map(|manifest| &manifest.packs).map(|pack| pack.path.as_str()).collect();
    let total = Report {
        objects: 1 + manifests.len() as u64 + packs.len() as u64,
        chunks: chunks.len() as u64,
        bytes: chunks.iter().map(|(manifest, number)| manifest.chunks[*number].bytes).sum(),
    };
    let done = Mutex::new(Report { objects: total.objects, ..Report::default() });
    progress(&done.lock(), &total);
    let open = Packs::new(&place.objects);
    each(place.threads, chunks, |(manifest, number)| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::cancelled("nobody waits for it any more"));
        }
        let chunk = &manifest.chunks[number];
        let _room = place.buffers.take(chunk.bytes + room(&encoding(chunk)?, chunk.bytes));
        let mut target = vec![0; chunk.bytes as usize];
        read_chunk(&open, manifest, number, &|_| None, &mut target)?;
        let mut done = done.lock();
        done.chunks += 1;
        done.bytes += chunk.bytes;
        progress(&done, &total);
        Ok(())
    })?;
    Ok(done.into_inner())
}

/// Each chunk once, and the manifest that it is read by. Ranks that share one agree on where it lies and on its sums, or
/// one of them is wrong: then each claim is read. What is rounded is each rank's own.
fn chunks(manifests: &[Manifest]) -> Result<Vec<(&Manifest, usize)>> {
    let mut claims = BTreeMap::new();
    let mut rounded = Vec::new();
    for manifest in manifests {
        for (number, chunk) in manifest.chunks.iter().enumerate() {
            if let Encoding::Rounded { .. } = encoding(chunk)? {
                rounded.push((manifest, number));
                continue;
            }
            let path = |pack: u32| manifest.packs[pack as usize].path.as_str();
            let base =
                chunk.base.map(|base| (path(base.pack), base.pack_offset, base.crc32c, base.stored_crc32c));
            let place = (path(chunk.pack), chunk.pack_offset, chunk.bytes, chunk.encoding, chunk.width);
            let claim = (place, chunk.crc32c, chunk.stored_crc32c, base);
            claims.insert(claim, (manifest, number));
        }
    }
    rounded.extend(claims.into_values());
    Ok(rounded)
}
