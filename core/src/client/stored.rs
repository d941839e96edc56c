//! A job's committed steps as its store has them: no sidecar, no coordinator. Reads only.

use std::time::Duration;

use super::interrupt::{Interrupt, block_on};
use crate::checkpoint::{Inspection, JobStore, ListedStep, Report};
use crate::error::Result;
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
