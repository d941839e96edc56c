//! Randomised campaigns of the fault tests: how many rounds each plays, from which seed, and how they went. Every room's
//! tests may use it. In the suite a sample is played; `make torture` asks for the full number and reads the results.

#![allow(dead_code, reason = "each campaign uses its own part")]

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// How many rounds every campaign plays, in place of the suite's sample.
const ROUNDS: &str = "STRATA_TORTURE_ROUNDS";
/// Replays what a run printed.
const SEED: &str = "STRATA_TORTURE_SEED";

pub struct Campaign {
    name: &'static str,
    seed: u64,
    rounds: u64,
    /// Whether somebody follows the progress.
    followed: bool,
    counts: BTreeMap<&'static str, u64>,
}

impl Campaign {
    /// `sample`: rounds in the suite.
    pub fn new(name: &'static str, sample: u64) -> Campaign {
        let given = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let rounds = given(ROUNDS);
        let seed = given(SEED).unwrap_or_else(rand::random);
        println!("{name}: seed {seed} (replay with {SEED}={seed})");
        let (followed, rounds) = (rounds.is_some(), rounds.unwrap_or(sample));
        Campaign { name, seed, rounds, followed, counts: BTreeMap::new() }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Of one round alone: drawn from the seed and the round's number.
    pub fn random(&self, round: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_add(round << 32 | round))
    }

    /// Plays every round with randomness of its own.
    pub fn play(&mut self, mut round: impl FnMut(&mut Campaign, &mut StdRng)) {
        self.play_each(self.rounds, |campaign, number| {
            let mut random = campaign.random(number);
            round(campaign, &mut random);
        });
    }

    /// Plays as many rounds as the thing under test has of them.
    pub fn play_each(&mut self, rounds: u64, mut round: impl FnMut(&mut Campaign, u64)) {
        for number in 0..rounds {
            if self.followed && number * 100 / rounds != (number + 1) * 100 / rounds {
                println!("torture-progress {} {} {rounds}", self.name, number + 1);
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(self, number)));
            if let Err(panic) = outcome {
                println!("{}: failed in round {number} of {rounds}, seed {}", self.name, self.seed);
                std::panic::resume_unwind(panic);
            }
        }
        *self.counts.entry("rounds").or_default() += rounds;
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// For the report; called when everything held.
    pub fn held(self) {
        let counts = serde_json::json!({ "name": self.name, "seed": self.seed, "counts": self.counts });
        println!("torture-result {counts}");
    }
}
