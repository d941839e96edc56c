//! The window beside stores that are played: requests share what the store and the line have.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const PART: f64 = 16e6;
/// A pure thing: the same every time. The noise of many more was looked at by hand.
const SEEDS: std::ops::Range<u64> = 0..20;

/// A store and the line to it.
struct Played {
    /// Seconds before the first byte.
    way: f64,
    /// Bytes a second of one connection, and of all together.
    each: f64,
    all: f64,
    /// Refuses what comes while so many are in flight.
    refuses_from: usize,
}

struct Request {
    began: f64,
    waits: f64,
    left: f64,
}

/// Plays `requests` requests from the clock's time on, each followed by the next as soon as the window lets it; the widths on
/// the way.
fn play(store: &Played, window: &mut Window, clock: &mut f64, requests: usize, seed: u64) -> Vec<usize> {
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut now, mut flight, mut begun, mut widths) = (*clock, Vec::<Request>::new(), 0, Vec::new());
    let at = Duration::from_secs_f64;
    while begun < requests || !flight.is_empty() {
        while begun < requests && flight.len() < window.width() {
            if flight.len() >= store.refuses_from {
                window.refused(at(now), at(now));
                continue;
            }
            let noise = chance.random_range(0.8..1.25);
            flight.push(Request { began: now, waits: store.way * noise, left: PART * noise });
            begun += 1;
        }
        let sending = flight.iter().filter(|request| request.waits <= 0.0).count().max(1);
        let rate = store.each.min(store.all / sending as f64);
        let next = |request: &Request| match request.waits > 0.0 {
            true => request.waits,
            false => request.left / rate,
        };
        let step = flight.iter().map(next).fold(f64::MAX, f64::min).max(1e-6);
        now += step;
        for request in &mut flight {
            match request.waits > 0.0 {
                true => request.waits -= step,
                false => request.left -= step * rate,
            }
        }
        let full = flight.len() >= window.width() && begun < requests;
        flight.retain(|request| {
            let ended = request.waits <= 0.0 && request.left <= 1.0;
            if ended {
                window.brought(at(now), at(request.began), PART as u64, full);
            }
            !ended
        });
        widths.push(window.width());
    }
    *clock = now;
    widths
}

/// The share of what is possible, once it has found its width.
fn share(store: &Played, seed: u64) -> (f64, usize) {
    let (mut window, mut clock) = (Window::new(64), 0.0);
    play(store, &mut window, &mut clock, 1500, seed);
    let began = clock;
    play(store, &mut window, &mut clock, 3000, seed + 1);
    let took = clock - began;
    let best = (1..=64).map(|width| {
        let width = width as f64;
        (width * PART / (store.way + PART / store.each)).min(store.all)
    });
    (3000.0 * PART / took / best.fold(0.0, f64::max), window.width())
}

#[test]
fn it_finds_what_a_store_takes() {
    let far = |way, each, all| Played { way, each, all, refuses_from: usize::MAX };
    for (store, widths) in [
        // As S3 is seen from a machine with 25 Gbit/s.
        (far(0.04, 85e6, 3e9), 32..=64),
        (far(0.04, 85e6, 1e9), 8..=32),
        // On the same machine: one request has it all.
        (far(0.001, 2e9, 500e6), 1..=32),
        // A slow line.
        (far(0.1, 20e6, 40e6), 1..=32),
    ] {
        for seed in SEEDS {
            let (share, width) = share(&store, seed);
            assert!(share > 0.85, "{share} of {}, {width} wide; seed {seed}", store.all);
            assert!(widths.contains(&width), "{width} wide for {}; seed {seed}", store.all);
        }
    }
}

#[test]
fn a_store_that_refuses_is_asked_less_and_gets_most_of_what_it_takes() {
    let store = Played { way: 0.02, each: 50e6, all: 10e9, refuses_from: 12 };
    for seed in SEEDS {
        let (mut window, mut clock) = (Window::new(64), 0.0);
        play(&store, &mut window, &mut clock, 500, seed);
        let began = clock;
        let widths = play(&store, &mut window, &mut clock, 3000, seed + 1);
        assert!(widths.iter().all(|&width| width <= 24), "{widths:?}; seed {seed}");
        let most = 12.0 * PART / (store.way + PART / store.each);
        let share = 3000.0 * PART / (clock - began) / most;
        assert!(share > 0.6, "{share} of what it takes; seed {seed}");
    }
}

#[test]
fn what_was_tried_in_vain_is_taken_back_whole() {
    // The line is full with one request, and 24 is not twice 16.
    let store = Played { way: 0.001, each: 1e9, all: 400e6, refuses_from: usize::MAX };
    let (mut window, mut clock) = (Window::new(24), 0.0);
    let widths = play(&store, &mut window, &mut clock, 100, 0);
    let mut changes = widths;
    changes.dedup();
    assert_eq!(changes, [16, 24, 16]);
}

#[test]
fn time_in_which_nobody_asks_is_no_time_of_the_store() {
    let (mut window, at) = (Window::new(1), Duration::from_secs);
    for save in 0..ROUND as u64 + 1 {
        window.brought(at(100 * save + 1), at(100 * save), 1000, true);
    }
    let Phase::Settled { rate, .. } = window.phase else { panic!("{:?}", window.phase) };
    assert!((999.0..1001.0).contains(&rate), "{rate} bytes a second");
}

#[test]
fn one_flight_is_cut_once() {
    let mut window = Window::new(64);
    let at = Duration::from_millis;
    for request in 0..FIRST as u64 {
        window.refused(at(100 + request), at(10 + request));
    }
    assert_eq!(window.width(), FIRST / 2);
    window.refused(at(300), at(200));
    assert_eq!(window.width(), FIRST / 4);
    for round in 0..10 {
        window.refused(at(400 + 10 * round), at(391 + 10 * round));
    }
    assert_eq!(window.width(), 1);
}

#[test]
fn what_comes_in_between_pauses_is_put_together() {
    let store = Played { way: 0.03, each: 30e6, all: 5e9, refuses_from: usize::MAX };
    let (mut window, mut clock) = (Window::new(64), 0.0);
    for save in 0..20 {
        play(&store, &mut window, &mut clock, 50, save);
        clock += 60.0;
    }
    assert!(window.width() >= 32, "{} wide", window.width());
}

#[test]
fn nothing_is_learnt_from_who_asks_for_little() {
    let mut window = Window::new(64);
    for second in 0..500 {
        let now = Duration::from_secs(second);
        window.brought(now, now.saturating_sub(Duration::from_millis(50)), 16 << 20, false);
    }
    assert_eq!(window.width(), FIRST);
}
