//! Who takes part in an attempt, and what a loss means for the next one. Pure: told what happened, and when.

use std::time::Duration;

/// A place that was left out is tried again at last every so often.
const LONGEST_REST: Duration = Duration::from_secs(2 * 3600);

/// The places of a node, one for each rank of a whole world. A place stays what it is (a GPU, a share of the cores)
/// whichever rank runs on it.
pub struct Roster {
    places: Vec<Place>,
    least: usize,
    restarts: Restarts,
    /// How long a place rests when it is left out first. One that is lost within this time of a start has not proven
    /// that it works.
    rest: Duration,
}

#[derive(Clone)]
struct Place {
    /// Attempts in a row that ended early because of it.
    losses: u32,
    /// The next time that it is left out lasts this long.
    rest: Duration,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq)]
enum Standing {
    Works,
    /// Left out until then.
    Out(Duration),
    /// Was left out, and has been started again.
    OnTrial,
}

#[derive(Clone, Copy)]
struct Restarts {
    used: u32,
    allowed: u32,
}

/// After a loss.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// With everybody again: the so-manieth restart of those allowed.
    Again { restart: u32 },
    /// Without the place that was lost, until it is tried again after `rest`.
    Without { rest: Duration },
    /// The restarts are used up, and nobody can be left out.
    End,
}

impl Roster {
    /// `places` of which at least `least` go on; `restarts` of the same line-up are allowed.
    pub fn new(places: u32, least: u32, restarts: u32, rest: Duration) -> Roster {
        let place = Place { losses: 0, rest, standing: Standing::Works };
        Roster {
            places: vec![place; places as usize],
            least: least as usize,
            restarts: Restarts { used: 0, allowed: restarts },
            rest,
        }
    }

    /// The places of an attempt that starts now, ascending. Who has rested is on trial in it.
    pub fn line_up(&mut self, now: Duration) -> Vec<u32> {
        for place in &mut self.places {
            if matches!(place.standing, Standing::Out(until) if until <= now) {
                place.standing = Standing::OnTrial;
            }
        }
        let numbered = (0..).zip(&self.places);
        numbered.filter(|(_, place)| !matches!(place.standing, Standing::Out(_))).map(|(n, _)| n).collect()
    }

    /// When the first of those left out may be tried again.
    pub fn next_trial(&self) -> Option<Duration> {
        let outs = self.places.iter().filter_map(|place| match place.standing {
            Standing::Out(until) => Some(until),
            _ => None,
        });
        outs.min()
    }

    /// An attempt ended because of `place`, `ran` after its start. A place is left out when it is lost twice in a
    /// row, the second time early, or on its trial, or when no restart is left; that takes no restart, and neither does the trial.
    pub fn lost(&mut self, place: u32, ran: Duration, now: Duration) -> Next {
        let proven = ran >= self.rest;
        for (number, other) in (0..).zip(&mut self.places) {
            if proven && other.standing == Standing::OnTrial {
                other.standing = Standing::Works;
            }
            if proven || number != place {
                other.losses = 0;
            }
            if proven {
                other.rest = self.rest;
            }
        }
        let going_on =
            self.places.iter().filter(|place| !matches!(place.standing, Standing::Out(_))).count() - 1;
        let lost = &mut self.places[place as usize];
        lost.losses += 1;
        let spent = self.restarts.used == self.restarts.allowed;
        let is_bad = lost.losses >= 2 || lost.standing == Standing::OnTrial || spent;
        if is_bad && going_on >= self.least {
            let rest = lost.rest;
            *lost =
                Place { losses: 0, rest: (rest * 2).min(LONGEST_REST), standing: Standing::Out(now + rest) };
            return Next::Without { rest };
        }
        if spent {
            return Next::End;
        }
        self.restarts.used += 1;
        Next::Again { restart: self.restarts.used }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Duration = Duration::from_secs(1);
    const REST: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_loss_restarts_everybody_and_the_second_in_a_row_leaves_its_place_out() {
        let mut roster = Roster::new(4, 2, 3, REST);
        assert_eq!(roster.line_up(at(0)), [0, 1, 2, 3]);
        assert_eq!(roster.lost(2, EARLY, at(10)), Next::Again { restart: 1 });
        assert_eq!(roster.line_up(at(10)), [0, 1, 2, 3]);
        assert_eq!(roster.lost(2, EARLY, at(20)), Next::Without { rest: REST });
        assert_eq!(roster.line_up(at(20)), [0, 1, 3]);
        assert_eq!(roster.next_trial(), Some(at(620)));
    }

    #[test]
    fn losses_of_different_places_or_far_apart_are_no_reason_to_leave_one_out() {
        let mut roster = Roster::new(3, 1, 9, REST);
        for (place, ran) in [(0, EARLY), (1, EARLY), (0, EARLY), (1, REST), (1, REST), (2, EARLY), (1, EARLY)]
        {
            assert!(matches!(roster.lost(place, ran, at(9)), Next::Again { .. }), "{place} after {ran:?}");
        }
    }

    #[test]
    fn a_place_that_fails_its_trial_rests_twice_as_long_and_one_that_stands_it_is_as_new() {
        let mut roster = Roster::new(2, 1, 1, REST);
        roster.lost(1, EARLY, at(0));
        assert_eq!(roster.lost(1, EARLY, at(0)), Next::Without { rest: REST });
        assert_eq!(roster.line_up(at(599)), [0]);
        for round in 1..=9 {
            let now = roster.next_trial().unwrap();
            assert_eq!(roster.line_up(now), [0, 1]);
            assert_eq!(roster.next_trial(), None);
            let rest = (REST * (1 << round)).min(LONGEST_REST);
            assert_eq!(roster.lost(1, EARLY, now), Next::Without { rest });
        }
        let now = roster.next_trial().unwrap();
        roster.line_up(now);
        // No restart is left, so it is left out all the same, but for as long as the first time.
        assert_eq!(roster.lost(1, REST, now), Next::Without { rest: REST });
    }

    #[test]
    fn fewer_than_the_least_never_go_on() {
        let mut roster = Roster::new(3, 2, 2, REST);
        assert_eq!(roster.lost(0, EARLY, at(0)), Next::Again { restart: 1 });
        assert_eq!(roster.lost(0, EARLY, at(0)), Next::Without { rest: REST });
        assert_eq!(roster.lost(1, EARLY, at(0)), Next::Again { restart: 2 });
        assert_eq!(roster.lost(1, EARLY, at(0)), Next::End);
    }

    #[test]
    fn without_a_lower_bound_every_loss_takes_a_restart() {
        let mut roster = Roster::new(2, 2, 2, REST);
        assert_eq!(roster.lost(0, EARLY, at(0)), Next::Again { restart: 1 });
        assert_eq!(roster.lost(0, EARLY, at(0)), Next::Again { restart: 2 });
        assert_eq!(roster.lost(0, EARLY, at(0)), Next::End);
        assert_eq!(roster.next_trial(), None);
    }

    #[test]
    fn a_used_up_budget_leaves_places_out_before_it_ends_the_run() {
        let mut roster = Roster::new(3, 1, 0, REST);
        assert_eq!(roster.lost(1, REST * 2, at(0)), Next::Without { rest: REST });
        assert_eq!(roster.lost(0, REST * 2, at(0)), Next::Without { rest: REST });
        assert_eq!(roster.lost(2, REST * 2, at(0)), Next::End);
    }
}
