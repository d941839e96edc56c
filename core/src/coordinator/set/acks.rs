//! When the others last obeyed this coordinator: by that a leader knows that nobody else leads meanwhile, whatever it slept through.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// By number of the peer: the term, and when what it answered was sent.
#[derive(Default)]
pub struct Acks(Mutex<BTreeMap<u64, (u64, Instant)>>);

impl Acks {
    /// `peer` has taken what was sent to it at `sent` by this coordinator as the leader of `term`.
    pub fn note(&self, peer: u64, term: u64, sent: Instant) {
        let mut all = self.0.lock();
        let known = all.entry(peer).or_insert((term, sent));
        if (term, sent) > *known {
            *known = (term, sent);
        }
    }

    /// How long ago a majority of the set, this one with it, last took it for the leader of `term`; None: it never has.
    pub fn age(&self, term: u64, majority: usize) -> Option<Duration> {
        let now = Instant::now();
        let all = self.0.lock();
        let mut ages: Vec<Duration> =
            all.values().filter(|(of, _)| *of == term).map(|(_, sent)| now.duration_since(*sent)).collect();
        ages.sort();
        ages.get(majority.checked_sub(2)?).copied()
    }

    /// How long ago `peer` last took this one for the leader of `term`.
    pub fn silence(&self, peer: u64, term: u64) -> Option<Duration> {
        self.0.lock().get(&peer).filter(|(of, _)| *of == term).map(|(_, sent)| sent.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_that_of_the_majority_in_this_term() {
        let (acks, now) = (Acks::default(), Instant::now());
        assert_eq!(acks.age(2, 2), None);
        acks.note(2, 1, now);
        assert_eq!(acks.age(2, 2), None, "another term's");
        acks.note(2, 2, now - Duration::from_secs(60));
        let alone = acks.age(2, 2).unwrap();
        assert!(alone >= Duration::from_secs(60));
        assert_eq!(acks.age(2, 3), None, "of five, two others are needed");
        acks.note(3, 2, now);
        acks.note(3, 2, now - Duration::from_secs(5));
        assert!(acks.age(2, 2).unwrap() < alone && acks.age(2, 3).unwrap() >= Duration::from_secs(60));
    }
}
