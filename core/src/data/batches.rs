//! One rank's batches: order, consumption and reader put together, resumable from a cursor.

use std::ops::Range;

use super::format::Format;
use super::reader::Reader;
use super::rows::Rows;
use super::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::ids::Rank;
use crate::sharding::{Consumption, Cursor, Order, Tail};

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
    /// The global step this batch is part of. `at.advanced()` is what a save after this batch has consumed.
    pub at: Cursor,
}

/// The batches of one rank from a cursor to the epoch's end; [`Batches::next_epoch`] goes on. Every rank yields the
/// same number of batches. Blocking; safe to use without the interpreter lock.
pub struct Batches {
    spec: DatasetSpec,
    rank: Rank,
    plan: Consumption,
    cursor: Cursor,
    order: Order,
    reader: Reader,
}

impl Batches {
    /// Starts at `cursor`, a new one or that of a COMMIT.
    ///
    /// Fails with Conflict where the cursor belongs to another dataset or another version of it, Invalid where `rank`
    /// is outside its world, and as [`Reader::new`] does.
    pub fn new(spec: DatasetSpec, rank: Rank, cursor: Cursor, tail: Tail) -> Result<Batches> {
        if cursor.dataset != spec.id || cursor.version != spec.version {
            return Err(Error::conflict(format!(
                "resuming dataset {:?} version {:016x}: the position belongs to {:?} version {:016x}",
                spec.id, spec.version, cursor.dataset, cursor.version
            ))
            .hint("its files, counts, shard_size, seed or shuffle changed; restore them, or begin with a new id"));
        }
        if rank.0 >= cursor.segment.world.0 {
            return Err(Error::invalid(format!(
                "reading dataset {:?}: rank {rank} of {}",
                spec.id, cursor.segment.world
            )));
        }
        let reader = Reader::new(&spec)?;
        let (order, plan) = (spec.order(cursor.epoch), spec.consumption(tail));
        Ok(Batches { spec, rank, plan, cursor, order, reader })
    }

    /// The next batch, or `None` at the epoch's end. After an error the same batch is tried again.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        let Some(slice) = self.plan.slice(&self.cursor, self.rank) else { return Ok(None) };
        let indices = self.plan.samples_at(&self.order, &slice.positions);
        let rows = self.reader.read(&indices)?;
        let next = self.cursor.advanced();
        let at = std::mem::replace(&mut self.cursor, next);
        Ok(Some(Batch { positions: slice.positions, indices, rows, weight: slice.weight, at }))
    }

    /// Goes to the beginning of the next epoch.
    pub fn next_epoch(&mut self) {
        self.cursor = self.cursor.next_epoch();
        self.order = self.spec.order(self.cursor.epoch);
    }

    /// Where the next batch will be taken from.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The format with all filled in that was found in the files.
    pub fn format(&self) -> &Format {
        self.reader.format()
    }

    pub fn spec(&self) -> &DatasetSpec {
        &self.spec
    }

    /// How the epoch is consumed: steps left, padding and dropped samples.
    pub fn consumption(&self) -> &Consumption {
        &self.plan
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        self.next_batch().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::data::{Dtype, Format, OnDamage, resolve};
    use crate::error::Kind;
    use crate::ids::WorldSize;

    /// 101 samples of two uint16: the sample's number, and its number plus 1000.
    fn dataset() -> (TempDir, DatasetSpec) {
        let folder = TempDir::new().unwrap();
        for (name, samples) in [("a.bin", 0..40u16), ("b.bin", 40..101)] {
            let bytes: Vec<u8> = samples.flat_map(|n| [n, n + 1000]).flat_map(u16::to_le_bytes).collect();
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let format = Format::Tokens { dtype: Dtype::Uint16, sample_len: 2 };
        let spec = DatasetSpec { shuffle: true, seed: 5, ..DatasetSpec::new("d", folder.path(), format, 7) };
        (folder, resolve(spec, OnDamage::Raise).unwrap().0)
    }

    fn start(spec: &DatasetSpec, world: u32) -> Cursor {
        Cursor::new(&spec.id, spec.version, 0, 10, WorldSize(world)).unwrap()
    }

    fn batches(spec: &DatasetSpec, rank: u32, cursor: Cursor) -> Batches {
        Batches::new(spec.clone(), Rank(rank), cursor, Tail::Short).unwrap()
    }

    /// Checks the bytes against the indices, and counts how often each sample comes.
    fn tally(seen: &mut BTreeMap<u64, u32>, batch: &Batch) {
        let Rows::Fixed(bytes) = &batch.rows else { panic!("tokens have one size") };
        assert_eq!(bytes.len(), batch.indices.len() * 4);
        for (index, sample) in batch.indices.iter().zip(bytes.chunks(4)) {
            let items = [0, 2].map(|at| u64::from(u16::from_le_bytes([sample[at], sample[at + 1]])));
            assert_eq!(items, [*index, *index + 1000]);
            *seen.entry(*index).or_default() += 1;
        }
    }

    fn each_once() -> BTreeMap<u64, u32> {
        (0..101).map(|sample| (sample, 1)).collect()
    }

    #[test]
    fn p8_all_ranks_together_read_every_sample_once_an_epoch() {
        let (_folder, spec) = dataset();
        let mut ranks: Vec<Batches> = (0..3).map(|rank| batches(&spec, rank, start(&spec, 3))).collect();
        let mut orders = Vec::new();
        for _epoch in 0..2 {
            let (mut seen, mut order, mut steps) = (BTreeMap::new(), Vec::new(), Vec::new());
            for rank in &mut ranks {
                let taken: Vec<Batch> = rank.by_ref().collect::<Result<_>>().unwrap();
                taken.iter().for_each(|batch| tally(&mut seen, batch));
                order.extend(taken.iter().flat_map(|batch| batch.indices.clone()));
                steps.push(taken.len());
                rank.next_epoch();
            }
            assert_eq!(seen, each_once());
            assert_eq!(steps, [11, 11, 11], "ranks step together, also where the last slice is empty");
            orders.push(order);
        }
        assert_ne!(orders[0], orders[1]);
    }

    #[test]
    fn p8_a_resumed_job_replays_identically_and_may_change_its_world() {
        let (_folder, spec) = dataset();
        let mut seen = BTreeMap::new();
        let mut committed = start(&spec, 2);
        for rank in 0..2 {
            let mut uninterrupted = batches(&spec, rank, start(&spec, 2));
            for _ in 0..4 {
                let batch = uninterrupted.next_batch().unwrap().unwrap();
                tally(&mut seen, &batch);
                committed = batch.at.advanced();
            }
            let rest: Vec<Batch> = uninterrupted.collect::<Result<_>>().unwrap();
            let resumed: Vec<Batch> = batches(&spec, rank, committed.clone()).collect::<Result<_>>().unwrap();
            assert_eq!(rest, resumed);
        }
        let resized = committed.resized(16, WorldSize(5)).unwrap();
        for rank in 0..5 {
            for batch in batches(&spec, rank, resized.clone()) {
                tally(&mut seen, &batch.unwrap());
            }
        }
        assert_eq!(seen, each_once());
    }

    #[test]
    fn a_batch_that_can_not_be_read_is_not_skipped() {
        let (folder, spec) = dataset();
        let mut one = batches(&spec, 0, start(&spec, 1));
        let whole = fs::read(folder.path().join("b.bin")).unwrap();
        fs::write(folder.path().join("b.bin"), b"").unwrap();
        let error = loop {
            match one.next_batch() {
                Ok(batch) => assert!(batch.is_some(), "an epoch without b.bin ended"),
                Err(error) => break error,
            }
        };
        assert!(error.kind == Kind::Corrupt && error.message.contains("b.bin"), "{error}");
        let at = one.cursor().clone();
        fs::write(folder.path().join("b.bin"), whole).unwrap();
        assert_eq!(one.next_batch().unwrap().unwrap().at, at);
    }

    #[test]
    fn a_position_in_another_version_is_refused() {
        let (_folder, spec) = dataset();
        let other = DatasetSpec { version: spec.version ^ 1, ..spec.clone() };
        let error = Batches::new(other, Rank(0), start(&spec, 1), Tail::Short).err().unwrap();
        assert_eq!(error.kind, Kind::Conflict);
        let outside = Batches::new(spec.clone(), Rank(1), start(&spec, 1), Tail::Short).err().unwrap();
        assert_eq!(outside.kind, Kind::Invalid);
    }
}
