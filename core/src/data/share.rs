//! One rank's share of a dataset: which samples it takes at which step, and the reader that has them.

use std::ops::Range;
use std::sync::Arc;

use super::prefetch::Prefetch;
use super::quarantine::{LeftOut, Quarantine, Readable};
use super::reader::Reader;
use super::rows::Rows;
use super::scan::OnDamage;
use super::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::ids::{Rank, WorldSize};
use crate::proto::v1;
use crate::sharding::{Consumption, Cursor, Order, Tail};

/// Threads may use it together. With a [`Cursor`] it says all about a batch.
pub struct Share {
    spec: DatasetSpec,
    rank: Rank,
    world: WorldSize,
    batch_size: u64,
    plan: Consumption,
    reader: Arc<Reader>,
    prefetch: Prefetch,
    quarantine: Quarantine,
}

/// What one rank takes of one global step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Positions of the epoch; may be empty at its end, and lie beyond it where the tail is padded.
    pub positions: Range<u64>,
    /// The sample at each position.
    pub indices: Vec<u64>,
    /// The samples.
    pub rows: Rows,
    /// How many of them are real; the rest is padding.
    pub weight: u64,
    /// Damaged files, samples of which stand at these positions and are not among the indices.
    pub left_out: Vec<LeftOut>,
    /// The global step this batch is part of. `at.advanced()` is what a save after this batch has consumed.
    pub at: Cursor,
}

impl Share {
    /// `batch_size` samples a step over all ranks. `on_damage` is for files that are found damaged from now on.
    ///
    /// Fails with Invalid where `rank` is outside its world or the batch is empty, and as [`Reader::new`] does.
    pub fn new(
        spec: DatasetSpec,
        rank: Rank,
        world: WorldSize,
        batch_size: u64,
        tail: Tail,
        on_damage: OnDamage,
    ) -> Result<Share> {
        Cursor::new(spec.id.as_str(), spec.version, 0, batch_size, world)?;
        if rank.0 >= world.0 {
            return Err(Error::invalid(format!("reading dataset {:?}: rank {rank} of {world}", spec.id)));
        }
        let (reader, plan) = (Arc::new(Reader::new(&spec)?), spec.consumption(tail));
        let (prefetch, quarantine) = (Prefetch::new(reader.clone()), Quarantine::new(on_damage));
        Ok(Share { spec, rank, world, batch_size, plan, reader, prefetch, quarantine })
    }

    /// Where this share goes on after `reached`, by whatever world and batch size that was; without it, where it begins.
    ///
    /// Fails with Conflict for a position in another dataset or in another version of it.
    pub fn cursor(&self, reached: Option<&v1::DataPosition>) -> Result<Cursor> {
        let Some(position) = reached else {
            return Cursor::new(self.spec.id.as_str(), self.spec.version, 0, self.batch_size, self.world);
        };
        let spec = &self.spec;
        if position.dataset != spec.id || position.version != spec.version {
            return Err(Error::conflict(format!(
                "resuming dataset {:?} version {:016x}: the position belongs to {:?} version {:016x}",
                spec.id, spec.version, position.dataset, position.version
            ))
            .hint("its files, counts, shard_size, seed or shuffle changed; restore them, or begin with a new id"));
        }
        // Where the epoch stands does not depend on the world that got there.
        let reached = Cursor::from_position(position, self.world)?;
        match reached.segment.batch == self.batch_size {
            true => Ok(reached),
            false => reached.resized(self.batch_size, self.world),
        }
    }

    pub fn spec(&self) -> &DatasetSpec {
        &self.spec
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// How the epoch is consumed: steps left, padding and dropped samples.
    pub fn consumption(&self) -> &Consumption {
        &self.plan
    }

    pub fn is_over(&self, cursor: &Cursor) -> bool {
        self.plan.step(cursor).is_none()
    }

    /// This rank's batch at `cursor`, in this order of the cursor's epoch; `None` at the epoch's end. Blocking.
    pub fn read(&self, cursor: &Cursor, order: &Order) -> Result<Option<Batch>> {
        let Some(slice) = self.plan.slice(cursor, self.rank) else { return Ok(None) };
        let following = || self.spec.order(cursor.epoch + 1);
        let is_left_out = |file| self.quarantine.has(file);
        self.prefetch.reading(order, cursor.epoch, slice.positions.start, following, is_left_out);
        let wanted = self.plan.samples_at(order, &slice.positions);
        let Readable { samples, rows, missing, left_out } = self.quarantine.read(&self.reader, &wanted)?;
        let weight = slice.weight - missing.range(..slice.weight as usize).count() as u64;
        let (positions, at) = (slice.positions, cursor.clone());
        Ok(Some(Batch { positions, indices: samples, rows, weight, left_out, at }))
    }
}
