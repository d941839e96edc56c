//! bf16 weights that are fp32 masters rounded to nearest, ties to even (IEEE 754 roundTiesToEven), as mixed-precision
//! optimizers leave them: found by comparing every element, rebuilt by rounding.

/// Elements of a block whose comparison ends in one test.
const BLOCK: usize = 256;

fn rounded(master: u32) -> u16 {
    let is_nan = master & 0x7fff_ffff > 0x7f80_0000;
    let nearest = master.wrapping_add(0x7fff + ((master >> 16) & 1)) >> 16;
    // What makes a NaN may lie in the bits that go: it stays one.
    let quiet = (master >> 16) | 0x40;
    (if is_nan { quiet } else { nearest }) as u16
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

/// Fills `weights` with `masters`, little-endian both, rounded.
pub fn round(masters: &[u8], weights: &mut [u8]) {
    assert_eq!(masters.len(), 2 * weights.len(), "a master is twice as wide as its weight");
    for (master, weight) in masters.chunks_exact(4).zip(weights.chunks_exact_mut(2)) {
        weight.copy_from_slice(&rounded(word(master)).to_le_bytes());
    }
}

/// Whether every weight is its master rounded.
pub fn is_rounded(masters: &[u8], weights: &[u8]) -> bool {
    assert_eq!(masters.len(), 2 * weights.len(), "a master is twice as wide as its weight");
    masters.chunks(4 * BLOCK).zip(weights.chunks(2 * BLOCK)).all(|(masters, weights)| {
        let pairs = masters.chunks_exact(4).zip(weights.chunks_exact(2));
        let differing = pairs.fold(0, |differing, (master, weight)| {
            differing | (rounded(word(master)) ^ u16::from_le_bytes([weight[0], weight[1]]))
        });
        differing == 0
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_go_to_the_even_neighbour_and_nan_stays_nan() {
        let half_up = (0x3f80_8000, 0x3f80);
        let half_to_even = (0x3f81_8000, 0x3f82);
        let above_half = (0x3f80_8001, 0x3f81);
        let overflow = (0x7f7f_ffff, 0x7f80);
        let infinity = (0xff80_0000, 0xff80);
        let low_nan = (0x7f80_0001, 0x7fc0);
        for (master, weight) in [half_up, half_to_even, above_half, overflow, infinity, low_nan] {
            assert_eq!(rounded(master), weight, "{master:#x}");
        }
    }

    proptest! {
        /// Against the definition: no bf16 number is nearer, and of two as near the even one is taken.
        #[test]
        fn no_other_number_is_nearer(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let weight = rounded(bits);
            let distance = |weight: u16| {
                (f64::from(f32::from_bits(u32::from(weight) << 16)) - f64::from(value)).abs()
            };
            prop_assume!(f32::from_bits(u32::from(weight) << 16).is_finite());
            for other in [weight.wrapping_add(1), weight.wrapping_sub(1)] {
                let is_finite = f32::from_bits(u32::from(other) << 16).is_finite();
                prop_assert!(!is_finite || distance(weight) <= distance(other));
                prop_assert!(!is_finite || distance(weight) < distance(other) || weight & 1 == 0);
            }
        }

        #[test]
        fn one_wrong_bit_is_seen(masters in proptest::collection::vec(any::<u32>(), 1..1000), at in any::<usize>()) {
            let masters: Vec<u8> = masters.iter().flat_map(|master| master.to_le_bytes()).collect();
            let mut weights = vec![0; masters.len() / 2];
            round(&masters, &mut weights);
            prop_assert!(is_rounded(&masters, &weights));
            let bit = at % (8 * weights.len());
            weights[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_rounded(&masters, &weights));
        }
    }
}
