//! COMMITs: published create-only, read, listed. A step exists if and only if its COMMIT does (P1).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::objects::missing;
use super::parallel::each;
use super::store::Place;
use super::{Commit, ListedStep};
use crate::error::{Doing, Error, Kind, Result};
use crate::format::{CommitRecord, manifest, paths};
use crate::ids::Step;
use crate::storage::Created;

/// The coordinator sends the order again after a failure: these only spare it a round.
const TRIES: usize = 3;
/// Between two looks for a manifest.
const SEEN: Duration = Duration::from_millis(500);

/// A write whose answer got lost may have happened: it is made again, and finds its own bytes.
pub fn publish(place: &Place, path: &str, content: &Bytes) -> Result<()> {
    let step = paths::commit_step(path)
        .ok_or_else(|| Error::invalid(format!("publishing {path:?}: it is no COMMIT's name")))?;
    let doing = || format!("publishing the COMMIT of step {step}");
    names_what_is_there(place, content).doing(doing)?;
    let mut last = None;
    for _ in 0..TRIES {
        match place.objects.create(path, content.clone()) {
            Ok(Created::New) => return Ok(()),
            Ok(Created::Exists) => match place.read_to_decide(path) {
                Ok(found) if found == *content => return Ok(()),
                Ok(found) => return Err(taken(place, path, &found)).doing(doing),
                Err(error) => last = Some(error),
            },
            Err(error) => last = Some(error),
        }
        let unknown =
            matches!(last, Some(Error { kind: Kind::Unavailable | Kind::Timeout | Kind::NotFound, .. }));
        if !unknown {
            break;
        }
    }
    Err(last.expect("every way round the loop that does not return leaves an error")).doing(doing)
}

/// An order that was held up until its step had been removed would bring back the COMMIT of nothing (P1). One manifest
/// tells: a removal takes them all, and looks for a COMMIT once more behind that. Corrupt when it is gone.
fn names_what_is_there(place: &Place, content: &[u8]) -> Result<()> {
    let record = CommitRecord::decode(content)?;
    let Some(named) = record.ranks.first() else { return Ok(()) };
    for again in [true, true, false] {
        match place.objects.reader(&named.path) {
            Ok(_) => return Ok(()),
            // What another node has just written may take a moment to be seen here.
            Err(error) if error.kind == Kind::NotFound && again => std::thread::sleep(SEEN),
            Err(error) => return Err(missing(error, &place.objects.name_of(&named.path))),
        }
    }
    unreachable!("the last look returns")
}

pub fn taken(place: &Place, path: &str, found: &[u8]) -> Error {
    let what = place.objects.name_of(path);
    match CommitRecord::decode(found) {
        Ok(other) => Error::conflict(format!(
            "{what} exists, written by generation {} for its attempt of generation {}",
            other.authority, other.generation
        )),
        Err(damage) => Error::corrupt(format!("{what} exists and is damaged: {}", damage.message)),
    }
}

pub fn commit(place: &Place, step: Step) -> Result<Commit> {
    let path = paths::commit(step);
    let bytes = read(place, step, &path)?;
    decode(place, step, &path, &bytes)
}

fn read(place: &Place, step: Step, path: &str) -> Result<Bytes> {
    place.objects.read(path).map_err(|error| match error.kind {
        Kind::NotFound => {
            Error::not_found(format!("step {step} of job {} is not committed in {}", place.job, place.url))
                .hint("\"strata checkpoints ls\" lists the steps that are")
        }
        _ => error,
    })
}

/// A COMMIT as it lies there, and what it says.
pub fn content(place: &Place, step: Step) -> Result<(Bytes, CommitRecord)> {
    let path = paths::commit(step);
    let bytes = read(place, step, &path)?;
    let record = decode(place, step, &path, &bytes)?.record;
    Ok((bytes, record))
}

pub fn decode(place: &Place, step: Step, path: &str, bytes: &[u8]) -> Result<Commit> {
    let what = || place.objects.name_of(path);
    let record = CommitRecord::decode(bytes).doing(what)?;
    if record.step != step || record.job != place.job {
        return Err(Error::corrupt(format!(
            "{}: it is the COMMIT of step {} of job {}",
            what(),
            record.step,
            record.job
        )));
    }
    Ok(Commit { record, blake3: manifest::hash(bytes) })
}

/// Every step whose COMMIT is there. A listing only says where to look: some stores' lag behind what is written and deleted,
/// so a COMMIT is looked for also where only its attempt's folder is seen, and is there if it can be read.
pub fn steps(place: &Place) -> Result<Vec<ListedStep>> {
    let listed = place.objects.list(paths::STEPS)?;
    let mut numbers: BTreeSet<Step> =
        listed.iter().filter_map(|object| paths::commit_step(&object.path)).collect();
    let attempts = place.objects.folders(paths::DATA)?;
    numbers.extend(attempts.iter().filter_map(|folder| {
        let (step, _) = paths::attempt_of(&format!("{}/{folder}/", paths::DATA))?;
        Some(step)
    }));
    read_steps(place, numbers)
}

/// Those of these numbers that are committed, ascending.
pub fn read_steps(place: &Place, numbers: BTreeSet<Step>) -> Result<Vec<ListedStep>> {
    let read = each(place.threads, numbers.into_iter().collect(), |step| match commit(place, step) {
        Ok(commit) => Ok(Some(ListedStep { step, commit: Ok(commit) })),
        // Removed since it was listed.
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        // Damaged, or of a newer version: the step exists.
        Err(error) if matches!(error.kind, Kind::Corrupt | Kind::Invalid) => {
            Ok(Some(ListedStep { step, commit: Err(error) }))
        }
        Err(error) => Err(error),
    })?;
    Ok(read.into_iter().flatten().collect())
}
