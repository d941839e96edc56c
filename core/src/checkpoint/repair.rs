//! Rebuilding what another place of the job still has. Only objects that are missing, or not what was written, are written
//! anew, from bytes that were checked before, and are checked again afterwards; a good one is never touched.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use parking_lot::Mutex;

use super::copy::{add_bases, read_first_of, read_named, stopped, write_pack};
use super::extents::{Extents, PackExtents};
use super::objects::{decode_manifest, missing};
use super::parallel::each;
use super::store::Place;
use super::{Fault, Mended, Mending, RepairMode, Report, commits};
use crate::error::{Error, Kind, Result};
use crate::format::{CommitRecord, Owner, RankManifest, paths};
use crate::ids::Step;
use crate::storage::Created;

/// Which places a step is to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    /// Where there is a COMMIT of it, damaged or not.
    WithCommit,
    /// These, and the first place: somebody named the step.
    AndFirst,
}

type Progress<'a> = &'a (dyn Fn(&Report, &Report) + Sync);

/// A step of a job, and what has come of it so far.
struct Work<'a> {
    places: &'a [&'a Place],
    mode: RepairMode,
    faults: Vec<Fault>,
    stop: &'a AtomicBool,
}

enum Found {
    Good(Bytes, Box<CommitRecord>),
    Bad(Error),
    Absent,
}

/// NotFound when no place has the step; Conflict when they have different attempts of it.
pub fn repair(
    places: &[&Place],
    step: Step,
    holders: Holders,
    mode: RepairMode,
    progress: Progress<'_>,
    stop: &AtomicBool,
) -> Result<Mended> {
    let found = places.iter().map(|place| commit_of(place, step)).collect::<Result<Vec<_>>>()?;
    let mut work = Work { places, mode, faults: Vec::new(), stop };
    let Some((content, record)) = agreed(places, step, &found)? else {
        for (place, found) in places.iter().zip(&found) {
            if let Found::Bad(error) = found {
                let lost = Mending::Lost("no other place has it".to_owned());
                work.note(place, &paths::commit(step), error.message.clone(), lost);
            }
        }
        return Ok(Mended { faults: work.faults, read: Report::default() });
    };
    let is_holder = |number: usize, found: &Found| match found {
        Found::Absent => number == 0 && holders == Holders::AndFirst,
        _ => true,
    };
    let here: Vec<usize> = (0..places.len()).filter(|number| is_holder(*number, &found[*number])).collect();
    let manifests = work.manifests(&record, &here)?;
    let mut extents = Extents::of(&manifests)?;
    for number in &here {
        add_bases(places[*number], &record, &mut extents)?;
    }
    let read = work.packs(&extents, &here, progress)?;
    for number in here {
        work.commit(number, step, &found[number], &content)?;
    }
    Ok(Mended {
        faults: work.faults,
        read: Report { objects: read.objects + record.ranks.len() as u64 + 1, ..read },
    })
}

fn commit_of(place: &Place, step: Step) -> Result<Found> {
    match commits::content(place, step) {
        Ok((content, record)) => Ok(Found::Good(content, Box::new(record))),
        Err(error) => match error.kind {
            Kind::NotFound => Ok(Found::Absent),
            Kind::Corrupt => Ok(Found::Bad(error)),
            _ => Err(error),
        },
    }
}

/// The COMMIT that all good copies of it are; None: there are only damaged ones.
fn agreed(places: &[&Place], step: Step, found: &[Found]) -> Result<Option<(Bytes, CommitRecord)>> {
    let mut agreed: Option<(usize, &Bytes, &CommitRecord)> = None;
    for (number, found) in found.iter().enumerate() {
        let Found::Good(content, record) = found else { continue };
        match agreed {
            Some((other, known, _)) if known != content => {
                return Err(Error::conflict(format!(
                    "step {step} is one attempt in {} and another in {}",
                    places[other].url, places[number].url
                ))
                .hint("\"strata checkpoints rm\" removes the one that is not wanted"));
            }
            Some(_) => {}
            None => agreed = Some((number, content, record)),
        }
    }
    if agreed.is_none() && found.iter().all(|found| matches!(found, Found::Absent)) {
        return Err(Error::not_found(format!("step {step} is committed in none of the job's places"))
            .hint("\"strata checkpoints ls\" lists the steps that are"));
    }
    Ok(agreed.map(|(_, content, record)| (content.clone(), record.clone())))
}

impl Work<'_> {
    fn note(&mut self, place: &Place, path: &str, problem: String, mending: Mending) {
        self.faults.push(Fault {
            place: place.url.to_string(),
            object: place.objects.name_of(path),
            problem,
            mending,
        });
    }

    /// The manifests that any place still has; each holder gets those that it has not.
    fn manifests(
        &mut self,
        record: &CommitRecord,
        here: &[usize],
    ) -> Result<Vec<crate::proto::format::Manifest>> {
        let mut known = Vec::new();
        for named in &record.ranks {
            stopped(self.stop)?;
            let found: Vec<Result<Bytes>> =
                here.iter().map(|number| read_named(self.places[*number], record, named)).collect();
            let good = found.iter().find_map(|found| found.as_ref().ok().cloned());
            if let Some(content) = &good {
                known.push(decode_manifest(record, named, content, &named.path)?);
            }
            for (number, found) in here.iter().zip(found) {
                let Err(error) = found else { continue };
                if error.kind != Kind::Corrupt {
                    return Err(error);
                }
                let mending = match &good {
                    None => Mending::Lost("no other place has it".to_owned()),
                    Some(_) if self.mode == RepairMode::DryRun => Mending::Possible,
                    Some(content) => write_manifest(self.places[*number], record, named, content)?,
                };
                self.note(self.places[*number], &named.path, error.message, mending);
            }
        }
        Ok(known)
    }

    fn packs(&mut self, extents: &Extents, here: &[usize], progress: Progress<'_>) -> Result<Report> {
        let all: Vec<(&str, &PackExtents)> = extents.iter().collect();
        let bytes = all.iter().map(|(_, pack)| pack.bytes).sum::<u64>() * here.len() as u64;
        let total = Report { objects: (all.len() * here.len()) as u64, chunks: 0, bytes };
        let done = Mutex::new(Report::default());
        let read = |bytes: u64| {
            let mut done = done.lock();
            done.bytes += bytes;
            progress(&done, &total);
        };
        for (path, pack) in all {
            for number in here {
                let place = self.places[*number];
                let problem = problem_of(place, path, pack, &read, self.stop)?;
                done.lock().objects += 1;
                let Some(problem) = problem else { continue };
                // Its own good stretches first: they are the nearest.
                let others = here.iter().filter(|other| *other != number).map(|other| self.places[*other]);
                let sources: Vec<&Place> = [place].into_iter().chain(others).collect();
                let mending = self.mend_pack(&sources, path, pack)?;
                self.note(place, path, problem.message, mending);
            }
        }
        Ok(done.into_inner())
    }

    /// `sources`: the damaged place itself, then the others.
    fn mend_pack(&self, sources: &[&Place], path: &str, pack: &PackExtents) -> Result<Mending> {
        let place = sources[0];
        let outcome = match self.mode {
            RepairMode::DryRun => read_first_of(sources, path, pack, self.stop).map(|()| Mending::Possible),
            RepairMode::Write => {
                write_pack(sources, place, path, pack, &|_| (), self.stop).map(|()| Mending::Done)
            }
        };
        match outcome {
            Ok(Mending::Done) => match problem_of(place, path, pack, &|_| (), self.stop)? {
                None => Ok(Mending::Done),
                Some(problem) => {
                    Ok(Mending::Lost(format!("written anew it is damaged again: {}", problem.message)))
                }
            },
            Ok(other) => Ok(other),
            Err(error) if error.kind == Kind::Corrupt => Ok(Mending::Lost(error.message)),
            Err(error) => Err(error),
        }
    }

    /// Last, and only where all that it names could be mended: whoever sees it finds that.
    fn commit(&mut self, number: usize, step: Step, found: &Found, content: &Bytes) -> Result<()> {
        let (place, path) = (self.places[number], paths::commit(step));
        let problem = match found {
            Found::Good(..) => return Ok(()),
            Found::Bad(error) => error.message.clone(),
            Found::Absent => format!("reading {}: it is missing", place.objects.name_of(&path)),
        };
        let url = place.url.to_string();
        let is_lost = |fault: &&Fault| fault.place == url && matches!(fault.mending, Mending::Lost(_));
        let lost = self.faults.iter().find(is_lost).map(|fault| fault.object.clone());
        let mending = match (found, lost) {
            // Nor a damaged one: a good COMMIT would call the step whole.
            (_, Some(lost)) => Mending::Lost(format!("{lost}, which it names, can't be rebuilt")),
            _ if self.mode == RepairMode::DryRun => Mending::Possible,
            (Found::Absent, None) => {
                commits::publish(place, &path, content)?;
                Mending::Done
            }
            _ => {
                place.objects.replace(&path, content.clone())?;
                match commits::content(place, step) {
                    Ok((now, _)) if now == *content => Mending::Done,
                    Ok(_) => Mending::Lost("it was written by somebody else meanwhile".to_owned()),
                    Err(error) => Mending::Lost(error.message),
                }
            }
        };
        self.note(place, &path, problem, mending);
        Ok(())
    }
}

fn write_manifest(
    place: &Place,
    record: &CommitRecord,
    named: &RankManifest,
    content: &Bytes,
) -> Result<Mending> {
    if place.objects.create(&named.path, content.clone())? == Created::Exists {
        place.objects.replace(&named.path, content.clone())?;
    }
    match read_named(place, record, named) {
        Ok(_) => Ok(Mending::Done),
        Err(error) if error.kind == Kind::Corrupt => Ok(Mending::Lost(error.message)),
        Err(error) => Err(error),
    }
}

/// What is wrong with a pack: it is missing, not as long as it was, or a chunk of it is not what was written. Reads all of
/// it that anybody refers to.
fn problem_of(
    place: &Place,
    path: &str,
    pack: &PackExtents,
    read: &(dyn Fn(u64) + Sync),
    stop: &AtomicBool,
) -> Result<Option<Error>> {
    let what = place.objects.name_of(path);
    let checked = place.objects.reader(path).map_err(|error| missing(error, &what)).and_then(|reader| {
        if reader.bytes() != pack.bytes {
            return Err(Error::corrupt(format!(
                "reading {what}: it has {} bytes and had {} when it was written",
                reader.bytes(),
                pack.bytes
            )));
        }
        each(place.threads, pack.stretches(), |stretch| {
            stopped(stop)?;
            let _room = place.buffers.take(stretch.bytes);
            stretch.read(&*reader, &what)?;
            read(stretch.bytes);
            Ok(())
        })
    });
    match checked {
        Ok(_) => Ok(None),
        Err(error) if error.kind == Kind::Corrupt => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// OWNER of each place: whose the job is. Absent is damage only where steps are.
pub fn repair_owners(places: &[&Place], mode: RepairMode) -> Result<Vec<Fault>> {
    let mut found = Vec::new();
    for place in places {
        let what = place.objects.name_of(paths::OWNER);
        found.push(match place.objects.read(paths::OWNER) {
            Ok(content) => Owner::decode(&content).map(|owner| Some((content, owner))),
            Err(error) if error.kind == Kind::NotFound && commits::steps(place)?.is_empty() => Ok(None),
            Err(error) if error.kind == Kind::NotFound => Err(missing(error, &what)),
            // The device refuses it: written anew it may be had again.
            Err(error) if error.kind == Kind::Corrupt => Err(error),
            Err(error) => return Err(error),
        });
    }
    let mut good = found.iter().filter_map(|found| found.as_ref().ok()?.as_ref());
    let known = good.next().cloned();
    if let Some((_, other)) =
        good.find(|(_, owner)| known.as_ref().is_some_and(|(_, first)| owner.job_uuid != first.job_uuid))
    {
        return Err(Error::conflict(format!("the places hold different jobs: one is {}", other.job_uuid)));
    }
    let mut faults = Vec::new();
    for (place, found) in places.iter().zip(found) {
        let Err(error) = found else { continue };
        let mending = match (&known, mode) {
            (None, _) => Mending::Lost("no other place has it".to_owned()),
            (_, RepairMode::DryRun) => Mending::Possible,
            (Some((content, owner)), RepairMode::Write) => {
                place.objects.replace(paths::OWNER, content.clone())?;
                let now = Owner::decode(&place.objects.read(paths::OWNER)?);
                match now.is_ok_and(|now| now == *owner) {
                    true => Mending::Done,
                    false => Mending::Lost("written anew it is damaged again".to_owned()),
                }
            }
        };
        let object = place.objects.name_of(paths::OWNER);
        faults.push(Fault { place: place.url.to_string(), object, problem: error.message, mending });
    }
    Ok(faults)
}
