//! The order of an epoch's samples, as a pure function of (dataset version, seed, epoch, position).
//!
//! A keyed permutation puts the shards in order; a keyed permutation inside each window of shards then mixes their
//! samples, so that a reader needs only the files of one window at a time. Nothing is stored, any position is reached
//! at once, and the world size is not an argument.

use super::permutation::{GOLDEN_RATIO, Permutation, fold};

/// Shards whose samples are mixed with each other. Wider mixes better, and keeps more files in use at once: 16 shards
/// of 10,000 samples are more than most shuffle buffers hold. Part of the order's contract: changing it changes orders.
pub const ORDER_WINDOW: u64 = 16;

/// The order of one epoch of one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    samples: u64,
    shard_size: u64,
    shards: u64,
    /// How many samples the last shard lacks.
    missing: u64,
    /// Where the last shard stands in the epoch; it may be short, and what follows it comes that much earlier.
    short_place: u64,
    window: u64,
    keys: Option<Keys>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Keys {
    shards: Permutation,
    windows: u64,
}

impl Order {
    /// The order of `epoch` over `samples` samples in shards of `shard_size` (at least 1), the last of which may be
    /// short; without `shuffle` it is the order of the files.
    pub fn new(version: u64, seed: u64, epoch: u64, samples: u64, shard_size: u64, shuffle: bool) -> Order {
        Order::with_window(version, seed, epoch, samples, shard_size, shuffle.then_some(ORDER_WINDOW))
    }

    /// As [`Order::new`], with another window (at least 1 shard); `None` doesn't shuffle.
    pub fn with_window(
        version: u64,
        seed: u64,
        epoch: u64,
        samples: u64,
        shard_size: u64,
        window: Option<u64>,
    ) -> Order {
        assert!(shard_size > 0 && window != Some(0), "a shard and a window hold at least one");
        let shards = samples.div_ceil(shard_size);
        let keys = window.map(|_| {
            let key = [version, seed, epoch].into_iter().fold(GOLDEN_RATIO, chain);
            Keys { shards: Permutation::new(shards, chain(key, 1)), windows: chain(key, 2) }
        });
        let last = shards.saturating_sub(1);
        let short_place = match &keys {
            Some(keys) if shards > 0 => keys.shards.invert(last),
            _ => last,
        };
        let missing = (shards * shard_size).wrapping_sub(samples);
        Order { samples, shard_size, shards, missing, short_place, window: window.unwrap_or(1), keys }
    }

    /// The sample at `position` of the epoch. Both are below [`Order::samples`]; a position beyond is a caller's
    /// defect and panics.
    pub fn sample_at(&self, position: u64) -> u64 {
        assert!(position < self.samples, "position {position} of an epoch of {} samples", self.samples);
        let Some(keys) = &self.keys else { return position };
        let window = self.place(position) / self.window;
        let start = self.start_of(window * self.window);
        let stop = self.start_of(((window + 1) * self.window).min(self.shards));
        let inside = Permutation::new(stop - start, chain(keys.windows, window));
        let mixed = start + inside.apply(position - start);
        let place = self.place(mixed);
        keys.shards.apply(place) * self.shard_size + (mixed - self.start_of(place))
    }

    /// The place of a shard in the epoch's order of shards.
    pub fn place_of_shard(&self, shard: u64) -> u64 {
        match &self.keys {
            Some(keys) => keys.shards.invert(shard),
            None => shard,
        }
    }

    pub fn samples(&self) -> u64 {
        self.samples
    }

    pub fn shards(&self) -> u64 {
        self.shards
    }

    /// The place, in the order of shards, of the shard that holds this position before the mixing.
    fn place(&self, position: u64) -> u64 {
        let short_stop = (self.short_place + 1) * self.shard_size - self.missing;
        if position < short_stop {
            position / self.shard_size
        } else {
            (position + self.missing) / self.shard_size
        }
    }

    /// The first position of a place, before the mixing.
    fn start_of(&self, place: u64) -> u64 {
        place * self.shard_size - if place > self.short_place { self.missing } else { 0 }
    }
}

/// Takes `part` into a key.
fn chain(key: u64, part: u64) -> u64 {
    fold(key ^ part.wrapping_mul(GOLDEN_RATIO), key.rotate_left(32) | 1).wrapping_add(part)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_small_epoch_holds_every_sample_once() {
        for samples in 0..70 {
            for shard_size in [1, 2, 3, 7, 16, 100] {
                for window in [None, Some(1), Some(2), Some(3), Some(50)] {
                    let order = Order::with_window(1, 2, 3, samples, shard_size, window);
                    let seen: HashSet<u64> = (0..samples).map(|position| order.sample_at(position)).collect();
                    assert_eq!(seen.len() as u64, samples, "{samples}, {shard_size}, {window:?}");
                    assert!(seen.iter().all(|sample| *sample < samples));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn large_epochs_hold_every_sample_once(
            seed: u64, epoch: u64, samples in 1u64..50_000, shard_size in 1u64..3_000, window in 1u64..40,
        ) {
            let order = Order::with_window(9, seed, epoch, samples, shard_size, Some(window));
            let mut seen = vec![false; samples as usize];
            for position in 0..samples {
                prop_assert!(!std::mem::replace(&mut seen[order.sample_at(position) as usize], true));
            }
        }

        #[test]
        fn a_window_of_positions_reads_only_its_window_of_shards(
            seed: u64, samples in 1u64..20_000, shard_size in 1u64..500, window in 1u64..9,
        ) {
            let order = Order::with_window(9, seed, 0, samples, shard_size, Some(window));
            for position in 0..samples {
                let place = order.place_of_shard(order.sample_at(position) / shard_size);
                prop_assert_eq!(place / window, order.place(position) / window);
            }
        }
    }

    #[test]
    fn without_shuffle_the_order_is_that_of_the_files() {
        let order = Order::new(1, 2, 3, 1_000, 64, false);
        assert!((0..1_000).all(|position| order.sample_at(position) == position));
    }

    #[test]
    fn every_argument_changes_the_order() {
        let order = |version, seed, epoch| -> Vec<u64> {
            let order = Order::new(version, seed, epoch, 5_000, 64, true);
            (0..5_000).map(|position| order.sample_at(position)).collect()
        };
        let orders =
            [order(1, 1, 1), order(2, 1, 1), order(1, 2, 1), order(1, 1, 2), order(2, 1, 2), order(0, 0, 0)];
        let distinct: HashSet<&Vec<u64>> = orders.iter().collect();
        assert_eq!(distinct.len(), orders.len());
    }

    /// Line n: the sample at position n of epoch 5 (version 3, seed 17, 1,000 samples in shards of 30).
    const GOLDEN: &str = include_str!("../../tests/samples/sharding/order-3-17-5-1000-30.txt");

    #[test]
    fn order_gives_what_every_release_before_gave() {
        let order = Order::new(3, 17, 5, 1_000, 30, true);
        let samples: Vec<u64> = (0..1_000).map(|position| order.sample_at(position)).collect();
        let golden: Vec<u64> = GOLDEN.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(samples, golden);
    }
}
