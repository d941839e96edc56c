//! How many requests to one bucket are in flight at once, in one direction. Neither the store nor the line says how many
//! it takes, so it is tried, by the rate: doubled as long as that brings more (as BBR's start-up: Cardwell et al., ACM
//! Queue 14(5), 2016), then half and twice as many now and then; the fewest that bring as much are kept. A store that
//! refuses (429, 503) or lets requests time out halves them, once for all that were in flight, and gets one more for each
//! round without (additive increase, multiplicative decrease: Chiu and Jain, 1989).
//!
//! Pure: it is told what ended when. Times count from any one moment.

use std::time::Duration;

/// Before anything is known: more than a store in the same rack needs, and few enough for a slow line.
pub const FIRST: usize = 16;
/// More requests are worth it if they bring so much of the rate before; two rounds of equal width differ by less.
const GAIN: f64 = 1.1;
/// Fewer are, if they bring so much of it.
const AS_MUCH: f64 = 0.99;
/// Rounds between two trials.
const REST: u32 = 12;
/// Rounds that go by after a refusal before anything but one more is tried.
const CAREFUL: u32 = 16;
/// What tells a rate: so many requests, and so often as many as are in flight. A trial is short, as it may cost half of the
/// rate while it lasts.
const ROUND: usize = 16;
const FLIGHTS: usize = 3;
const FLIGHTS_TRIED: usize = 1;

#[derive(Debug)]
pub struct Window {
    width: usize,
    most: usize,
    phase: Phase,
    round: Round,
    /// Requests that began before had no part in the last refusal's answer.
    cut: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The width before, and the rate that it brought; none: there was no round yet.
    Doubling {
        before: Option<(usize, f64)>,
    },
    /// The rate, and how many rounds it was seen in.
    Settled {
        rate: f64,
        rounds: u32,
        next: Trial,
    },
    /// For one round; `rate` is what `kept` brought.
    Trying {
        kept: usize,
        rate: f64,
        trial: Trial,
    },
    Careful {
        rounds: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trial {
    Half,
    Twice,
}

/// What comes in while as many as may be are in flight, all of it asked for at the same width.
#[derive(Debug)]
struct Round {
    /// Requests that began before were of another width.
    asked_from: Duration,
    /// What came in last, unless fewer were in flight since.
    last: Option<Duration>,
    took: Duration,
    ended: usize,
    bytes: u64,
}

impl Round {
    fn asked_from(asked_from: Duration) -> Round {
        Round { asked_from, last: None, took: Duration::ZERO, ended: 0, bytes: 0 }
    }
}

impl Window {
    /// `most`: never more, 1 at least.
    pub fn new(most: usize) -> Window {
        let most = most.max(1);
        Window {
            width: FIRST.min(most),
            most,
            phase: Phase::Doubling { before: None },
            round: Round::asked_from(Duration::ZERO),
            cut: Duration::ZERO,
        }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// A request has brought its bytes. `full`: as many as may be were in flight, so that the rate is theirs and not that of
    /// who asks.
    pub fn brought(&mut self, now: Duration, began: Duration, bytes: u64, full: bool) {
        let round = &mut self.round;
        if began < round.asked_from {
            return;
        }
        let last = if full { round.last.replace(now) } else { round.last.take() };
        // Until the first one came in nobody knows how much of it came meanwhile.
        let Some(last) = last else { return };
        // One that was asked for later ends a time in which nobody asked: with a width of 1 there are such.
        round.took += now.saturating_sub(last.max(began));
        round.ended += 1;
        round.bytes += bytes;
        let flights = match self.phase {
            Phase::Doubling { .. } | Phase::Trying { .. } => FLIGHTS_TRIED,
            Phase::Settled { .. } | Phase::Careful { .. } => FLIGHTS,
        };
        if round.ended < ROUND.max(flights * self.width) || round.took.is_zero() {
            return;
        }
        let (width, rate) = (self.width, round.bytes as f64 / round.took.as_secs_f64());
        let next = match full {
            true => Round { last: Some(now), ..Round::asked_from(round.asked_from) },
            false => Round::asked_from(round.asked_from),
        };
        self.end_round(rate);
        self.round = if self.width == width { next } else { Round::asked_from(now) };
    }

    /// The store has refused a request, or let it time out.
    pub fn refused(&mut self, now: Duration, began: Duration) {
        if began < self.cut {
            return;
        }
        self.width = (self.width / 2).max(1);
        self.cut = now;
        self.phase = Phase::Careful { rounds: 0 };
        self.round = Round::asked_from(now);
    }

    fn end_round(&mut self, rate: f64) {
        self.phase = match self.phase {
            Phase::Doubling { before: Some((kept, before)) } if rate < GAIN * before => {
                self.width = kept;
                Phase::Settled { rate: before, rounds: 0, next: Trial::Half }
            }
            Phase::Doubling { .. } if self.width < self.most => self.double(rate),
            Phase::Doubling { .. } => Phase::Settled { rate, rounds: 0, next: Trial::Half },
            Phase::Settled { rate: before, rounds, next } => {
                let rate = (before + rate) / 2.0;
                match rounds + 1 < REST {
                    true => Phase::Settled { rate, rounds: rounds + 1, next },
                    false => self.attempt(next, rate),
                }
            }
            Phase::Trying { trial: Trial::Twice, rate: before, .. } if rate >= GAIN * before => {
                match self.width < self.most {
                    true => self.double(rate),
                    false => Phase::Settled { rate, rounds: 0, next: Trial::Half },
                }
            }
            // Half brings as much: perhaps a quarter does.
            Phase::Trying { trial: Trial::Half, rate: before, .. } if rate >= AS_MUCH * before => {
                Phase::Settled { rate, rounds: REST / 2, next: Trial::Half }
            }
            Phase::Trying { kept, rate, trial } => {
                self.width = kept;
                let next = trial.other();
                Phase::Settled { rate, rounds: 0, next }
            }
            Phase::Careful { rounds } if rounds + 1 < CAREFUL => {
                self.width = (self.width + 1).min(self.most);
                Phase::Careful { rounds: rounds + 1 }
            }
            Phase::Careful { .. } => Phase::Settled { rate, rounds: 0, next: Trial::Twice },
        };
    }

    fn double(&mut self, rate: f64) -> Phase {
        let before = Some((self.width, rate));
        self.width = (2 * self.width).min(self.most);
        Phase::Doubling { before }
    }

    fn attempt(&mut self, trial: Trial, rate: f64) -> Phase {
        let kept = self.width;
        self.width = match trial {
            Trial::Half => (kept / 2).max(1),
            Trial::Twice => (2 * kept).min(self.most),
        };
        match self.width == kept {
            true => Phase::Settled { rate, rounds: 0, next: trial.other() },
            false => Phase::Trying { kept, rate, trial },
        }
    }
}

impl Trial {
    fn other(self) -> Trial {
        match self {
            Trial::Half => Trial::Twice,
            Trial::Twice => Trial::Half,
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
