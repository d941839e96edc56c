//! The way to one bucket in one direction, shared by everything in this process that sends or brings large bodies there:
//! how many of them are in flight, and how many bytes one has, both by what was measured. COMMIT, OWNER, manifests and
//! listings go past it: what decides something never waits for bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::window::Window;
use crate::telemetry::Requests;

/// S3 and GCS take parts from 5 MiB (the last one apart); Azure takes any.
pub const SMALLEST_PART: u64 = 5 << 20;
/// What waits in a writer is within the memory that whoever encodes has set aside for it.
pub const LARGEST_PART: u64 = 16 << 20;
/// The least that is worth a request of its own where the store is near.
const USUAL_PART: u64 = 8 << 20;
/// A body takes so many times as long as its way.
const BODY_PER_WAY: f64 = 10.0;
/// And no more than this share of the time-out, also when others slow it down.
const OF_TIMEOUT: f64 = 0.25;
/// Weight of the newest of a run of measurements.
const NEWEST: f64 = 0.125;

#[derive(Debug)]
pub struct Lane {
    places: Arc<Semaphore>,
    state: Mutex<State>,
    /// Times count from here.
    start: Instant,
    shown: Requests,
}

#[derive(Debug)]
struct State {
    window: Window,
    /// Places that are to go when whoever has them is done.
    owed: usize,
    /// Seconds of a request that carries next to nothing.
    way: Option<f64>,
    /// Bytes a second of one body, its way included.
    pace: Option<f64>,
}

impl Lane {
    /// `most`: requests in flight; `shown`: where it is told what they have come to.
    pub fn new(most: usize, shown: Requests) -> Arc<Lane> {
        let window = Window::new(most);
        shown.most.set(window.width() as i64);
        Arc::new(Lane {
            places: Arc::new(Semaphore::new(window.width())),
            state: Mutex::new(State { window, owed: 0, way: None, pace: None }),
            start: Instant::now(),
            shown,
        })
    }

    /// Waits for a place; those that ask first have it first.
    pub async fn enter(self: &Arc<Lane>) -> Pass {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("it is never closed");
        Pass { lane: Arc::clone(self), place: Some(place), began: Instant::now() }
    }

    /// How many may be in flight at once.
    pub fn width(&self) -> usize {
        self.state.lock().window.width()
    }

    /// How many bytes a body had better have that must be sent again as a whole after `timeout`.
    pub fn part_bytes(&self, timeout: Duration) -> u64 {
        let state = self.state.lock();
        let (Some(way), Some(pace)) = (state.way, state.pace) else { return USUAL_PART };
        let wanted = ((BODY_PER_WAY * way * pace) as u64).clamp(USUAL_PART, LARGEST_PART);
        wanted.min((OF_TIMEOUT * timeout.as_secs_f64() * pace) as u64).max(SMALLEST_PART)
    }

    /// A request with next to no body was answered.
    pub fn answered(&self, took: Duration) {
        let mut state = self.state.lock();
        state.way = Some(blend(state.way, took.as_secs_f64()));
    }

    /// A request that began at `began` was refused for want of room at the store, or has timed out.
    pub fn refused(&self, began: Instant) {
        self.shown.refusals.inc();
        let mut state = self.state.lock();
        let (now, began) = (self.start.elapsed(), began.saturating_duration_since(self.start));
        self.change(&mut state, |window| window.refused(now, began));
    }

    fn change(&self, state: &mut State, change: impl FnOnce(&mut Window)) {
        let before = state.window.width();
        change(&mut state.window);
        let after = state.window.width();
        let kept = (after.saturating_sub(before)).min(state.owed);
        state.owed -= kept;
        self.places.add_permits(after.saturating_sub(before) - kept);
        let gone = before.saturating_sub(after);
        state.owed += gone - self.places.forget_permits(gone);
        self.shown.most.set(after as i64);
    }
}

fn blend(known: Option<f64>, newest: f64) -> f64 {
    known.map_or(newest, |known| known + NEWEST * (newest - known))
}

/// A place in the lane; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    lane: Arc<Lane>,
    place: Option<OwnedSemaphorePermit>,
    began: Instant,
}

impl Pass {
    /// The request has carried its body.
    pub fn carried(self, bytes: u64) {
        let lane = &self.lane;
        let mut state = lane.state.lock();
        let took = self.began.elapsed().as_secs_f64().max(1e-6);
        if bytes >= SMALLEST_PART {
            state.pace = Some(blend(state.pace, bytes as f64 / took));
        }
        let (now, began) = (lane.start.elapsed(), self.began.saturating_duration_since(lane.start));
        let full = lane.places.available_permits() == 0;
        lane.change(&mut state, |window| window.brought(now, began, bytes, full));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.lane.state.lock();
        let Some(place) = self.place.take() else { return };
        if state.owed > 0 {
            state.owed -= 1;
            place.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::window::FIRST;
    use super::*;

    fn enter(lane: &Arc<Lane>) -> Option<Pass> {
        lane.enter().now_or_never()
    }

    #[test]
    fn as_many_as_the_window_says_are_in_flight() {
        let lane = Lane::new(64, Requests::default());
        let mut flight: Vec<Pass> = (0..FIRST).map(|_| enter(&lane).unwrap()).collect();
        assert!(enter(&lane).is_none());
        lane.refused(Instant::now());
        assert_eq!((lane.width(), lane.shown.refusals.get()), (FIRST / 2, 1));
        for left in (0..FIRST).rev() {
            drop(flight.pop());
            // The place is free again only when fewer are in flight than may be.
            let place = enter(&lane);
            assert_eq!(place.is_some(), left < FIRST / 2, "{left} in flight");
        }
        let again: Vec<Pass> = (0..FIRST).map_while(|_| enter(&lane)).collect();
        assert_eq!(again.len(), FIRST / 2);
    }

    #[test]
    fn places_that_were_to_go_stay_when_the_window_grows_again() {
        let lane = Lane::new(64, Requests::default());
        let flight: Vec<Pass> = (0..FIRST).map(|_| enter(&lane).unwrap()).collect();
        lane.refused(Instant::now());
        lane.change(&mut lane.state.lock(), |window| *window = Window::new(FIRST));
        drop(flight);
        let again: Vec<Pass> = (0..2 * FIRST).map_while(|_| enter(&lane)).collect();
        assert_eq!(again.len(), FIRST);
    }

    #[test]
    fn parts_are_as_long_as_way_and_time_out_ask_for() {
        let timeout = Duration::from_secs(30);
        let part = |way: f64, pace: f64| {
            let lane = Lane::new(64, Requests::default());
            assert_eq!(lane.part_bytes(timeout), USUAL_PART, "nothing is known");
            (lane.state.lock().way, lane.state.lock().pace) = (Some(way), Some(pace));
            lane.part_bytes(timeout)
        };
        for (way, pace, expected) in [
            (0.0005, 100e6, USUAL_PART),
            (0.012, 100e6, 12_000_000),
            (0.05, 85e6, LARGEST_PART),
            (0.05, 800e3, 6_000_000),
            (0.05, 1e3, SMALLEST_PART),
        ] {
            assert_eq!(part(way, pace), expected, "{way} s, {pace} bytes a second");
        }
    }
}
