//! A job's committed steps as its store has them: no sidecar, no coordinator. Reads only.

use std::collections::BTreeSet;
use std::time::Duration;

use super::interrupt::{Interrupt, block_on};
use crate::checkpoint::{Fault, Holders, Inspection, JobStore, ListedStep, Mended, RepairMode, Report};
use crate::error::{Error, Result};
use crate::ids::{JobName, Step};
use crate::storage::{StoreOptions, StoreUrl};

/// The store's own retries end sooner; this is for one that neither answers nor fails.
const LOOK_UP: Duration = Duration::from_secs(600);
/// Reading terabytes takes as long as it takes; whoever waits can interrupt it.
const READ_ALL: Duration = Duration::from_secs(30 * 86_400);

/// What lies under `<store>/<job>`. Calls block and ask the interrupt every 50 ms.
pub struct StoredJob(JobStore);

impl StoredJob {
    /// Reads nothing yet. Invalid for options that the store can't work with.
    pub fn open(url: &StoreUrl, options: &StoreOptions, job: &JobName) -> Result<StoredJob> {
        JobStore::open(url, options, job).map(StoredJob)
    }

    /// Every step that has a COMMIT, ascending; a damaged one is an error in its place, never an absent step.
    pub fn steps(&self, interrupt: &dyn Interrupt) -> Result<Vec<ListedStep>> {
        let doing = format!("listing the steps in {}", self.0.url());
        block_on(&doing, LOOK_UP, interrupt, self.0.steps())
    }

    /// Sizes and tensors; reads no tensor. NotFound for a step without a COMMIT, Corrupt for a damaged one.
    pub fn inspect(&self, step: Step, interrupt: &dyn Interrupt) -> Result<Inspection> {
        block_on(&format!("inspecting step {step}"), LOOK_UP, interrupt, self.0.inspect(step))
    }

    /// Reads every byte of a step and checks it; `progress` hears what has been read, and what there is. Corrupt, naming
    /// the object, at the first that is not what was written.
    pub fn verify(
        &self,
        step: Step,
        progress: impl Fn(&Report, &Report) + Send + Sync + 'static,
        interrupt: &dyn Interrupt,
    ) -> Result<Report> {
        let verified = self.0.verify(step, progress);
        block_on(&format!("verifying step {step}"), READ_ALL, interrupt, verified)
    }
}

/// All places of a job, to rebuild in each what the others still have.
pub struct RepairJob {
    first: JobStore,
    others: Vec<JobStore>,
}

impl RepairJob {
    /// Reads nothing yet. The first store, and at least one other.
    pub fn open(places: &[(StoreUrl, StoreOptions)], job: &JobName) -> Result<RepairJob> {
        let open = |(url, options): &(StoreUrl, StoreOptions)| JobStore::open(url, options, job);
        let mut places = places.iter().map(open).collect::<Result<Vec<_>>>()?.into_iter();
        let first = places.next().filter(|_| places.len() > 0);
        let first = first.ok_or_else(|| {
            Error::invalid(format!("repairing job {job}: there is no second place to rebuild from"))
                .hint("name one with --target, or in the configuration ([[store.target]])")
        })?;
        Ok(RepairJob { first, others: places.collect() })
    }

    /// Every step that has a COMMIT in any place, whole or damaged, ascending.
    pub fn steps(&self, interrupt: &dyn Interrupt) -> Result<Vec<Step>> {
        let mut all = BTreeSet::new();
        for place in [&self.first].into_iter().chain(&self.others) {
            let doing = format!("listing the steps in {}", place.url());
            let listed = block_on(&doing, LOOK_UP, interrupt, place.steps())?;
            all.extend(listed.into_iter().map(|listed| listed.step));
        }
        Ok(all.into_iter().collect())
    }

    /// As [`JobStore::repair`] does.
    pub fn repair(
        &self,
        step: Step,
        holders: Holders,
        mode: RepairMode,
        progress: impl Fn(&Report, &Report) + Send + Sync + 'static,
        interrupt: &dyn Interrupt,
    ) -> Result<Mended> {
        let repaired = self.first.repair(&self.others, step, holders, mode, progress);
        block_on(&format!("repairing step {step}"), READ_ALL, interrupt, repaired)
    }

    /// As [`JobStore::repair_owners`] does.
    pub fn repair_owners(&self, mode: RepairMode, interrupt: &dyn Interrupt) -> Result<Vec<Fault>> {
        block_on("repairing OWNER", LOOK_UP, interrupt, self.first.repair_owners(&self.others, mode))
    }
}
