//! A committed step from one place to another: the same objects under the same names, every byte checked on the way,
//! COMMIT last and create-only. Made again after a death it goes on with the object that was not finished.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use super::extents::{Extents, PIECE, PackExtents, Stretch};
use super::objects::{decode_manifest, missing, read_manifests};
use super::parallel::each;
use super::store::Place;
use super::{Commit, Copied, commits};
use crate::error::{Doing, Error, Kind, Result};
use crate::format::{CommitRecord, RankManifest, manifest, paths};
use crate::ids::Step;
use crate::proto::format::Manifest;
use crate::storage::{BufferBudget, Created, Piece, Reader, crc32c};

/// Packs on their way at once.
const STREAMS: usize = 2;
/// Memory of one of them, at least: a part that gathers in the writer, a piece being read, one that waits, and what is on its
/// way to the place; where there is more they share it, and one more piece is read at once for each of so many bytes.
const STREAM: u64 = 32 << 20;

/// Hears of bytes that a place has taken.
pub type Wrote<'a> = &'a (dyn Fn(u64) + Sync);

/// `commit_blake3`: of the attempt that is meant; empty: whichever is there. Conflict when another one is there, in either
/// place; Corrupt, naming the object, when what is to be copied is damaged.
pub fn copy(
    from: &Place,
    to: &Place,
    step: Step,
    commit_blake3: &str,
    wrote: Wrote<'_>,
    stop: &AtomicBool,
) -> Result<Copied> {
    let (content, record) = with_rights_of(from, || commits::content(from, step))?;
    if !commit_blake3.is_empty() && manifest::hash(&content) != commit_blake3 {
        let what = from.objects.name_of(&paths::commit(step));
        return Err(Error::conflict(format!("{what} is that of another attempt than the one to copy")));
    }
    let mut copied =
        Copied { commit: Commit { blake3: manifest::hash(&content), record: record.clone() }, bytes: 0 };
    if is_there(to, step, &content)? && is_whole(to, &record)? {
        return Ok(copied);
    }
    let (manifests, extents) = with_rights_of(from, || {
        let manifests = read_manifests(from, &record)?;
        let mut extents = Extents::of(&manifests)?;
        add_bases(from, &record, &mut extents)?;
        Ok((manifests, extents))
    })?;
    let bytes = AtomicU64::new(0);
    each(STREAMS, extents.iter().collect(), |(path, pack)| {
        if has(to, path, pack.bytes)? {
            return Ok(());
        }
        write_pack(&[from], to, path, pack, wrote, stop)?;
        bytes.fetch_add(pack.bytes, Ordering::Relaxed);
        Ok(())
    })?;
    each(STREAMS, record.ranks.iter().collect(), |named| {
        let content = with_rights_of(from, || read_named(from, &record, named))?;
        put_manifest(to, named, &content)
    })?;
    copied.bytes = bytes.into_inner();
    stopped(stop)?;
    commits::publish(to, &paths::commit(step), &content)?;
    still_whole(to, &record, &manifests, step)?;
    Ok(copied)
}

pub fn stopped(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::cancelled("nobody waits for it any more")),
        false => Ok(()),
    }
}

/// On a thread of its own where the place has other rights than the caller's.
pub fn with_rights_of<T: Send>(place: &Place, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if place.user.is_none() {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| place.assume_user().and_then(|()| work()));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this very COMMIT is there.
fn is_there(to: &Place, step: Step, content: &Bytes) -> Result<bool> {
    match to.read_to_decide(&paths::commit(step)) {
        Ok(found) if found == *content => Ok(true),
        Ok(found) => Err(commits::taken(to, &paths::commit(step), &found)),
        Err(error) if error.kind == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Packs of older steps hold chunks of theirs too: as long as such a step is there, its manifests have their sums. Where it
/// is not, nobody will ever read them.
pub fn add_bases(from: &Place, record: &CommitRecord, extents: &mut Extents) -> Result<()> {
    let own = (record.step, record.generation);
    let mut bases: Vec<_> = extents.iter().filter_map(|(path, _)| paths::attempt_of(path)).collect();
    bases.retain(|of| *of != own);
    bases.sort();
    bases.dedup();
    for (step, generation) in bases {
        let manifests = commits::commit(from, step)
            .and_then(|base| match base.record.generation == generation {
                true => read_manifests(from, &base.record),
                false => Ok(Vec::new()),
            })
            .or_else(|error| match error.kind {
                // Removed, or damaged itself: then its own copy will say so.
                Kind::NotFound | Kind::Corrupt => Ok(Vec::new()),
                _ => Err(error),
            })?;
        manifests.iter().try_for_each(|manifest| extents.add(manifest))?;
    }
    Ok(())
}

/// Objects are seen only whole, and this one was checked while it was written; its length tells one that was cut since.
fn has(to: &Place, path: &str, bytes: u64) -> Result<bool> {
    match to.objects.reader(path) {
        Ok(reader) => Ok(reader.bytes() == bytes),
        Err(error) if error.kind == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a pack at its place, over what is there. Each stretch comes from the first of `sources` that has it as it was
/// written. Corrupt, naming it, when none has.
pub fn write_pack(
    sources: &[&Place],
    to: &Place,
    path: &str,
    pack: &PackExtents,
    wrote: Wrote<'_>,
    stop: &AtomicBool,
) -> Result<()> {
    let memory = STREAM.max(to.buffers.limit() / STREAMS as u64);
    let _room = to.buffers.take(memory);
    let (pieces_room, at_once) = (BufferBudget::new(memory), (memory / STREAM) as usize);
    let (stretches, writer) = (pack.stretches(), to.objects.rewriter(path, pack.bytes)?);
    let (send, pieces) = sync_channel::<Result<Bytes>>(1);
    let written: Result<u64> = std::thread::scope(|scope| {
        let read = || {
            let source = Sources::new(sources, path, pack.bytes);
            let read_one = |stretch: &Stretch| {
                stopped(stop)?;
                // Claims that overlap make a longer one; a part that gathers must leave room for it all the same.
                let room = pieces_room.take(stretch.bytes.min(PIECE));
                source.read(stretch).map(|piece| room.around(piece))
            };
            let sent = stretches.chunks(at_once).try_for_each(|batch| {
                let pieces = each(at_once, batch.iter().collect(), read_one);
                let pieces = pieces.inspect_err(|error| drop(send.send(Err(error.clone())))).ok()?;
                pieces.into_iter().try_for_each(|piece| send.send(Ok(piece)).ok())
            });
            // None: the writer knows why, or knows it first.
            drop((sent, send));
        };
        std::thread::Builder::new()
            .name("strata-copy".into())
            .spawn_scoped(scope, read)
            .doing(|| "starting a thread")?;
        let mut end = 0;
        for piece in pieces {
            let bytes = piece?;
            end = writer.append(Piece { crc32c: crc32c(&bytes), bytes: bytes.clone() })? + bytes.len() as u64;
            wrote(bytes.len() as u64);
        }
        Ok(end)
    });
    let name = || format!("copying to {}", to.objects.name_of(path));
    let end = written.doing(name)?;
    if end < pack.bytes {
        return Err(Error::internal(format!("{}: {end} of {} bytes were read", name(), pack.bytes)));
    }
    match writer.finish().doing(name)? {
        bytes if bytes == pack.bytes => Ok(()),
        bytes => Err(Error::internal(format!("{}: it has {bytes} bytes, not {}", name(), pack.bytes))),
    }
}

/// Whether each stretch is somewhere as it was written. Corrupt, naming it, at the first that is not.
pub fn read_first_of(sources: &[&Place], path: &str, pack: &PackExtents, stop: &AtomicBool) -> Result<()> {
    let sources_of_it = Sources::new(sources, path, pack.bytes);
    for stretch in pack.stretches() {
        stopped(stop)?;
        let _room = sources[0].buffers.take(stretch.bytes);
        sources_of_it.read(&stretch)?;
    }
    Ok(())
}

/// Where a pack is looked for; read by any number of threads.
struct Sources<'a> {
    path: &'a str,
    /// Of the whole pack.
    bytes: u64,
    places: Vec<(&'a Place, OnceLock<Opened>)>,
}

/// A source's reader of the pack, or why it has none.
type Opened = Result<Box<dyn Reader>>;

impl<'a> Sources<'a> {
    fn new(places: &[&'a Place], path: &'a str, bytes: u64) -> Sources<'a> {
        let places = places.iter().map(|&place| (place, OnceLock::new())).collect();
        Sources { path, bytes, places }
    }

    /// From the first place that has it as it was written.
    fn read(&self, stretch: &Stretch) -> Result<Bytes> {
        let mut last = None;
        for (place, opened) in &self.places {
            let what = place.objects.name_of(self.path);
            let read = match opened.get_or_init(|| self.open(place, &what)) {
                Ok(reader) => stretch.read(&**reader, &what),
                Err(error) => Err(error.clone()),
            };
            match read {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind == Kind::Corrupt => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("copying from nowhere")))
    }

    fn open(&self, place: &Place, what: &str) -> Opened {
        with_rights_of(place, || {
            let reader = place.objects.reader(self.path).map_err(|error| missing(error, what))?;
            whole(&*reader, self.bytes, what)?;
            Ok(reader)
        })
    }
}

/// A place that is cut short can still give what lies before the cut.
fn whole(reader: &dyn Reader, bytes: u64, what: &str) -> Result<()> {
    match reader.bytes() {
        found if found <= bytes => Ok(()),
        found => Err(Error::corrupt(format!("reading {what}: it has {found} bytes and had {bytes}"))),
    }
}

/// A manifest's bytes, which are those that COMMIT names.
pub fn read_named(place: &Place, record: &CommitRecord, named: &RankManifest) -> Result<Bytes> {
    let what = place.objects.name_of(&named.path);
    let bytes = place.objects.read(&named.path).map_err(|error| missing(error, &what))?;
    decode_manifest(record, named, &bytes, &what)?;
    Ok(bytes)
}

/// What stands there with other bytes is not what COMMIT names: nobody can want it.
fn put_manifest(to: &Place, named: &RankManifest, content: &Bytes) -> Result<()> {
    if to.objects.create(&named.path, content.clone())? == Created::New {
        return Ok(());
    }
    match to.objects.read(&named.path) {
        Ok(found) if found == *content => Ok(()),
        Ok(_) => to.objects.replace(&named.path, content.clone()),
        Err(error) => Err(error),
    }
}

/// Whether all that a COMMIT which is there names is there as well, by its length: removals and copies of other steps share
/// packs with it.
fn is_whole(to: &Place, record: &CommitRecord) -> Result<bool> {
    match read_manifests(to, record) {
        Ok(manifests) => Ok(first_gone(to, record, &manifests)?.is_none()),
        Err(error) if error.kind == Kind::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

/// Somebody who took this step for removed may have deleted its objects while the last of them were copied: then it is not
/// there, and its COMMIT must not be either (P1).
fn still_whole(to: &Place, record: &CommitRecord, manifests: &[Manifest], step: Step) -> Result<()> {
    let Some(gone) = first_gone(to, record, manifests)? else { return Ok(()) };
    to.objects.delete(&[paths::commit(step)])?;
    Err(Error::unavailable(format!(
        "copying step {step}: {} was deleted while it was copied",
        to.objects.name_of(&gone)
    )))
}

/// An object of the step that is missing, or cut.
fn first_gone(to: &Place, record: &CommitRecord, manifests: &[Manifest]) -> Result<Option<String>> {
    let packs =
        manifests.iter().flat_map(|manifest| &manifest.packs).map(|pack| (pack.path.as_str(), pack.bytes));
    let named = record.ranks.iter().map(|named| (named.path.as_str(), named.bytes));
    let mut all: Vec<(&str, u64)> = packs.chain(named).collect();
    all.sort();
    all.dedup();
    let there = each(to.threads, all, |(path, bytes)| Ok(has(to, path, bytes)?.then_some(()).ok_or(path)))?;
    Ok(there.into_iter().find_map(std::result::Result::err).map(str::to_owned))
}
