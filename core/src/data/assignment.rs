//! Which shards of a dataset a rank holds: a pure function of what was registered and of the world's size, so that the
//! coordinator and every sidecar come to the same answer.

use crate::error::{Error, Result};
use crate::ids::{Rank, WorldSize};
use crate::proto::v1;
use crate::sharding::{DatasetKey, Order, Placement, Ring};

/// A larger world is a mistake: its ring alone would take gigabytes.
const LARGEST_WORLD: u32 = 1 << 20;

/// The map of one dataset over one world.
pub struct Assignment {
    spec: v1::DatasetSpec,
    world: WorldSize,
    map: Placement,
    /// Where each file begins, counted in samples.
    starts: Vec<u64>,
}

impl Assignment {
    /// Of a spec that the coordinator has taken. Fails with Invalid for a world without ranks, or with more than a million.
    pub fn new(spec: v1::DatasetSpec, world: WorldSize) -> Result<Assignment> {
        if world.0 == 0 || world.0 > LARGEST_WORLD {
            let doing = format!("taking the shards of dataset {:?}", spec.id);
            return Err(Error::invalid(format!(
                "{doing}: a world of {world} ranks, which may be 1 to {LARGEST_WORLD}"
            )));
        }
        let ring = Ring::new(&(0..world.0).map(Rank).collect::<Vec<_>>())?;
        let shards = spec.total_samples.div_ceil(spec.shard_size) as u32;
        let map = Placement::new(None, &ring, DatasetKey::new(&spec.id), shards);
        let starts = spec.files.iter().scan(0, |next, file| {
            let start = *next;
            *next += file.samples;
            Some(start)
        });
        let starts = starts.collect();
        Ok(Assignment { spec, world, map, starts })
    }

    /// In the order of the epoch, where the dataset is shuffled. Fails with Invalid for a rank outside of the world.
    pub fn shards(&self, rank: Rank, epoch: u64) -> Result<v1::GetShardsReply> {
        if rank.0 >= self.world.0 {
            return Err(Error::invalid(format!(
                "taking the shards of dataset {:?}: rank {rank} of a world of {}",
                self.spec.id, self.world
            ))
            .hint("ranks count from 0 to world_size - 1"));
        }
        let shards = match self.spec.shuffle {
            true => {
                self.map.epoch_shards(rank, &self.order(epoch)).into_iter().map(|id| self.shard(id)).collect()
            }
            false => self.map.shards_of(rank).iter().map(|id| self.shard(*id)).collect(),
        };
        Ok(v1::GetShardsReply { shards, dataset_version: self.spec.version, world_size: self.world.0 })
    }

    fn order(&self, epoch: u64) -> Order {
        let v1::DatasetSpec { version, seed, total_samples, shard_size, shuffle, .. } = self.spec;
        Order::new(version, seed, epoch, total_samples, shard_size, shuffle)
    }

    fn shard(&self, id: u32) -> v1::Shard {
        let id = u64::from(id);
        let start = id * self.spec.shard_size;
        let stop = (start + self.spec.shard_size).min(self.spec.total_samples);
        let first = self.starts.partition_point(|at| *at <= start).saturating_sub(1);
        let overlapping = (first..self.starts.len()).take_while(|file| self.starts[*file] < stop);
        let part = |file: usize| {
            let (at, end) = (self.starts[file], self.starts[file] + self.spec.files[file].samples);
            v1::ShardFile {
                path: self.spec.files[file].path.clone(),
                row_start: start.max(at) - at,
                row_stop: stop.min(end) - at,
            }
        };
        let files = overlapping.filter(|file| self.spec.files[*file].samples > 0).map(part);
        let files = files.filter(|file| file.row_start < file.row_stop).collect();
        v1::Shard { id, start, stop, files }
    }
}
