//! The job's store, as all nodes see it: COMMITs by step, create-only, and manifests by attempt.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Kind, Result};
use crate::format::CommitRecord;
use crate::ids::{Generation, Rank, Step};
use crate::proto::v1;

#[derive(Default)]
pub struct Store {
    commits: BTreeMap<Step, CommitRecord>,
    manifests: BTreeSet<(Step, Generation, Rank)>,
    /// Attempts that somebody wrote, and was lost with his machine before he could say so: nobody knows of their objects.
    untold: BTreeSet<(Step, Generation)>,
    /// COMMITs on their way.
    writes: BTreeMap<u64, Step>,
    begun: u64,
}

impl Store {
    pub fn put_manifest(&mut self, step: Step, generation: Generation, rank: Rank) {
        self.manifests.insert((step, generation, rank));
    }

    pub fn will_not_be_told(&mut self, step: Step, generation: Generation) {
        self.untold.insert((step, generation));
    }

    /// Attempts of which there are objects that somebody knows, or should know.
    pub fn attempts(&self) -> BTreeSet<(Step, Generation)> {
        let all = self.manifests.iter().map(|(step, generation, _)| (*step, *generation));
        all.filter(|attempt| !self.untold.contains(attempt)).collect()
    }

    /// The temporary of a COMMIT is there, and not yet its name.
    pub fn begin(&mut self, step: Step) -> u64 {
        self.begun += 1;
        self.writes.insert(self.begun, step);
        self.begun
    }

    /// Create-only, and of what is there alone. P1: it all is, unless the step's fate was told before (`is_late`).
    pub fn publish(&mut self, write: u64, order: &v1::WriteCommit, is_late: bool) -> Result<()> {
        if self.writes.remove(&write).is_none() {
            return Err(Error::unavailable("its temporary was swept away"));
        }
        let record = CommitRecord::decode(&order.content).expect("the coordinator's bytes");
        assert_eq!((record.step.0, record.generation.0), (order.step, order.generation));
        match self.commits.get(&record.step) {
            Some(there) if *there == record => Ok(()),
            Some(there) => Err(Error::conflict(format!("generation {} has it", there.generation))),
            None if is_late && !self.is_whole(&record) => {
                Err(Error::corrupt("what it names is gone: the step was removed"))
            }
            None => {
                assert!(self.is_whole(&record), "P1: the COMMIT of {} precedes what it names", record.step);
                self.commits.insert(record.step, record);
                Ok(())
            }
        }
    }

    pub fn commit(&self, step: Step) -> Option<&CommitRecord> {
        self.commits.get(&step)
    }

    pub fn commits(&self) -> impl Iterator<Item = &CommitRecord> {
        self.commits.values()
    }

    pub fn is_whole(&self, record: &CommitRecord) -> bool {
        record
            .ranks
            .iter()
            .all(|named| self.manifests.contains(&(record.step, record.generation, named.rank)))
    }

    /// As `checkpoint::remove` does.
    pub fn remove(&mut self, order: &v1::RemoveStep) -> Result<()> {
        let (step, generation) = (Step(order.step), Generation(order.generation));
        let found = self.commits.get(&step).map(|record| record.generation);
        match found {
            // A step that another attempt committed, or an attempt given up that has a COMMIT all the same.
            Some(found) if order.committed == (found != generation) => {
                return Err(Error::conflict(format!("step {step} was committed by generation {found}")));
            }
            _ => {}
        }
        if order.committed {
            self.commits.remove(&step);
            self.writes.retain(|_, of| *of != step);
        }
        let lacks = |step: &&u64| **step != order.step && !self.commits.contains_key(&Step(**step));
        if let Some(step) = order.remaining.iter().find(lacks) {
            return Err(Error::new(Kind::NotFound, format!("step {step} should remain and has no COMMIT")));
        }
        self.manifests.retain(|(of, by, _)| (*of, *by) != (step, generation));
        Ok(())
    }
}
