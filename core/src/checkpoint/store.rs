//! A job's place in a store: the engine's one public type. Each call runs on a thread that may block; what it does lies
//! in the file named after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Attached, Claimant, Commit, Copied, Durable, Fault, Holders, Inspection, ListedStep, Mended,
    PersistRequest, RankRestore, RepairMode, Report, Surveyed, Takeover, attach, commits, copy, inspect,
    persist, remove, repair, restore, verify,
};
use crate::error::{Doing, Error, Kind, Result};
use crate::format::Owner;
use crate::ids::{ClusterId, JobName, JobUuid, NodeId, Rank, Step, WorldSize};
use crate::pace::Pace;
use crate::proto::v1;
use crate::storage::{self, BufferBudget, Store, StoreOptions, StoreUrl, User};

/// What lies under `<store>/<job>`. Cheap to clone; needs no runtime of any kind.
#[derive(Clone)]
pub struct JobStore {
    shared: Arc<Place>,
}

/// What the files of this room work on.
pub(super) struct Place {
    pub job: JobName,
    pub url: StoreUrl,
    /// Narrowed to the job.
    pub objects: Arc<dyn Store>,
    /// Requests or disk writes in flight.
    pub threads: usize,
    pub buffers: BufferBudget,
    /// Whose rights every read and write has; None: this process's.
    pub user: Option<User>,
}

impl Place {
    /// A small object by which something is decided. A read that the device refuses (EIO, which a network file system
    /// gives for a server that is away, too) says nothing about what stands there: it is no damage, and is tried again.
    pub fn read_to_decide(&self, path: &str) -> Result<Bytes> {
        self.objects.read(path).map_err(|error| match error.kind {
            Kind::Corrupt => Error { kind: Kind::Unavailable, ..error },
            _ => error,
        })
    }

    /// On a thread that ends with its work.
    pub fn assume_user(&self) -> Result<()> {
        self.user.as_ref().map_or(Ok(()), User::assume)
    }
}

impl JobStore {
    /// Reaches for nothing yet. Invalid for options that the store can't work with.
    pub fn open(url: &StoreUrl, options: &StoreOptions, job: &JobName) -> Result<JobStore> {
        Ok(JobStore::over(storage::open(url, options, job.as_str())?, url, options, job))
    }

    /// Over a store that is already narrowed to the job.
    pub(super) fn over(
        objects: Arc<dyn Store>,
        url: &StoreUrl,
        options: &StoreOptions,
        job: &JobName,
    ) -> JobStore {
        JobStore {
            shared: Arc::new(Place {
                job: job.clone(),
                url: url.clone(),
                objects,
                threads: options.concurrency.max(1),
                buffers: options.buffers.clone(),
                user: None,
            }),
        }
    }

    /// The same place, reached with a user's rights: what is made there is theirs, and what they may not reach is Denied.
    pub fn with_rights_of(&self, user: User) -> JobStore {
        let place = &*self.shared;
        let shared = Place {
            job: place.job.clone(),
            url: place.url.clone(),
            objects: Arc::clone(&place.objects),
            threads: place.threads,
            buffers: place.buffers.clone(),
            user: Some(user),
        };
        JobStore { shared: Arc::new(shared) }
    }

    /// Jobs that have an OWNER in the store at `url`, in order.
    pub async fn jobs(url: &StoreUrl, options: &StoreOptions) -> Result<Vec<JobName>> {
        let (objects, threads) = (storage::open(url, options, "")?, options.concurrency.max(1));
        blocking(move || attach::jobs(&*objects, threads))
            .await
            .doing(|| format!("listing the jobs in {url}"))
    }

    pub fn job(&self) -> &JobName {
        &self.shared.job
    }

    /// Of the store, without the job.
    pub fn url(&self) -> &StoreUrl {
        &self.shared.url
    }

    /// Takes the prefix for `cluster`: creates OWNER, or finds the cluster in it. Conflict, naming
    /// `--take-over-store`, when another cluster owns it and `takeover` is No. Invalid for a store whose create-only
    /// write overwrites. Durable.
    /// Denied, naming both users, when it belongs to another one than a served claimant.
    pub async fn attach(
        &self,
        cluster: ClusterId,
        takeover: Takeover,
        claimant: Claimant,
    ) -> Result<Attached> {
        self.attach_as(cluster, takeover, claimant, None).await
    }

    /// The same; an OWNER that is not there yet is made for the job that `known` names: its first store was lost, and a
    /// further target of it was not.
    pub async fn attach_as(
        &self,
        cluster: ClusterId,
        takeover: Takeover,
        claimant: Claimant,
        known: Option<JobUuid>,
    ) -> Result<Attached> {
        let doing = format!("attaching to {} for job {}", self.url(), self.job());
        self.run(move |place| attach::attach(place, cluster, takeover, claimant, known)).await.doing(|| doing)
    }

    /// Takes the prefix as a further target of a job, and lists it. Conflict when it is another job's.
    pub async fn survey(
        &self,
        cluster: ClusterId,
        job_uuid: JobUuid,
        takeover: Takeover,
        claimant: Claimant,
    ) -> Result<Surveyed> {
        let doing = format!("listing {} for job {}", self.url(), self.job());
        let survey = move |place: &Place| attach::survey(place, cluster, job_uuid, takeover, claimant);
        self.run(survey).await.doing(|| doing)
    }

    /// Copies a committed step from another store of the job to this one: what it refers to as well, COMMIT last and
    /// create-only; every byte is checked while it is copied. Idempotent: what is here already is not copied again.
    /// `commit_blake3` names the attempt that is meant. Conflict when another one's COMMIT is here. Dropping the future
    /// stops it at the next piece. `wrote` hears of the bytes that this store has taken.
    pub async fn copy_from(
        &self,
        from: &JobStore,
        step: Step,
        commit_blake3: &str,
        wrote: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Copied> {
        let (from, meant) = (Arc::clone(&from.shared), commit_blake3.to_owned());
        let doing = format!("copying step {step} of job {} from {} to {}", self.job(), from.url, self.url());
        let stop = StopWhenDropped::default();
        let stopped = Arc::clone(&stop.0);
        self.run(move |to| copy::copy(&from, to, step, &meant, &wrote, &stopped)).await.doing(|| doing)
    }

    /// Who owns the prefix; None when nobody ever attached. Corrupt when OWNER is damaged.
    pub async fn owner(&self) -> Result<Option<Owner>> {
        self.run(attach::owner).await
    }

    /// Proves that the prefix is still what was attached to: to be asked before anything is written, for a store may be
    /// unmounted under a running job. Unavailable when OWNER is not there; Conflict when it is another job's or cluster's.
    /// One small read.
    pub async fn confirm(&self, cluster: Option<ClusterId>, job_uuid: JobUuid) -> Result<()> {
        let doing = format!("finding job {} in {}", self.job(), self.url());
        self.run(move |place| attach::confirm(place, cluster, job_uuid)).await.doing(|| doing)
    }

    /// Unavailable when nobody's OWNER is there: for a prefix that is known to have been taken.
    pub async fn must_exist(&self) -> Result<()> {
        let doing = format!("finding job {} in {}", self.job(), self.url());
        self.run(attach::must_exist).await.doing(|| doing)
    }

    /// Leaves a sign of this node in the store, for the others to look for: a path is shared if they see it.
    pub async fn leave_token(&self, node: NodeId) -> Result<()> {
        self.run(move |place| attach::leave_token(place, node)).await
    }

    /// Whether `node`'s sign is seen from here. False: what it calls its store is not this one.
    pub async fn sees_token(&self, node: NodeId) -> Result<bool> {
        self.run(move |place| attach::sees_token(place, node)).await
    }

    pub async fn remove_token(&self, node: NodeId) -> Result<()> {
        self.run(move |place| attach::remove_token(place, node)).await
    }

    /// Makes the ranks' slots durable: packs, then manifests. On an error nothing names what it wrote, and it may simply
    /// be called again. Corrupt when a slot changed meanwhile; Overloaded, with the numbers, when the store is full.
    /// Dropping the future stops it at the next chunk: until then it still reads the slots.
    pub async fn persist(&self, request: PersistRequest) -> Result<Vec<Durable>> {
        self.persist_at(Pace::hurried(), request).await
    }

    /// The same at a pace: what takes CPU yields to everybody else until that is hurried.
    pub async fn persist_at(&self, pace: Pace, request: PersistRequest) -> Result<Vec<Durable>> {
        let doing = format!("persisting {}", request.attempt);
        let stop = StopWhenDropped::default();
        let stopped = Arc::clone(&stop.0);
        self.run(move |place| persist::persist(place, &request, &pace, &stopped)).await.doing(|| doing)
    }

    /// Publishes a COMMIT create-only: `content` at `path` below the job. The same bytes already there: success; other
    /// bytes: Conflict. Atomic and durable.
    pub async fn publish(&self, path: &str, content: Bytes) -> Result<()> {
        let path = path.to_owned();
        self.run(move |place| commits::publish(place, &path, &content)).await
    }

    /// NotFound when the step is not committed; Corrupt when its COMMIT is damaged.
    pub async fn commit(&self, step: Step) -> Result<Commit> {
        self.run(move |place| commits::commit(place, step)).await
    }

    /// Every step that has a COMMIT, ascending. An incomplete listing is an error.
    pub async fn steps(&self) -> Result<Vec<ListedStep>> {
        self.run(commits::steps).await.doing(|| format!("listing the steps of job {}", self.job()))
    }

    /// What `rank` of `world_size` gets of a committed step; `only` is a glob over tensor names (`*`, `?`, `[…]`), empty:
    /// all. Reads manifests, no tensor yet. A step that only some ranks saved (`ranks=`) gives the others the lowest
    /// saved rank's state. Invalid at another world size than the saved one, unless one rank alone saved, or every
    /// tensor asked for is replicated.
    pub async fn open_step(
        &self,
        step: Step,
        rank: Rank,
        world_size: WorldSize,
        only: &str,
    ) -> Result<RankRestore> {
        let (place, only) = (Arc::clone(&self.shared), only.to_owned());
        blocking(move || {
            place.assume_user().and_then(|()| restore::open(&place, step, rank, world_size, &only))
        })
        .await
        .doing(|| format!("restoring step {step} for rank {rank}"))
    }

    /// Deletes COMMIT, then what no remaining step names; the freed bytes. Any failed read or listing stops it.
    /// Idempotent.
    pub async fn remove(&self, order: &v1::RemoveStep) -> Result<u64> {
        let order = order.clone();
        let doing = format!("removing step {} of job {}", order.step, self.job());
        self.run(move |place| remove::remove(place, &order)).await.doing(|| doing)
    }

    /// Reads every byte of a step; `progress` hears what has been read, and what there is in all. Dropping the future
    /// stops it.
    pub async fn verify(
        &self,
        step: Step,
        progress: impl Fn(&Report, &Report) + Send + Sync + 'static,
    ) -> Result<Report> {
        let stop = StopWhenDropped::default();
        let stopped = Arc::clone(&stop.0);
        self.run(move |place| verify::verify(place, step, &progress, &stopped))
            .await
            .doing(|| format!("verifying step {step}"))
    }

    /// Reads a step in this place and in `others` of the job, and rebuilds in each what is missing or damaged there and
    /// whole elsewhere. `progress` as in [`JobStore::verify`]. NotFound when none has the step; Conflict when they have
    /// different attempts of it. Dropping the future stops it.
    pub async fn repair(
        &self,
        others: &[JobStore],
        step: Step,
        holders: Holders,
        mode: RepairMode,
        progress: impl Fn(&Report, &Report) + Send + Sync + 'static,
    ) -> Result<Mended> {
        let others: Vec<Arc<Place>> = others.iter().map(|other| Arc::clone(&other.shared)).collect();
        let stop = StopWhenDropped::default();
        let stopped = Arc::clone(&stop.0);
        let work = move |place: &Place| {
            let all: Vec<&Place> = [place].into_iter().chain(others.iter().map(|other| &**other)).collect();
            repair::repair(&all, step, holders, mode, &progress, &stopped)
        };
        self.run(work).await.doing(|| format!("repairing step {step} of job {}", self.job()))
    }

    /// The same for OWNER.
    pub async fn repair_owners(&self, others: &[JobStore], mode: RepairMode) -> Result<Vec<Fault>> {
        let others: Vec<Arc<Place>> = others.iter().map(|other| Arc::clone(&other.shared)).collect();
        let work = move |place: &Place| {
            let all: Vec<&Place> = [place].into_iter().chain(others.iter().map(|other| &**other)).collect();
            repair::repair_owners(&all, mode)
        };
        self.run(work).await.doing(|| format!("repairing OWNER of job {}", self.job()))
    }

    /// Tensors and sizes, without reading data.
    pub async fn inspect(&self, step: Step) -> Result<Inspection> {
        self.run(move |place| inspect::inspect(place, step)).await.doing(|| format!("inspecting step {step}"))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = Arc::clone(&self.shared);
        blocking(move || place.assume_user().and_then(|()| work(&place))).await
    }
}

/// Runs `work` on a thread of its own: disks and stores block for seconds, and a runtime's workers have timers to keep.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, outcome) = oneshot::channel();
    let worker = move || {
        // Nobody waits any more for a call that was given up.
        let _ = done.send(work());
    };
    std::thread::Builder::new()
        .name("strata-store".into())
        .spawn(worker)
        .doing(|| "starting a thread for the store")?;
    outcome.await.map_err(|_| Error::internal("the thread that worked on the store panicked"))?
}

/// Tells the thread of a long call that nobody waits for it any more.
#[derive(Default)]
struct StopWhenDropped(Arc<AtomicBool>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
