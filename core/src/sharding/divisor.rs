//! Division by a number that stays the same, as a multiplication.
//!
//! A processor's own division takes 10 to 40 cycles for 64 bits, and an order has two for every sample.

/// Divides by a number that was given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Divisor {
    by: u64,
    /// (2^64 - 1) / by, rounded down: above 2^64 / by - 1, so the quotient below is right or one too small
    /// (Granlund & Montgomery 1994, "Division by Invariant Integers using Multiplication").
    reciprocal: u64,
}

impl Divisor {
    /// `by` is at least 1.
    pub(super) fn new(by: u64) -> Divisor {
        Divisor { by, reciprocal: u64::MAX / by }
    }

    pub(super) fn get(&self) -> u64 {
        self.by
    }

    /// Quotient and remainder.
    pub(super) fn divide(&self, number: u64) -> (u64, u64) {
        let quotient = ((u128::from(number) * u128::from(self.reciprocal)) >> 64) as u64;
        let remainder = number - quotient * self.by;
        if remainder < self.by { (quotient, remainder) } else { (quotient + 1, remainder - self.by) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_divides_at_every_edge() {
        let edges =
            |around: u64| (0..3).flat_map(move |by| [around.wrapping_sub(by), around.wrapping_add(by)]);
        let numbers: Vec<u64> = (0..64).flat_map(|bit| edges(1 << bit)).chain(edges(u64::MAX)).collect();
        for by in numbers.iter().filter(|by| **by > 0) {
            let multiples = (0..64).flat_map(|bit| edges(by.wrapping_mul((u64::MAX / by) >> bit)));
            for number in multiples.chain(numbers.iter().copied()) {
                assert_eq!(Divisor::new(*by).divide(number), (number / by, number % by), "{number} by {by}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_divides_as_division_does(number: u64, by in 1u64..=u64::MAX, small in 1u64..100_000) {
            for by in [by, small] {
                prop_assert_eq!(Divisor::new(by).divide(number), (number / by, number % by));
            }
        }
    }
}
