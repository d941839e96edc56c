//! A keyed permutation of 0..n with nothing stored: a small Feistel network over a grid of a × 2^b cells, walked until
//! it lands inside (Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains": generalised Feistel, cycle walking).
//!
//! For shuffling, not for secrecy.

/// Three for each half. With four in all, the places of 40 elements are uneven over keys by 90 standard deviations in
/// their pairs; with six no unevenness is left (tests below).
const ROUNDS: u32 = 6;

/// Both halves have at least eight values: on smaller grids six rounds don't reach all permutations evenly (the
/// permutations of five elements on a 2 × 4 grid: 2,700 standard deviations off; on 8 × 8: one).
const LEAST_BITS: u32 = 3;

/// The golden ratio in 64 bits: spreads consecutive numbers over the key space (Steele et al. 2014, SplitMix).
pub(super) const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
/// The odd constants of MurmurHash3's 64-bit finaliser.
const MIX_1: u64 = 0xFF51_AFD7_ED55_8CCD;
const MIX_2: u64 = 0xC4CE_B9FE_1A85_EC53;

/// A bijection of 0..n chosen by a key. Both directions cost the same: about 13 ns, and more below n = 64, where the
/// grid is larger than n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    n: u64,
    key: u64,
    /// How many values the left half takes: just enough to cover n, so that walks are rare.
    rows: u64,
    /// Width of the right half.
    bits: u32,
}

impl Permutation {
    pub fn new(n: u64, key: u64) -> Permutation {
        let bits = ((u64::BITS - n.saturating_sub(1).leading_zeros()) / 2).max(LEAST_BITS);
        // By shifts: an order makes a permutation for every position, and a division costs as much as three rounds.
        let rows = (n >> bits) + u64::from(n & ((1 << bits) - 1) != 0);
        Permutation { n, key, rows: rows.max(1 << LEAST_BITS), bits }
    }

    /// Where `index` goes. `index` must be below n.
    #[inline]
    pub fn apply(&self, index: u64) -> u64 {
        debug_assert!(index < self.n);
        let at = self.encrypt(index);
        if at < self.n { at } else { self.walk(at, index, Permutation::encrypt) }
    }

    /// Where `index` comes from: undoes [`Permutation::apply`]. `index` must be below n.
    pub fn invert(&self, index: u64) -> u64 {
        debug_assert!(index < self.n);
        let at = self.decrypt(index);
        if at < self.n { at } else { self.walk(at, index, Permutation::decrypt) }
    }

    /// From a cell outside on, into 0..n. Apart, as it is rare where n is large.
    #[inline(never)]
    fn walk(&self, mut at: u64, index: u64, step: impl Fn(&Permutation, u64) -> u64) -> u64 {
        // One element stays where it is; walking the grid for it would take 64 steps.
        if self.n == 1 {
            return index;
        }
        while at >= self.n {
            at = step(self, at);
        }
        at
    }

    // The halves take turns instead of changing places, so that they may differ in size and a round undoes itself.

    #[inline]
    fn encrypt(&self, cell: u64) -> u64 {
        let (mut row, mut column) = self.split(cell);
        for round in (0..ROUNDS).step_by(2) {
            column ^= self.column_mask(row, round);
            row += self.row_shift(column, round + 1);
            row = row.min(row.wrapping_sub(self.rows));
        }
        row << self.bits | column
    }

    fn decrypt(&self, cell: u64) -> u64 {
        let (mut row, mut column) = self.split(cell);
        for round in (0..ROUNDS).step_by(2).rev() {
            row = row.wrapping_sub(self.row_shift(column, round + 1));
            row = row.min(row.wrapping_add(self.rows));
            column ^= self.column_mask(row, round);
        }
        row << self.bits | column
    }

    fn split(&self, cell: u64) -> (u64, u64) {
        (cell >> self.bits, cell & ((1 << self.bits) - 1))
    }

    fn column_mask(&self, row: u64, round: u32) -> u64 {
        self.mix(row, round) >> (u64::BITS - self.bits)
    }

    /// Below `rows`, by multiplication instead of division (Lemire 2019).
    fn row_shift(&self, column: u64, round: u32) -> u64 {
        ((u128::from(self.mix(column, round)) * u128::from(self.rows)) >> 64) as u64
    }

    /// The round function; its leading bits are the good ones. One multiplication alone would be nearly linear in the
    /// few bits of a half.
    fn mix(&self, half: u64, round: u32) -> u64 {
        let key = self.key.wrapping_add(u64::from(round + 1).wrapping_mul(GOLDEN_RATIO));
        fold(half ^ key, MIX_1).wrapping_mul(MIX_2)
    }
}

/// Both halves of the 128-bit product, folded together (Wang Yi's wyhash).
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_small_permutation_is_a_bijection() {
        for n in 1..=600 {
            for key in [0, 1, 0xDEAD_BEEF, u64::MAX] {
                let permutation = Permutation::new(n, key);
                let mut seen = vec![false; n as usize];
                for index in 0..n {
                    let image = permutation.apply(index);
                    assert!(
                        !std::mem::replace(&mut seen[image as usize], true),
                        "n {n}, key {key}: {image} twice"
                    );
                    assert_eq!(permutation.invert(image), index, "n {n}, key {key}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn large_permutations_stay_inside_and_invert(n in 1u64..u64::MAX, key: u64, at: u64) {
            let permutation = Permutation::new(n, key);
            let image = permutation.apply(at % n);
            prop_assert!(image < n);
            prop_assert_eq!(permutation.invert(image), at % n);
        }
    }

    /// Consecutive numbers as keys that have nothing in common.
    fn spread(key: u64) -> u64 {
        fold(key ^ GOLDEN_RATIO, MIX_1).wrapping_add(fold(key.wrapping_mul(GOLDEN_RATIO), MIX_2))
    }

    /// Asserts that `seen` is what even odds over `kinds` outcomes give: Pearson's chi-squared stays within six
    /// standard deviations of its mean. Keys are fixed, so this never depends on luck.
    fn assert_even<T>(what: &str, seen: &HashMap<T, u64>, kinds: u64) {
        let total: u64 = seen.values().sum();
        let expected = total as f64 / kinds as f64;
        let unseen = (kinds - seen.len() as u64) as f64 * expected;
        let sum: f64 = seen.values().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
        let freedom = (kinds - 1) as f64;
        let deviations = (sum + unseen - freedom) / (2.0 * freedom).sqrt();
        assert!(deviations < 6.0, "{what}: {deviations:.1} standard deviations from even");
    }

    #[test]
    fn small_permutations_are_even_over_keys() {
        for n in 2..=6 {
            let mut seen: HashMap<Vec<u64>, u64> = HashMap::new();
            for key in 0..36_000 {
                let permutation = Permutation::new(n, spread(key));
                *seen.entry((0..n).map(|index| permutation.apply(index)).collect()).or_default() += 1;
            }
            assert_even(&format!("permutations of {n}"), &seen, (1..=n).product());
        }
    }

    #[test]
    fn neighbours_land_evenly_over_keys() {
        for n in [13, 40, 65] {
            let mut seen: HashMap<(u64, u64), u64> = HashMap::new();
            for key in 0..40_000 {
                let permutation = Permutation::new(n, spread(key));
                *seen.entry((permutation.apply(1), permutation.apply(2))).or_default() += 1;
            }
            assert_even(&format!("neighbours among {n}"), &seen, n * (n - 1));
        }
    }

    #[test]
    fn neighbours_part_company() {
        let permutation = Permutation::new(1_000_003, 42);
        let near = (0..100_000)
            .filter(|at| permutation.apply(*at).abs_diff(permutation.apply(at + 1)) < 100)
            .count();
        // 20 expected of a random permutation.
        assert!(near < 60, "{near} of 100,000 neighbours stayed within 100");
    }
}
