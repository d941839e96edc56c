//! Datasets and the assignment of their shards.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::super::state::{Command, DatasetRecord};
use super::{Engine, Reply, convert};
use crate::data::Assignment;
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, WorldSize};
use crate::proto::v1;

/// Maps kept at once; a map is a pure function of its key, so dropping one costs its making again.
const MAPS_KEPT: usize = 64;

/// Job, dataset and its version, ranks of the world.
type Key = (JobName, String, u64, u32);

#[derive(Default)]
pub struct Assignments {
    kept: HashMap<Key, Arc<Assignment>>,
}

impl Engine {
    pub fn register_dataset(&mut self, request: v1::RegisterDatasetRequest) -> Result<v1::DatasetSpec> {
        let job: JobName = request.job.parse()?;
        let spec =
            request.spec.ok_or_else(|| Error::invalid("registering a dataset: the spec is missing"))?;
        if let Ok(known) = self.state.job(&job) {
            known.check_token(&job, &request.token)?;
        }
        let mut record = convert::dataset(spec)?;
        let known = self.state.job(&job).ok().and_then(|known| known.datasets.get(&record.id));
        if let Some(known) = known {
            // What it was registered with stays its version, however that was reckoned.
            record.version = known.version;
        }
        let answer = convert::dataset_spec(&record);
        if known != Some(&record) {
            self.submit(Command::RegisterDataset { job, spec: Box::new(record) })?;
        }
        Ok(answer)
    }

    pub(super) fn dataset(&self, job: &str, id: &str) -> Result<(JobName, &DatasetRecord)> {
        let job: JobName = job.parse()?;
        let known = self.state.job(&job)?;
        let record = known.datasets.get(id).ok_or_else(|| {
            let names: Vec<&str> = known.datasets.keys().take(8).map(String::as_str).collect();
            Error::not_found(format!("looking up dataset {id:?} of job {job}: it is not registered")).hint(
                if names.is_empty() {
                    "register it first".to_owned()
                } else {
                    format!("registered: {}", names.join(", "))
                },
            )
        })?;
        Ok((job, record))
    }

    pub fn dataset_spec(&self, job: &str, id: &str) -> Result<v1::DatasetSpec> {
        self.dataset(job, id).map(|(_, record)| convert::dataset_spec(record))
    }

    pub fn datasets(&self, job: &str) -> Result<v1::ListDatasetsReply> {
        let job: JobName = job.parse()?;
        let datasets = self.state.job(&job)?.datasets.values().map(convert::dataset_spec).collect();
        Ok(v1::ListDatasetsReply { datasets, damaged: self.damaged(&job) })
    }

    /// The open generation, for a caller that gave no world size.
    pub fn world_of(&mut self, job: &str, reply: Reply<v1::Generation>) {
        match job.parse() {
            Ok(job) => self.wait_any_generation(job, reply),
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    /// The map of a dataset over the world that is asked for; P6: a caller of an older generation is refused.
    pub fn assignment_for(&mut self, request: &v1::GetShardsRequest) -> Result<Arc<Assignment>> {
        let (job, record) = self.dataset(&request.job, &request.dataset)?;
        let version = record.version;
        if request.generation > 0 {
            let fenced = self.state.job(&job)?.fence(&job, Generation(request.generation)).map(|_| ());
            if fenced.is_err() {
                self.metrics.calls_fenced.inc();
            }
            fenced?;
        }
        self.assignment((job, request.dataset.clone(), version, request.world_size))
    }

    fn assignment(&mut self, key: Key) -> Result<Arc<Assignment>> {
        let kept = &mut self.assignments.kept;
        if kept.len() >= MAPS_KEPT && !kept.contains_key(&key) {
            kept.clear();
        }
        match kept.entry(key) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(free) => {
                let (job, dataset, _, world) = free.key();
                let spec = convert::dataset_spec(&self.state.job(job)?.datasets[dataset]);
                let made = Arc::new(Assignment::new(spec, WorldSize(*world))?);
                Ok(free.insert(made).clone())
            }
        }
    }
}
