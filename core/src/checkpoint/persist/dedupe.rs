//! Equal chunks of one persist are stored once: equal when their bytes compare equal, the sum only says where to look.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

/// The chunks met so far.
#[derive(Default)]
pub struct Originals {
    by_sum: Mutex<HashMap<(u32, usize), Vec<Original>>>,
}

/// A chunk's number and bytes.
type Original = (usize, Bytes);

pub enum Met {
    First,
    /// Equal to the chunk of this number.
    Before(usize),
}

impl Originals {
    /// Chunk `number`, from any thread. Of equal ones exactly one is First.
    pub fn meet(&self, sum: u32, number: usize, bytes: &Bytes) -> Met {
        let key = (sum, bytes.len());
        let mut compared = 0;
        loop {
            let candidates = {
                let mut by_sum = self.by_sum.lock();
                let met = by_sum.entry(key).or_default();
                if met.len() == compared {
                    met.push((number, bytes.clone()));
                    return Met::First;
                }
                met[compared..].to_vec()
            };
            // Without the lock: comparing takes as long as copying.
            if let Some((original, _)) = candidates.iter().find(|(_, other)| other == bytes) {
                return Met::Before(*original);
            }
            compared += candidates.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sums_of_other_bytes_are_not_equal_chunks() {
        let originals = Originals::default();
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert!(matches!(originals.meet(7, 0, &bytes("abc")), Met::First));
        assert!(matches!(originals.meet(7, 1, &bytes("abd")), Met::First));
        assert!(matches!(originals.meet(7, 2, &bytes("abd")), Met::Before(1)));
        assert!(matches!(originals.meet(7, 3, &bytes("abc")), Met::Before(0)));
    }
}
