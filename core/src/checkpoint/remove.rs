//! Removal: COMMIT first, then what no remaining step names. Whatever can't be read or listed stops it before the next
//! object is deleted (P4); made again, it goes on where it stopped.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::read_manifests;
use super::store::Place;
use super::{ListedStep, commits};
use crate::error::{Doing, Error, Kind, Result};
use crate::format::{manifest, paths};
use crate::ids::{Generation, Step};
use crate::proto::v1;

pub fn remove(place: &Place, order: &v1::RemoveStep) -> Result<u64> {
    let (step, generation) = (Step(order.step), Generation(order.generation));
    let own = delete_commit(place, step, generation, order.committed)?;
    let remaining = remaining(place, order, step)?;
    let named = named_by(place, &remaining)?;
    let mut doomed = doomed(place, &own, &remaining, &named)?;
    let committed = committed(&remaining);
    doomed.extend(superseded(place, &committed, &named)?);
    // Manifests last: until then they lead a repeated removal to what this one has not come to.
    let (manifests, packs): (Vec<_>, Vec<_>) =
        doomed.keys().cloned().partition(|path| path.ends_with(MANIFEST));
    place.objects.delete(&packs)?;
    place.objects.delete(&manifests)?;
    if order.committed {
        // Whoever saw the manifests before they went may have published it anew.
        delete_commit(place, step, generation, true)?;
    }
    let mut freed = doomed.values().sum::<u64>();
    for (step, _) in &committed {
        freed += sweep_commit(place, *step)?;
    }
    for (step, generation) in own.into_iter().chain(committed) {
        freed += place.objects.sweep(&paths::attempt_folder(step, generation))?;
    }
    Ok(freed)
}

/// Of a step that has its COMMIT, or has lost it: whoever is still writing one comes too late.
fn sweep_commit(place: &Place, step: Step) -> Result<u64> {
    let path = paths::commit(step);
    place.objects.sweep(path.rsplit_once('/').map_or("", |(folder, _)| folder))
}

const MANIFEST: &str = ".manifest";
/// Of a step whose COMMIT could not be read when the coordinator heard of it: nobody knows which attempt it was.
const UNKNOWN: Generation = Generation(0);

/// An attempt whose objects go.
type Own = (Step, Generation);

/// From here on the step does not exist (P1). Conflict when its number belongs to another attempt than the order says.
fn delete_commit(place: &Place, step: Step, generation: Generation, committed: bool) -> Result<Vec<Own>> {
    let found = match commits::commit(place, step) {
        Ok(commit) => Some(commit.record.generation),
        // There, and damaged: that it is to go is the order's word.
        Err(error) if error.kind == Kind::Corrupt && committed => Some(generation),
        Err(error) if error.kind == Kind::NotFound => None,
        Err(error) => return Err(error),
    };
    match found {
        Some(found) if committed && found != generation && generation != UNKNOWN => {
            return Err(Error::conflict(format!(
                "it was committed by generation {found}, not by generation {generation}"
            )));
        }
        Some(found) if !committed && found == generation => {
            return Err(Error::conflict(format!(
                "the attempt of generation {generation} is committed and was to be removed as abandoned"
            )));
        }
        _ if !committed => return Ok(vec![(step, generation)]),
        _ => {}
    }
    // Also one that is gone already: whoever deleted it may not have come to making that durable.
    let path = paths::commit(step);
    place.objects.delete(std::slice::from_ref(&path))?;
    sweep_commit(place, step)?;
    match found {
        Some(found) if found != UNKNOWN => Ok(vec![(step, found)]),
        _ if generation != UNKNOWN => Ok(vec![(step, generation)]),
        // No attempt at this number is open, says the coordinator: every folder of it is its own, or garbage.
        _ => attempts_at(place, step),
    }
}

fn attempts_at(place: &Place, step: Step) -> Result<Vec<Own>> {
    let folders = place.objects.folders(paths::DATA)?;
    let attempts = folders.iter().filter_map(|name| paths::attempt_of(&format!("{}/{name}/", paths::DATA)));
    Ok(attempts.filter(|(of, _)| *of == step).collect())
}

/// Every step that has a COMMIT, whether the coordinator knows of it or not. A damaged one stops the removal: nobody can
/// say what it names; so does one that the coordinator counts on and that is not there.
fn remaining(place: &Place, order: &v1::RemoveStep, step: Step) -> Result<Vec<ListedStep>> {
    let mut remaining = commits::steps(place)?;
    remaining.retain(|listed| listed.step != step || !order.committed);
    // A listing that lags may leave out what the coordinator counts on.
    let known = order.remaining.iter().copied().filter(|known| *known != order.step).map(Step);
    let unlisted = known.filter(|known| !remaining.iter().any(|listed| listed.step == *known)).collect();
    remaining.extend(commits::read_steps(place, unlisted)?);
    for known in order.remaining.iter().filter(|known| **known != order.step) {
        if !remaining.iter().any(|listed| listed.step.0 == *known) {
            return Err(Error::not_found(format!(
                "step {known}, which should remain, has no COMMIT in {}",
                place.objects.name_of(paths::STEPS)
            ))
            .hint(format!("if it was deleted by hand, remove it too: strata checkpoints rm {known}")));
        }
    }
    Ok(remaining)
}

/// Packs and manifests that remaining steps need.
fn named_by(place: &Place, remaining: &[ListedStep]) -> Result<BTreeSet<String>> {
    let mut named = BTreeSet::new();
    for listed in remaining {
        let doing = || format!("reading what step {} needs", listed.step);
        let record =
            listed.commit.as_ref().map(|commit| &commit.record).map_err(Clone::clone).doing(doing)?;
        named.extend(record.ranks.iter().map(|rank| rank.path.clone()));
        for manifest in read_manifests(place, record).doing(doing)? {
            named.extend(manifest.packs.into_iter().map(|pack| pack.path));
        }
    }
    Ok(named)
}

/// What goes, with its bytes: everything in the attempts' folders, and what their manifests name in the folders of bases
/// that were removed before, as far as nobody else names it.
fn doomed(
    place: &Place,
    attempts: &[Own],
    remaining: &[ListedStep],
    named: &BTreeSet<String>,
) -> Result<BTreeMap<String, u64>> {
    let mut own = Vec::new();
    for (step, generation) in attempts {
        own.extend(place.objects.list(&paths::attempt_folder(*step, *generation))?);
    }
    let mut doomed: BTreeMap<String, u64> = BTreeMap::new();
    for manifest in own.iter().filter(|object| object.path.ends_with(MANIFEST)) {
        let what = place.objects.name_of(&manifest.path);
        match place.objects.read(&manifest.path).and_then(|bytes| manifest::decode(&bytes, &what)) {
            Ok(manifest) => {
                doomed.extend(manifest.packs.into_iter().map(|pack| (pack.path, pack.bytes)));
            }
            // It leads nowhere any more: packs of older folders that it alone named stay behind.
            Err(error) if error.kind == Kind::Corrupt => {
                tracing::warn!(%error, "packs that this manifest named in other folders are not removed");
            }
            Err(error) => return Err(error),
        }
    }
    let foreign = |path: &String| !own.iter().any(|object| object.path == *path);
    // Freed bytes are counted once, by the removal that frees them.
    let mut gone = BTreeSet::new();
    for path in doomed.keys().filter(|path| foreign(path) && !named.contains(*path)) {
        match place.objects.reader(path) {
            Ok(_) => {}
            Err(error) if error.kind == Kind::NotFound => drop(gone.insert(path.clone())),
            Err(error) => return Err(error),
        }
    }
    doomed.extend(own.into_iter().map(|object| (object.path, object.bytes)));
    doomed.retain(|path, _| {
        let of = paths::attempt_of(path);
        !named.contains(path)
            && !gone.contains(path)
            && of.is_some_and(|of| !is_alive(of, attempts, remaining))
    });
    Ok(doomed)
}

/// Attempts whose COMMIT is there.
fn committed(remaining: &[ListedStep]) -> BTreeSet<Own> {
    let committed = |listed: &ListedStep| Some((listed.step, listed.commit.as_ref().ok()?.record.generation));
    remaining.iter().filter_map(committed).collect()
}

/// What a sidecar that was killed wrote for an attempt that another try of it then committed. Nothing that COMMIT does not
/// lead to can ever be named: a persist that is still at it comes too late.
fn superseded(
    place: &Place,
    committed: &BTreeSet<Own>,
    named: &BTreeSet<String>,
) -> Result<Vec<(String, u64)>> {
    let mut found = place.objects.list(paths::DATA)?;
    found.retain(|object| {
        let is_over = paths::attempt_of(&object.path).is_some_and(|of| committed.contains(&of));
        is_over && !named.contains(&object.path)
    });
    Ok(found.into_iter().map(|object| (object.path, object.bytes)).collect())
}

/// Another attempt that is committed, or may still be: only a folder whose step is gone, or one of these, is swept.
fn is_alive(of: Own, own: &[Own], remaining: &[ListedStep]) -> bool {
    !own.contains(&of)
        && remaining.iter().any(|listed| {
            listed.step == of.0 && listed.commit.as_ref().is_ok_and(|commit| commit.record.generation == of.1)
        })
}
