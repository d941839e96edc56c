//! The jobs' places in their stores: which URL, claimed once per join for all ranks that join together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use super::settings::{SidecarSettings, TargetSettings};
use crate::checkpoint::{Attached, Claimant, JobStore, Takeover};
use crate::error::{Error, Result};
use crate::ids::{ClusterId, JobName, JobUuid};
use crate::proto::v1;
use crate::storage::{BufferBudget, Scheme, StoreOptions, StoreUrl, User};

/// For all tries of a claim.
const ATTACH: Duration = Duration::from_secs(20);

/// What is known of a place before it is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prior {
    Nothing,
    /// Steps were committed there. When it is not there it is not new: its disk may not be mounted.
    Steps,
    /// It is not there, or empty, and a further target knows which job it was.
    Job(JobUuid),
}

/// Of a job, a store, and the user whose rights reach it (None: this process's).
type Place = (JobName, String, Option<u32>);
type Claim = Shared<BoxFuture<'static, Result<Arc<Attached>>>>;

pub(super) struct Stores {
    options: StoreOptions,
    /// Memory of copies to further targets: a slow one must not hold what a save needs.
    copies: BufferBudget,
    takeover: Takeover,
    /// The store of trainers that name none.
    default: Option<String>,
    /// Root: a user's own choice of a directory is written to with that user's rights alone.
    is_root: bool,
    known: Mutex<HashMap<Place, Known>>,
    targets: Mutex<HashMap<Place, JobStore>>,
}

struct Known {
    store: JobStore,
    /// Under way; ranks of the same user that join meanwhile take its answer too.
    claim: Option<(Claimant, Claim)>,
}

impl Stores {
    pub fn new(settings: &SidecarSettings) -> Stores {
        let for_copies = if settings.targets.is_empty() { 0 } else { settings.memory_limit / 4 };
        Stores {
            copies: BufferBudget::new(for_copies),
            options: StoreOptions {
                buffers: BufferBudget::new(settings.memory_limit - for_copies),
                ..settings.store_options.clone()
            },
            takeover: settings.takeover,
            default: settings.store.clone(),
            is_root: rustix::process::geteuid().is_root(),
            known: Mutex::default(),
            targets: Mutex::default(),
        }
    }

    /// Argument > the sidecar's own. Invalid when there is neither, or it can't be read.
    pub fn resolve(&self, given: &str) -> Result<StoreUrl> {
        let named = Some(given).filter(|given| !given.is_empty()).or(self.default.as_deref());
        let named = named.ok_or_else(|| {
            Error::invalid("finding the store: neither the trainer nor its sidecar names one").hint(
                "set STRATA_STORE to a directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, or [store] url \
                 in the configuration",
            )
        })?;
        if !given.is_empty() && !given.contains("://") && !given.starts_with('/') {
            return Err(Error::invalid(format!(
                "reading the store {given:?}: a relative path means another directory to the sidecar"
            ))
            .hint("give it as an absolute path"));
        }
        named.parse()
    }

    /// Memory held for persisting and restoring.
    pub fn buffers_in_use(&self) -> u64 {
        self.options.buffers.in_use() + self.copies.in_use()
    }

    /// A directory that a user names is theirs to reach; the sidecar's own store is root's to offer to all.
    fn rights(&self, url: &StoreUrl, uid: u32) -> Option<u32> {
        let is_own = self.default.as_ref().and_then(|own| own.parse::<StoreUrl>().ok()).as_ref() == Some(url);
        let is_users = self.is_root && uid != 0 && !is_own && matches!(url.scheme(), Scheme::Local(_));
        is_users.then_some(uid)
    }

    /// The job's place for a user; reads nothing of the store.
    pub fn open(&self, url: &StoreUrl, job: &JobName, uid: u32) -> Result<JobStore> {
        let rights = self.rights(url, uid);
        let place = (job.clone(), url.to_string(), rights);
        if let Some(known) = self.known.lock().get(&place) {
            return Ok(known.store.clone());
        }
        let mut store = JobStore::open(url, &self.options, job)?;
        if let Some(uid) = rights {
            store = store.with_rights_of(User::look_up(uid));
        }
        let mut known = self.known.lock();
        let known = known.entry(place).or_insert(Known { store, claim: None });
        Ok(known.store.clone())
    }

    /// A further target's place of a job: this process's own to reach.
    pub fn target(&self, target: &TargetSettings, job: &JobName) -> Result<JobStore> {
        let place = (job.clone(), target.url.to_string(), None);
        let mut known = self.targets.lock();
        if let Some(store) = known.get(&place) {
            return Ok(store.clone());
        }
        let options = StoreOptions { buffers: self.copies.clone(), ..target.options.clone() };
        let store = JobStore::open(&target.url, &options, job)?;
        known.insert(place, store.clone());
        Ok(store)
    }

    /// Claims the prefix for the cluster and lists what it holds. Unavailable when the store does not answer within
    /// `patience`; the claim goes on for others then.
    pub async fn attach(
        &self,
        url: &StoreUrl,
        job: &JobName,
        cluster: ClusterId,
        prior: Prior,
        claimant: Claimant,
        patience: Duration,
    ) -> Result<Arc<Attached>> {
        let store = self.open(url, job, claimant.uid())?;
        let place = (job.clone(), url.to_string(), self.rights(url, claimant.uid()));
        let claim = {
            let mut known = self.known.lock();
            let known = known.get_mut(&place).expect("opened above");
            // A finished claim lists what was there then: only one that is under way is shared.
            let open = known.claim.take().filter(|(by, claim)| *by == claimant && claim.peek().is_none());
            let open =
                open.unwrap_or_else(|| (claimant, claim(store, cluster, self.takeover, prior, claimant)));
            known.claim.insert(open).1.clone()
        };
        match tokio::time::timeout(patience, claim).await {
            Ok(attached) => attached,
            Err(_) => Err(silent(url, patience)),
        }
    }

    /// The job's place, proved to be still the job's and the cluster's: before every write and every restore, for a store
    /// may be unmounted, moved or taken over under a running job. Unavailable when it is not there.
    pub async fn confirmed(
        &self,
        url: &str,
        job: &JobName,
        cluster: Option<ClusterId>,
        uuid: JobUuid,
        uid: u32,
    ) -> Result<JobStore> {
        let store = self.open(&url.parse()?, job, uid)?;
        store.confirm(cluster, uuid).await?;
        Ok(store)
    }
}

fn silent(store: &StoreUrl, patience: Duration) -> Error {
    Error::unavailable(format!("attaching to the store {store}: no answer for {patience:?}"))
        .hint("is it reachable from this node? training can't start without its store")
}

fn claim(store: JobStore, cluster: ClusterId, takeover: Takeover, prior: Prior, claimant: Claimant) -> Claim {
    let work = async move {
        let attaching = async {
            if prior == Prior::Steps {
                store.must_exist().await?;
            }
            let known = match prior {
                Prior::Job(uuid) => Some(uuid),
                Prior::Nothing | Prior::Steps => None,
            };
            store.attach_as(cluster, takeover, claimant, known).await
        };
        match tokio::time::timeout(ATTACH, attaching).await {
            Ok(attached) => attached.map(Arc::new),
            Err(_) => Err(silent(store.url(), ATTACH)),
        }
    };
    // A task of its own: a caller that gives up must not stop it for the others.
    let task = tokio::spawn(work);
    let answer = async move {
        task.await.unwrap_or_else(|error| Err(Error::internal(format!("attaching to the store: {error}"))))
    };
    answer.boxed().shared()
}

/// As the coordinator is told. A step whose COMMIT is damaged exists: a restore of it must fail, not pass it over.
pub(super) fn findings(attached: &Attached) -> v1::StoreFindings {
    let step = |listed: &crate::checkpoint::ListedStep| match &listed.commit {
        Ok(commit) => commit.to_proto(),
        Err(error) => {
            tracing::error!("step {} is damaged: {error}", listed.step);
            v1::StepInfo { step: listed.step.0, ..Default::default() }
        }
    };
    v1::StoreFindings {
        job_uuid: attached.job_uuid.to_string(),
        highest_generation: attached.highest_generation.0,
        steps: attached.steps.iter().map(step).collect(),
    }
}
