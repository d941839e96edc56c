//! Consumption: which positions of an epoch a global step owns, and which slice of them each rank takes.
//!
//! Step s of a segment owns B positions from the segment's start + s·B; ranks take floor/ceil slices of them, so
//! nothing has to divide anything. The cursor is the same on all ranks and goes into COMMIT beside the weights.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::order::Order;
use crate::error::{Error, Result};
use crate::ids::{Rank, WorldSize};

/// What happens where the epoch's last step has fewer than B samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tail {
    /// The last step is filled up with samples from the epoch's beginning, which weigh nothing.
    Pad,
    /// The last step is short: slices may be unequal or empty, and their weights say so.
    #[default]
    Short,
    /// The last step is left out.
    Drop,
}

/// A stretch of an epoch with one global batch size and one world size; a resize begins another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// First position of the epoch that belongs to it.
    pub start: u64,
    /// Samples of one global step over all ranks.
    pub batch: u64,
    pub world: WorldSize,
}

/// How far a job has consumed a dataset: what is committed, and where a resumed job goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub dataset: String,
    /// Of the dataset: a cursor means nothing in another version.
    pub version: u64,
    pub epoch: u64,
    /// Global steps consumed in this segment.
    pub step: u64,
    pub segment: Segment,
}

impl Cursor {
    /// The beginning of an epoch. Fails with Invalid for an empty batch or world.
    pub fn new(
        dataset: impl Into<String>,
        version: u64,
        epoch: u64,
        batch: u64,
        world: WorldSize,
    ) -> Result<Cursor> {
        let dataset = dataset.into();
        if batch == 0 || world.0 == 0 {
            return Err(Error::invalid(format!(
                "reading dataset {dataset:?}: a batch of {batch} samples over {world} ranks"
            ))
            .hint("batch_size counts the samples of one step over all ranks and is at least 1"));
        }
        Ok(Cursor { dataset, version, epoch, step: 0, segment: Segment { start: 0, batch, world } })
    }

    /// The first position of the epoch that has not been consumed; may lie beyond the epoch's end.
    pub fn position(&self) -> u64 {
        self.segment.start.saturating_add(self.step.saturating_mul(self.segment.batch))
    }

    /// After one more global step.
    #[must_use]
    pub fn advanced(&self) -> Cursor {
        self.skipped(1)
    }

    /// After so many more global steps, though the epoch may not have them.
    #[must_use]
    pub fn skipped(&self, steps: u64) -> Cursor {
        Cursor { step: self.step.saturating_add(steps), ..self.clone() }
    }

    /// The beginning of the next epoch, with the same batch and world.
    #[must_use]
    pub fn next_epoch(&self) -> Cursor {
        let segment = Segment { start: 0, ..self.segment };
        Cursor { epoch: self.epoch + 1, step: 0, segment, ..self.clone() }
    }

    /// The same position with another batch or world size: a new segment. Fails with Invalid for an empty one.
    pub fn resized(&self, batch: u64, world: WorldSize) -> Result<Cursor> {
        let start = self.position();
        let mut next = Cursor::new(self.dataset.as_str(), self.version, self.epoch, batch, world)?;
        next.segment.start = start;
        Ok(next)
    }
}

/// One rank's part of one global step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Positions of the epoch; those at or beyond its end are padding (see [`Consumption::wrap`]). May be empty.
    pub positions: Range<u64>,
    /// How many of them are real samples.
    pub weight: u64,
}

/// How an epoch of this many samples is consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumption {
    pub samples: u64,
    pub tail: Tail,
}

impl Consumption {
    /// The positions of the global step at `cursor`, or `None` when the epoch is over.
    pub fn step(&self, cursor: &Cursor) -> Option<Range<u64>> {
        let start = cursor.position();
        let stop = start.saturating_add(cursor.segment.batch);
        match self.tail {
            _ if start >= self.samples => None,
            _ if stop <= self.samples => Some(start..stop),
            Tail::Pad => Some(start..stop),
            Tail::Short => Some(start..self.samples),
            Tail::Drop => None,
        }
    }

    /// The slice of `rank` in the global step at `cursor`, or `None` when the epoch is over. The slices of all ranks
    /// lie side by side, cover the step, and differ by at most one position.
    pub fn slice(&self, cursor: &Cursor, rank: Rank) -> Option<Slice> {
        let step = self.step(cursor)?;
        let bound = |rank: u32| {
            let share =
                u128::from(step.end - step.start) * u128::from(rank) / u128::from(cursor.segment.world.0);
            step.start + share as u64
        };
        let positions = bound(rank.0)..bound(rank.0 + 1);
        let weight = positions.end.min(self.samples).saturating_sub(positions.start);
        Some(Slice { positions, weight })
    }

    /// The position whose sample stands at `position`: itself, or for padding one from the epoch's beginning on.
    pub fn wrap(&self, position: u64) -> u64 {
        position % self.samples
    }

    /// The samples at these positions, those of padding too, in the epoch's `order`.
    pub fn samples_at(&self, order: &Order, positions: &Range<u64>) -> Vec<u64> {
        let within = positions.start.min(self.samples)..positions.end.min(self.samples);
        let padding = within.end.max(positions.start)..positions.end;
        let mut samples = Vec::with_capacity((positions.end - positions.start) as usize);
        order.extend_with(&mut samples, within);
        samples.extend(padding.map(|position| order.sample_at(self.wrap(position))));
        samples
    }

    /// Global steps from `cursor` to the epoch's end.
    pub fn steps_left(&self, cursor: &Cursor) -> u64 {
        let left = self.samples.saturating_sub(cursor.position());
        match self.tail {
            Tail::Drop => left / cursor.segment.batch,
            Tail::Pad | Tail::Short => left.div_ceil(cursor.segment.batch),
        }
    }

    /// What the tail costs from `cursor` on: padded positions, or dropped samples. Reported as such.
    pub fn uneven(&self, cursor: &Cursor) -> u64 {
        let left = self.samples.saturating_sub(cursor.position());
        match self.tail {
            Tail::Short => 0,
            Tail::Drop => left % cursor.segment.batch,
            Tail::Pad => (cursor.segment.batch - left % cursor.segment.batch) % cursor.segment.batch,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every position that the ranks take from `cursor` on, for at most `limit` steps, and where that ends.
    fn consume(plan: Consumption, mut cursor: Cursor, limit: u64) -> (Vec<u64>, u64, Cursor) {
        let (mut taken, mut weight) = (Vec::new(), 0);
        for _ in 0..limit {
            let Some(step) = plan.step(&cursor) else { break };
            let mut at = step.start;
            for rank in 0..cursor.segment.world.0 {
                let slice = plan.slice(&cursor, Rank(rank)).unwrap();
                assert_eq!(slice.positions.start, at, "slices lie side by side");
                at = slice.positions.end;
                let share = (step.end - step.start) / u64::from(cursor.segment.world.0);
                let length = at - slice.positions.start;
                assert!(length == share || length == share + 1, "slices are floor or ceiling");
                taken.extend(slice.positions);
                weight += slice.weight;
            }
            assert_eq!(at, step.end, "slices cover the step");
            cursor = cursor.advanced();
        }
        (taken, weight, cursor)
    }

    proptest! {
        #[test]
        fn p8_an_epoch_holds_every_position_once(samples in 0u64..3_000, batch in 1u64..400, world in 1u32..40) {
            let start = Cursor::new("d", 1, 0, batch, WorldSize(world)).unwrap();
            for tail in [Tail::Short, Tail::Drop, Tail::Pad] {
                let plan = Consumption { samples, tail };
                let (taken, weight, end) = consume(plan, start.clone(), u64::MAX);
                let whole = match tail {
                    Tail::Short => samples,
                    Tail::Drop => samples - plan.uneven(&start),
                    Tail::Pad => samples + plan.uneven(&start),
                };
                prop_assert_eq!(&taken, &(0..whole).collect::<Vec<_>>());
                prop_assert_eq!(weight, whole.min(samples));
                prop_assert_eq!(end.step, plan.steps_left(&start));
                prop_assert_eq!(plan.steps_left(&end), 0);
            }
        }

        #[test]
        fn samples_of_positions_are_the_orders_and_padding_those_of_its_beginning(
            samples in 1u64..500, start in 0u64..1_500, count in 0u64..1_500, shuffle: bool,
        ) {
            let order = Order::new(1, 2, 3, samples, 7, shuffle);
            let positions = start..start + count;
            let expected: Vec<u64> = positions.clone().map(|at| order.sample_at(at % samples)).collect();
            let plan = Consumption { samples, tail: Tail::Pad };
            prop_assert_eq!(plan.samples_at(&order, &positions), expected);
        }

        #[test]
        fn p8_resizes_neither_lose_nor_repeat_a_position(
            samples in 0u64..5_000,
            sizes in proptest::collection::vec((1u64..300, 1u32..40, 0u64..9), 1..6),
        ) {
            let plan = Consumption { samples, tail: Tail::Short };
            let mut cursor = Cursor::new("d", 1, 0, sizes[0].0, WorldSize(sizes[0].1)).unwrap();
            let mut all = Vec::new();
            for (batch, world, steps) in sizes {
                cursor = cursor.resized(batch, WorldSize(world)).unwrap();
                let (taken, _, next) = consume(plan, cursor, steps);
                all.extend(taken);
                cursor = next;
            }
            all.extend(consume(plan, cursor, u64::MAX).0);
            prop_assert_eq!(all, (0..samples).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stored_cursor_goes_on_where_it_stood() {
        let cursor = Cursor::new("d", 7, 2, 10, WorldSize(4)).unwrap().advanced().advanced();
        assert_eq!(cursor.position(), 20);
        let back: Cursor = serde_json::from_str(&serde_json::to_string(&cursor).unwrap()).unwrap();
        assert_eq!(back, cursor);
        let next = cursor.next_epoch();
        assert_eq!((next.epoch, next.position()), (3, 0));
    }

    #[test]
    fn padding_wraps_and_weighs_nothing() {
        let plan = Consumption { samples: 3, tail: Tail::Pad };
        let cursor = Cursor::new("d", 1, 0, 8, WorldSize(2)).unwrap();
        let last = plan.slice(&cursor, Rank(1)).unwrap();
        assert_eq!((last.positions.clone(), last.weight), (4..8, 0));
        assert_eq!(last.positions.map(|position| plan.wrap(position)).collect::<Vec<_>>(), [1, 2, 0, 1]);
    }

    #[test]
    fn empty_batch_or_world_is_refused() {
        assert!(Cursor::new("d", 1, 0, 0, WorldSize(1)).is_err());
        assert!(Cursor::new("d", 1, 0, 1, WorldSize(0)).is_err());
    }
}
