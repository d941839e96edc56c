use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const TRILLION: u64 = 1_000_000_000_000;

fn all(order: &Order) -> Vec<u64> {
    (0..order.samples()).map(|position| order.sample_at(position)).collect()
}

/// The contract in its plainest form, reckoned anew for every position: places of shards by one permutation, the
/// positions of each window of places by another. [`Order`] must give the same, however it gets there.
struct Plain {
    shard_size: u64,
    window: u64,
    shards: u64,
    missing: u64,
    short_place: u64,
    places: Permutation,
    windows: u64,
}

impl Plain {
    fn new([version, seed, epoch]: [u64; 3], samples: u64, shard_size: u64, window: u64) -> Plain {
        let key = [version, seed, epoch].into_iter().fold(GOLDEN_RATIO, chain);
        let shards = samples.div_ceil(shard_size);
        let places = Permutation::new(shards, chain(key, 1));
        let (missing, short_place) = (shards * shard_size - samples, places.invert(shards - 1));
        Plain { shard_size, window, shards, missing, short_place, places, windows: chain(key, 2) }
    }

    /// The first position of a place.
    fn start(&self, place: u64) -> u64 {
        place * self.shard_size - if place > self.short_place { self.missing } else { 0 }
    }

    fn place(&self, position: u64) -> u64 {
        let behind = position >= self.start(self.short_place + 1);
        (position + if behind { self.missing } else { 0 }) / self.shard_size
    }

    /// The first position of the window around a position, and its permutation.
    fn window_around(&self, position: u64) -> (u64, Permutation) {
        let window = self.place(position) / self.window;
        let start = self.start(window * self.window);
        let stop = self.start(((window + 1) * self.window).min(self.shards));
        (start, Permutation::new(stop - start, chain(self.windows, window)))
    }

    fn sample_at(&self, position: u64) -> u64 {
        let (start, mixing) = self.window_around(position);
        let mixed = start + mixing.apply(position - start);
        let place = self.place(mixed);
        self.places.apply(place) * self.shard_size + mixed - self.start(place)
    }

    /// Undoes `sample_at`.
    fn position_of(&self, sample: u64) -> u64 {
        let place = self.places.invert(sample / self.shard_size);
        let mixed = self.start(place) + sample % self.shard_size;
        let (start, mixing) = self.window_around(mixed);
        start + mixing.invert(mixed - start)
    }
}

/// Every position of an epoch goes to a sample of its own, whichever the seed.
fn assert_bijection(samples: u64, shard_size: u64, window: u64) {
    for (seed, epoch) in [(0, 0), (17, 3)] {
        let order = Order::with_window(1, seed, epoch, samples, shard_size, Some(window));
        let mut seen = vec![false; samples as usize];
        for position in 0..samples {
            let twice = std::mem::replace(&mut seen[order.sample_at(position) as usize], true);
            assert!(
                !twice,
                "{samples} in shards of {shard_size}, window {window}, seed {seed}, epoch {epoch}"
            );
        }
    }
}

#[test]
fn every_small_epoch_holds_every_sample_once_whatever_the_shards_and_the_window() {
    for samples in 0..=48u64 {
        for shard_size in 1..=samples + 1 {
            let shards = samples.div_ceil(shard_size);
            (1..=shards + 1).for_each(|window| assert_bijection(samples, shard_size, window));
        }
    }
}

#[test]
fn every_epoch_of_hundreds_holds_every_sample_once() {
    for samples in 49..=300 {
        for shard_size in [1, 3, 7, 16, samples / 2, samples - 1] {
            [2, ORDER_WINDOW].into_iter().for_each(|window| assert_bijection(samples, shard_size, window));
        }
    }
}

#[test]
fn epochs_of_hundreds_hold_every_sample_once_whatever_the_shards() {
    for samples in [97, 128, 255, 256, 257] {
        (1..=samples + 1).for_each(|shard_size| assert_bijection(samples, shard_size, ORDER_WINDOW));
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
    fn many_positions_at_once_are_the_same_as_one_by_one(
        seed: u64, samples in 1u64..5_000, shard_size in 1u64..500, window in 1u64..9, shuffled: bool,
        from in 0u64..5_000, count in 0u64..3_000,
    ) {
        let order = Order::with_window(9, seed, 0, samples, shard_size, shuffled.then_some(window));
        let positions = from.min(samples)..(from + count).min(samples);
        let mut samples = vec![7];
        order.extend_with(&mut samples, positions.clone());
        let expected: Vec<u64> = std::iter::once(7).chain(positions.map(|at| order.sample_at(at))).collect();
        prop_assert_eq!(samples, expected);
    }

    #[test]
    fn a_window_of_positions_reads_only_its_window_of_shards(
        seed: u64, samples in 1u64..20_000, shard_size in 1u64..500, window in 1u64..9,
    ) {
        let order = Order::with_window(9, seed, 0, samples, shard_size, Some(window));
        let plain = Plain::new([9, seed, 0], samples, shard_size, window);
        for position in 0..samples {
            let place = order.place_of_shard(order.sample_at(position) / shard_size);
            prop_assert_eq!(place / window, plain.place(position) / window);
        }
    }
}

/// Sizes of epochs, shards and windows over all magnitudes.
fn sizes() -> impl Strategy<Value = (u64, u64, u64)> {
    let samples = prop_oneof![Just(TRILLION), (0u32..61).prop_flat_map(|bits| 1u64 << bits..2 << bits)];
    let shard_size = prop_oneof![1u64..100, (0u32..61).prop_flat_map(|bits| 1u64 << bits..2 << bits)];
    (
        samples,
        shard_size,
        prop_oneof![Just(ORDER_WINDOW), 1u64..5_000, any::<u64>().prop_map(|window| window.max(1))],
    )
}

proptest! {
    /// A position that can be had back from its sample shares that sample with no other position.
    #[test]
    fn epochs_of_any_size_are_bijections_by_their_inverse(
        (samples, shard_size, window) in sizes(), seed: u64, epoch: u64,
        anywhere in proptest::collection::vec(any::<u64>(), 32),
    ) {
        let order = Order::with_window(9, seed, epoch, samples, shard_size, Some(window));
        // Plain multiplies without care: what lies beyond the dataset is the same as what covers it.
        let (shard_size, window) = (shard_size.min(samples), window.min(samples));
        let plain = Plain::new([9, seed, epoch], samples, shard_size, window);
        let around = |edge: u64| edge.saturating_sub(3)..edge.saturating_add(3);
        let short = plain.start(plain.short_place);
        let edges = [0, short, short + shard_size, window.saturating_mul(shard_size), samples / 2, samples];
        let positions = edges.into_iter().flat_map(around).filter(|at| *at < samples);
        for position in positions.chain(anywhere.into_iter().map(|at| at % samples)) {
            let sample = order.sample_at(position);
            prop_assert!(sample < samples);
            prop_assert_eq!(sample, plain.sample_at(position));
            prop_assert_eq!(plain.position_of(sample), position);
        }
    }

    #[test]
    fn stretches_of_a_trillion_samples_share_none(
        seed: u64, epoch: u64, shard_size in 1u64..2_000_000, starts in proptest::collection::vec(0..TRILLION, 4),
    ) {
        let order = Order::new(9, seed, epoch, TRILLION, shard_size, true);
        let stretch = |start: u64| start..(start + 1_000).min(TRILLION);
        let positions: HashSet<u64> = starts.into_iter().flat_map(stretch).collect();
        let samples: HashSet<u64> = positions.iter().map(|position| order.sample_at(*position)).collect();
        prop_assert_eq!(samples.len(), positions.len());
        prop_assert!(samples.into_iter().all(|sample| sample < TRILLION));
    }
}

#[test]
fn without_shuffle_the_order_is_that_of_the_files() {
    let order = Order::new(1, 2, 3, 1_000, 64, false);
    assert!((0..1_000).all(|position| order.sample_at(position) == position));
}

#[test]
fn every_argument_changes_the_order() {
    let order = |version, seed, epoch| all(&Order::new(version, seed, epoch, 5_000, 64, true));
    let orders =
        [order(1, 1, 1), order(2, 1, 1), order(1, 2, 1), order(1, 1, 2), order(2, 1, 2), order(0, 0, 0)];
    let distinct: HashSet<&Vec<u64>> = orders.iter().collect();
    assert_eq!(distinct.len(), orders.len());
}

#[test]
#[should_panic(expected = "positions 990..1001 of an epoch of 1000 samples")]
fn positions_beyond_the_epoch_are_a_defect() {
    Order::new(1, 2, 3, 1_000, 64, true).extend_with(&mut Vec::new(), 990..1_001);
}

/// Line n: the sample at position n of epoch 5 (version 3, seed 17, 1,000 samples in shards of 30).
const GOLDEN: &str = include_str!("../../../tests/samples/sharding/order-3-17-5-1000-30.txt");

#[test]
fn order_gives_what_every_release_before_gave() {
    let golden: Vec<u64> = GOLDEN.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(all(&Order::new(3, 17, 5, 1_000, 30, true)), golden);
}

proptest! {
    #[test]
    fn windows_lie_side_by_side_and_hold_the_samples_of_their_positions(
        samples in 1..400u64, shard_size in 1..30u64, seed: u64, shuffle: bool,
    ) {
        let order = Order::new(1, seed, 0, samples, shard_size, shuffle);
        let mut at = 0;
        while at < samples {
            let window = order.window(at);
            prop_assert_eq!(window.positions.start, at);
            let held: HashSet<u64> = window.samples.into_iter().flatten().collect();
            let taken: HashSet<u64> = window.positions.clone().map(|position| order.sample_at(position)).collect();
            prop_assert_eq!(held, taken);
            for position in window.positions.clone().filter(|_| shuffle) {
                prop_assert_eq!(&order.window(position).positions, &window.positions);
            }
            at = window.positions.end;
        }
        prop_assert_eq!(at, samples);
    }
}
