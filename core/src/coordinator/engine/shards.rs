//! Datasets and the assignment of their shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::state::{Command, DatasetRecord};
use super::{Engine, Reply, convert};
use crate::error::{Error, Result};
use crate::ids::{Generation, JobName, Rank, WorldSize};
use crate::proto::v1;
use crate::sharding::{DatasetKey, Order, Placement, Ring};

/// Maps kept at once; a map is a pure function of its key, so dropping one costs its making again.
const MAPS_KEPT: usize = 64;

#[derive(Default)]
pub struct Placements {
    maps: BTreeMap<(JobName, String, u64, u32), Arc<Placement>>,
}

impl Engine {
    pub fn register_dataset(&mut self, request: v1::RegisterDatasetRequest) -> Result<v1::DatasetSpec> {
        let job: JobName = request.job.parse()?;
        let spec =
            request.spec.ok_or_else(|| Error::invalid("registering a dataset: the spec is missing"))?;
        if let Ok(known) = self.state.job(&job) {
            known.check_token(&job, &request.token)?;
        }
        let record = convert::dataset(spec);
        let known = self.state.job(&job).ok().and_then(|known| known.datasets.get(&record.id));
        let answer = convert::dataset_spec(&record);
        if known != Some(&record) {
            self.submit(Command::RegisterDataset { job, spec: Box::new(record) })?;
        }
        Ok(answer)
    }

    fn dataset(&self, job: &str, id: &str) -> Result<(JobName, &DatasetRecord)> {
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

    pub fn datasets(&self, job: &str) -> Result<Vec<v1::DatasetSpec>> {
        let job: JobName = job.parse()?;
        Ok(self.state.job(&job)?.datasets.values().map(convert::dataset_spec).collect())
    }

    /// The open generation, for a caller that gave no world size.
    pub fn world_of(&mut self, job: &str, reply: Reply<v1::Generation>) {
        match job.parse() {
            Ok(job) => self.wait_any_generation(job, reply),
            Err(error) => self.answer(reply, Err(error)),
        }
    }

    pub fn shards(&mut self, request: &v1::GetShardsRequest) -> Result<v1::GetShardsReply> {
        let (job, record) = self.dataset(&request.job, &request.dataset)?;
        let record = record.clone();
        if request.generation > 0 {
            let fenced = self.state.job(&job)?.fence(&job, Generation(request.generation)).map(|_| ());
            if fenced.is_err() {
                self.metrics.calls_fenced.inc();
            }
            fenced?;
        }
        let world = WorldSize(request.world_size);
        if request.rank >= world.0 {
            return Err(Error::invalid(format!(
                "taking the shards of dataset {:?}: rank {} of a world of {world}",
                record.id, request.rank
            ))
            .hint("ranks count from 0 to world_size - 1"));
        }
        self.metrics.shard_requests.inc();
        let map = self.placement(&job, &record, world)?;
        let order = Order::new(
            record.version,
            record.seed,
            request.epoch,
            record.total_samples,
            record.shard_size,
            record.shuffle,
        );
        let held = match record.shuffle {
            true => map.epoch_shards(Rank(request.rank), &order),
            false => map.shards_of(Rank(request.rank)).to_vec(),
        };
        let files = Files::new(&record);
        Ok(v1::GetShardsReply {
            shards: held.into_iter().map(|shard| files.shard(&record, u64::from(shard))).collect(),
            dataset_version: record.version,
            world_size: world.0,
        })
    }

    fn placement(
        &mut self,
        job: &JobName,
        record: &DatasetRecord,
        world: WorldSize,
    ) -> Result<Arc<Placement>> {
        let key = (job.clone(), record.id.clone(), record.version, world.0);
        if let Some(map) = self.placements.maps.get(&key) {
            return Ok(map.clone());
        }
        if self.placements.maps.len() >= MAPS_KEPT {
            self.placements.maps.clear();
        }
        let map = Arc::new(place(record, world)?);
        self.placements.maps.insert(key, map.clone());
        Ok(map)
    }
}

fn place(record: &DatasetRecord, world: WorldSize) -> Result<Placement> {
    let ring = Ring::new(&(0..world.0).map(Rank).collect::<Vec<_>>())?;
    Ok(Placement::new(None, &ring, DatasetKey::new(&record.id), record.shards()))
}

/// Where each file begins, counted in samples.
struct Files {
    starts: Vec<u64>,
}

impl Files {
    fn new(record: &DatasetRecord) -> Files {
        let starts = record.files.iter().scan(0, |next, file| {
            let start = *next;
            *next += file.samples;
            Some(start)
        });
        Files { starts: starts.collect() }
    }

    fn shard(&self, record: &DatasetRecord, id: u64) -> v1::Shard {
        let start = id * record.shard_size;
        let stop = (start + record.shard_size).min(record.total_samples);
        let first = self.starts.partition_point(|at| *at <= start).saturating_sub(1);
        let overlapping = (first..self.starts.len()).take_while(|file| self.starts[*file] < stop);
        let part = |file: usize| {
            let (at, end) = (self.starts[file], self.starts[file] + record.files[file].samples);
            v1::ShardFile {
                path: record.files[file].path.clone(),
                row_start: start.max(at) - at,
                row_stop: stop.min(end) - at,
            }
        };
        let files = overlapping.filter(|file| record.files[*file].samples > 0).map(part);
        let files = files.filter(|file| file.row_start < file.row_stop).collect();
        v1::Shard { id, start, stop, files }
    }
}
