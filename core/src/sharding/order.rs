//! The order of an epoch's samples, as a pure function of (dataset version, seed, epoch, position).
//!
//! A keyed permutation puts the shards in order; a keyed permutation inside each window of shards then mixes their
//! samples, so that a reader needs only the files of one window at a time. Nothing is stored, any position is reached
//! at once, and the world size is not an argument.

use std::ops::Range;

use super::divisor::Divisor;
use super::permutation::{GOLDEN_RATIO, Permutation, fold};

/// Shards whose samples are mixed with each other. Wider mixes better, and keeps more files in use at once: 16 shards
/// of 10,000 samples are more than most shuffle buffers hold. Part of the order's contract: changing it changes orders.
pub const ORDER_WINDOW: u64 = 16;

/// A stretch of an epoch, and all shards whose samples it holds: who reads its first positions soon needs each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub positions: Range<u64>,
    /// Of each shard, where it is shuffled.
    pub samples: Vec<Range<u64>>,
}

/// The order of one epoch of one dataset: a bijection of 0..samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    samples: u64,
    shard_size: u64,
    shards: u64,
    shuffle: Option<Shuffle>,
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
        let key = [version, seed, epoch].into_iter().fold(GOLDEN_RATIO, chain);
        let shuffle = window.filter(|_| samples > 0);
        let shuffle = shuffle.map(|window| Shuffle::new(key, samples, shard_size, shards, window));
        Order { samples, shard_size, shards, shuffle }
    }

    /// The sample at `position` of the epoch. Both are below [`Order::samples`]; a position beyond is a caller's
    /// defect and panics.
    pub fn sample_at(&self, position: u64) -> u64 {
        assert!(position < self.samples, "position {position} of an epoch of {} samples", self.samples);
        match &self.shuffle {
            Some(shuffle) => shuffle.sample_at(position),
            None => position,
        }
    }

    /// Puts the samples of these positions behind `samples`. Twice as fast as one by one: what a window needs is
    /// reckoned once, and the permutations of neighbours don't wait for each other. Panics as `sample_at` does.
    pub fn extend_with(&self, samples: &mut Vec<u64>, positions: Range<u64>) {
        assert!(
            positions.end <= self.samples,
            "positions {positions:?} of an epoch of {} samples",
            self.samples
        );
        match &self.shuffle {
            Some(shuffle) => shuffle.extend_with(samples, positions),
            None => samples.extend(positions),
        }
    }

    /// The place of a shard in the epoch's order of shards.
    pub fn place_of_shard(&self, shard: u64) -> u64 {
        match &self.shuffle {
            Some(shuffle) => shuffle.places.invert(shard),
            None => shard,
        }
    }

    /// The window of a position below [`Order::samples`]: windows lie side by side. Without a shuffle it begins there and is as long.
    pub fn window(&self, position: u64) -> Window {
        let Some(shuffle) = &self.shuffle else {
            let length = self.shard_size.saturating_mul(ORDER_WINDOW);
            let positions = position..position.saturating_add(length).min(self.samples);
            return Window { positions: positions.clone(), samples: vec![positions] };
        };
        let (positions, shards) = shuffle.window(shuffle.window_at(position).0);
        let samples = |shard: u64| {
            let start = shard * self.shard_size;
            start..start.saturating_add(self.shard_size).min(self.samples)
        };
        Window { positions, samples: shards.into_iter().map(samples).collect() }
    }

    pub fn samples(&self) -> u64 {
        self.samples
    }

    pub fn shards(&self) -> u64 {
        self.shards
    }
}

/// What is reckoned once an epoch, so that a position costs two permutations and two multiplications for division.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shuffle {
    /// Of a shard: which stands at a place.
    places: Permutation,
    shards: u64,
    /// The key that each window's own is made of.
    windows: u64,
    shard_size: Divisor,
    /// Shards of a window; the last one may have fewer.
    window: u64,
    /// Samples of a window that is whole.
    window_size: Divisor,
    /// How many samples the last shard lacks.
    missing: u64,
    /// The window in which the last shard stands, wherever that is in the epoch; what follows comes that much earlier.
    short_window: u64,
    /// The first position behind that window.
    short_window_stop: u64,
    /// Where the last shard ends in its window.
    short_stop: u64,
}

impl Shuffle {
    /// There is at least one sample.
    fn new(key: u64, samples: u64, shard_size: u64, shards: u64, window: u64) -> Shuffle {
        // A larger shard than the dataset, or window than there are shards, is the same, and could overflow.
        let (shard_size, window) = (shard_size.min(samples), window.min(shards));
        let places = Permutation::new(shards, chain(key, 1));
        let missing = shards * shard_size - samples;
        let (short_window, within) = Divisor::new(window).divide(places.invert(shards - 1));
        let short_window_stop = ((short_window + 1) * window).min(shards) * shard_size - missing;
        Shuffle {
            places,
            shards,
            windows: chain(key, 2),
            shard_size: Divisor::new(shard_size),
            window,
            window_size: Divisor::new(window * shard_size),
            missing,
            short_window,
            short_window_stop,
            short_stop: (within + 1) * shard_size - missing,
        }
    }

    fn sample_at(&self, position: u64) -> u64 {
        let (window, within) = self.window_at(position);
        let mixing = self.mixing(window, self.size_of(window));
        self.sample(self.mixed(window, mixing.apply(within)))
    }

    fn extend_with(&self, samples: &mut Vec<u64>, positions: Range<u64>) {
        let (first, mut at) = (samples.len(), positions.start);
        while at < positions.end {
            let (window, within) = self.window_at(at);
            let size = self.size_of(window);
            let mixing = self.mixing(window, size);
            let count = (size - within).min(positions.end - at);
            samples.extend((within..within + count).map(|within| self.mixed(window, mixing.apply(within))));
            at += count;
        }
        for sample in &mut samples[first..] {
            *sample = self.sample(*sample);
        }
    }

    /// The window of a position, and where it is in it.
    fn window_at(&self, position: u64) -> (u64, u64) {
        let behind = position >= self.short_window_stop;
        self.window_size.divide(position + if behind { self.missing } else { 0 })
    }

    /// Its positions, and its shards in their order.
    fn window(&self, window: u64) -> (Range<u64>, Vec<u64>) {
        let behind = window > self.short_window;
        let start = window * self.window_size.get() - if behind { self.missing } else { 0 };
        let places = window * self.window..((window + 1) * self.window).min(self.shards);
        (start..start + self.size_of(window), places.map(|place| self.places.apply(place)).collect())
    }

    /// Samples of a window.
    fn size_of(&self, window: u64) -> u64 {
        let shards = self.window.min(self.shards - window * self.window);
        shards * self.shard_size.get() - if window == self.short_window { self.missing } else { 0 }
    }

    /// The permutation of a window's samples.
    fn mixing(&self, window: u64, size: u64) -> Permutation {
        Permutation::new(size, chain(self.windows, window))
    }

    /// Where the window's sample at `within` before the mixing would be, were the last shard as long as the others.
    fn mixed(&self, window: u64, within: u64) -> u64 {
        let behind = window == self.short_window && within >= self.short_stop;
        window * self.window_size.get() + within + if behind { self.missing } else { 0 }
    }

    /// The sample that is at a position of that kind before the mixing.
    fn sample(&self, unmixed: u64) -> u64 {
        let (place, offset) = self.shard_size.divide(unmixed);
        self.places.apply(place) * self.shard_size.get() + offset
    }
}

/// Takes `part` into a key.
fn chain(key: u64, part: u64) -> u64 {
    fold(key ^ part.wrapping_mul(GOLDEN_RATIO), key.rotate_left(32) | 1).wrapping_add(part)
}

#[cfg(test)]
mod tests;
