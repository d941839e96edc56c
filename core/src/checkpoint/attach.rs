//! Taking a prefix: OWNER, the proof that create-only is what it says, signs that a path is shared.

use bytes::Bytes;
use uuid::Uuid;

use super::parallel::each;
use super::store::Place;
use super::{Attached, Claimant, ListedStep, Surveyed, Takeover, commits};
use crate::error::{Doing, Error, Kind, Result};
use crate::format::{Owner, paths};
use crate::ids::{ClusterId, Generation, JobName, JobUuid, NodeId, Step};
use crate::storage::{Created, Store};

/// `known`: the job's identity, where a further target of it tells; else an OWNER that is not there yet draws one.
pub fn attach(
    place: &Place,
    cluster: ClusterId,
    takeover: Takeover,
    claimant: Claimant,
    known: Option<JobUuid>,
) -> Result<Attached> {
    let job_uuid = match owner(place) {
        Ok(None) => {
            place.objects.make_place()?;
            probe(place)?;
            found_ownership(place, cluster, takeover, claimant, known)?
        }
        Ok(Some(owner)) => {
            let job_uuid = join(place, owner, cluster, takeover, claimant)?;
            probe(place)?;
            job_uuid
        }
        Err(error) if error.kind == Kind::Corrupt => mend_owner(place, cluster, takeover, claimant, error)?,
        Err(error) => return Err(error),
    };
    let steps = commits::steps(place)?;
    let highest_generation = highest_generation(place, &steps)?;
    Ok(Attached { job_uuid, highest_generation, steps })
}

/// Takes a further target of a job that has its identity already, and lists it.
pub fn survey(
    place: &Place,
    cluster: ClusterId,
    job_uuid: JobUuid,
    takeover: Takeover,
    claimant: Claimant,
) -> Result<Surveyed> {
    let attached = attach(place, cluster, takeover, claimant, Some(job_uuid))?;
    if attached.job_uuid != job_uuid {
        return Err(Error::conflict(format!(
            "{} is that of another job: its uuid is {}, this job's {job_uuid}",
            place.objects.name_of(paths::OWNER),
            attached.job_uuid
        ))
        .hint("give the target a place of its own; or, if this job lost its first store, bring that store back empty"));
    }
    let committed = |of: &(Step, Generation)| {
        attached.steps.iter().any(|listed| {
            listed.step == of.0
                && listed.commit.as_ref().map_or(true, |commit| commit.record.generation == of.1)
        })
    };
    let mut uncommitted = attempts(place)?;
    uncommitted.retain(|of| !committed(of));
    Ok(Surveyed { steps: attached.steps, uncommitted })
}

/// Attempts of which there are objects.
fn attempts(place: &Place) -> Result<Vec<(Step, Generation)>> {
    let folders = place.objects.folders(paths::DATA)?;
    Ok(folders.iter().filter_map(|name| paths::attempt_of(&format!("{}/{name}/", paths::DATA))).collect())
}

pub fn owner(place: &Place) -> Result<Option<Owner>> {
    match place.read_to_decide(paths::OWNER) {
        Ok(bytes) => Owner::decode(&bytes).doing(|| place.objects.name_of(paths::OWNER)).map(Some),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Proves that the prefix is still the job's and, where it is known, the cluster's. A store that is not mounted, or was
/// moved, looks like an empty one: what is written there would be lost when it is back.
pub fn confirm(place: &Place, cluster: Option<ClusterId>, job_uuid: JobUuid) -> Result<()> {
    let name = || place.objects.name_of(paths::OWNER);
    let Some(owner) = owner(place)? else { return Err(gone(place)) };
    if owner.job_uuid != job_uuid {
        return Err(Error::conflict(format!(
            "{} is that of another job: its uuid is {}, this job's {job_uuid}",
            name(),
            owner.job_uuid
        ))
        .hint("is the right disk mounted there? a job whose checkpoints were removed goes on under another name"));
    }
    match cluster {
        Some(cluster) if cluster != owner.cluster => Err(foreign(place, owner, cluster)),
        _ => Ok(()),
    }
}

/// A damaged OWNER is there: [`attach`] tells what to do about it.
pub fn must_exist(place: &Place) -> Result<()> {
    match owner(place) {
        Ok(None) => Err(gone(place)),
        Err(error) if error.kind != Kind::Corrupt => Err(error),
        _ => Ok(()),
    }
}

fn gone(place: &Place) -> Error {
    Error::unavailable(format!("{} is not there any more", place.objects.name_of(paths::OWNER))).hint(
        "is the store mounted, and where it was? if its checkpoints were removed on purpose, use another job name (STRATA_JOB)",
    )
}

/// Several nodes come here at once: whoever creates OWNER draws the job's uuid, the others read it.
fn found_ownership(
    place: &Place,
    cluster: ClusterId,
    takeover: Takeover,
    claimant: Claimant,
    known: Option<JobUuid>,
) -> Result<JobUuid> {
    let job_uuid = known.unwrap_or_else(JobUuid::new);
    let drawn = Owner { cluster, job_uuid, uid: Some(claimant.uid()) };
    // Exists, or an answer that got lost: what is there tells.
    let created = place.objects.create(paths::OWNER, drawn.encode().into());
    match (owner(place)?, created) {
        (Some(owner), _) => join(place, owner, cluster, takeover, claimant),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(Error::unavailable(format!(
            "reading back {}: it is not there right after it was written",
            place.objects.name_of(paths::OWNER)
        ))),
    }
}

fn join(
    place: &Place,
    owner: Owner,
    cluster: ClusterId,
    takeover: Takeover,
    claimant: Claimant,
) -> Result<JobUuid> {
    check_user(place, owner.uid, claimant)?;
    match takeover {
        _ if owner.cluster == cluster => Ok(owner.job_uuid),
        Takeover::No => Err(foreign(place, owner, cluster)),
        Takeover::Yes => take_over(place, Owner { cluster, ..owner }),
    }
}

/// P9: whoever serves several users gives each their own jobs, the ended ones too. An OWNER of before users were told
/// apart leaves it to the folder.
fn check_user(place: &Place, uid: Option<u32>, claimant: Claimant) -> Result<()> {
    let Claimant::Served { uid: asking } = claimant else { return Ok(()) };
    let owner = match uid {
        Some(uid) => Some(uid),
        None => place.objects.place_uid()?,
    };
    let Some(owner) = owner.filter(|owner| *owner != asking && asking != 0) else { return Ok(()) };
    let way_out = match uid {
        Some(_) => format!("run as uid {owner}, or use another job name (STRATA_JOB)"),
        None => format!(
            "run as uid {owner}, use another job name (STRATA_JOB), or give it to this user with \"chown -R {asking} {}\"",
            place.objects.name_of("").trim_end_matches('/')
        ),
    };
    let message =
        format!("the job's checkpoints in {} belong to uid {owner}, this is uid {asking}", place.url);
    Err(Error::denied(message).hint(way_out))
}

fn foreign(place: &Place, owner: Owner, cluster: ClusterId) -> Error {
    Error::conflict(format!(
        "{} belongs to cluster {}, this is cluster {cluster}",
        place.objects.name_of(paths::OWNER),
        owner.cluster
    ))
    .hint(
        "use another store or job name; if that cluster is gone for good, --take-over-store takes its checkpoints over",
    )
}

fn take_over(place: &Place, owner: Owner) -> Result<JobUuid> {
    place.objects.replace(paths::OWNER, owner.encode().into())?;
    Ok(owner.job_uuid)
}

/// The job's uuid stands in every COMMIT too: with leave to take over, a damaged OWNER is written anew from there.
fn mend_owner(
    place: &Place,
    cluster: ClusterId,
    takeover: Takeover,
    claimant: Claimant,
    damage: Error,
) -> Result<JobUuid> {
    check_user(place, None, claimant)?;
    if takeover == Takeover::No {
        return Err(
            damage.hint("--take-over-store writes OWNER anew, with the job's identity from its checkpoints")
        );
    }
    let known = commits::steps(place)?.into_iter().rev().find_map(|step| step.commit.ok());
    let Some(commit) = known else {
        return Err(damage.hint("no committed step tells the job's identity: remove OWNER to begin anew"));
    };
    probe(place)?;
    // Whose it was stood in what is damaged.
    let uid = place.objects.place_uid()?;
    take_over(place, Owner { cluster, job_uuid: commit.record.job_uuid, uid })
}

/// Commits rest on a write that refuses to overwrite: a store that only says so is found out here.
fn probe(place: &Place) -> Result<()> {
    let path = format!("{}/create-only-{}", paths::PROBE, Uuid::new_v4());
    let outcome = try_overwriting(place, &path);
    let removed = place.objects.delete(std::slice::from_ref(&path));
    outcome.and(removed).doing(|| "testing the store's create-only writes")
}

fn try_overwriting(place: &Place, path: &str) -> Result<()> {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let what = place.objects.name_of(path);
    match place.objects.create(path, first.clone())? {
        Created::New => {}
        // A lost answer and a repeated request: the name was drawn at random, so the first one made it.
        Created::Exists => {}
    }
    let again = place.objects.create(path, second)?;
    let found = place.objects.read(path)?;
    if again == Created::Exists && found == first {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a create-only write to {what}, which existed, was accepted: this store can't keep two writers apart"
    ))
    .hint("use a store with conditional writes (S3's If-None-Match); some gateways need a setting for them"))
}

fn highest_generation(place: &Place, steps: &[ListedStep]) -> Result<Generation> {
    let mut highest = Generation(0);
    for commit in steps.iter().filter_map(|step| step.commit.as_ref().ok()) {
        highest = highest.max(commit.record.generation).max(commit.record.authority);
    }
    Ok(attempts(place)?.into_iter().map(|(_, generation)| generation).fold(highest, Generation::max))
}

pub fn leave_token(place: &Place, node: NodeId) -> Result<()> {
    place.objects.replace(&token(node), node.to_string().into())
}

pub fn sees_token(place: &Place, node: NodeId) -> Result<bool> {
    match place.objects.read(&token(node)) {
        Ok(found) => Ok(found == node.to_string().as_bytes()),
        Err(error) if error.kind == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub fn remove_token(place: &Place, node: NodeId) -> Result<()> {
    place.objects.delete(&[token(node)])
}

fn token(node: NodeId) -> String {
    format!("{}/node-{node}", paths::PROBE)
}

/// Folders of a store that hold an OWNER.
pub fn jobs(objects: &dyn Store, threads: usize) -> Result<Vec<JobName>> {
    let named: Vec<JobName> =
        objects.folders("")?.into_iter().filter_map(|folder| folder.parse().ok()).collect();
    let owned = each(threads, named, |job| match objects.read(&format!("{job}/{}", paths::OWNER)) {
        Ok(_) => Ok(Some(job)),
        Err(error) if error.kind == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    })?;
    let mut owned: Vec<JobName> = owned.into_iter().flatten().collect();
    owned.sort();
    Ok(owned)
}
