//! Sidecar and coordinator restarted at random moments under trainers that go on saving: nobody is evicted, nothing that
//! was acknowledged is lost, every byte comes back.

mod sidecar;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sidecar::trainer::{committed, contents};
use sidecar::{Cluster, State, Trainer, eventually};
use strata_core::client::{RestoreOptions, Uninterrupted};
use strata_core::error::Kind;
use strata_core::ids::Step;

const STEPS: u64 = 15;
const WORLD: u32 = 3;

#[test]
fn p3_acknowledged_steps_outlive_restarts_at_any_moment() {
    let seed = std::env::var("STRATA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("STRATA_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start();
    let ranks = Trainer::world(&cluster, "j", WORLD);
    let (generation, reached) = (ranks[0].session.generation(), AtomicU64::new(0));
    let mut restarts = 0;
    let newest = std::thread::scope(|scope| {
        let train = |rank: u32| {
            let (trainer, reached) = (&ranks[rank as usize], &reached);
            scope.spawn(move || {
                let mut newest = 0;
                for step in 1..=STEPS {
                    let handle = trainer.save(step, &State::of(rank, step, true)).unwrap();
                    match committed(&handle) {
                        Ok(_) => newest = step,
                        // Another rank, or this one, found no slot: a stated policy, and the next step goes on.
                        Err(error) if error.kind == Kind::Overloaded => {}
                        Err(error) => panic!("rank {rank}, step {step}: {error}"),
                    }
                    reached.fetch_max(step, Ordering::Relaxed);
                }
                newest
            })
        };
        let trainers: Vec<_> = (0..WORLD).map(train).collect();
        while trainers.iter().any(|trainer| !trainer.is_finished()) {
            std::thread::sleep(Duration::from_millis(random.random_range(50..1200)));
            let (sidecar, coordinator) = (random.random_bool(0.7), random.random_bool(0.4));
            if coordinator {
                cluster.stop_coordinator();
            }
            if sidecar {
                cluster.stop_sidecar();
            }
            std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
            if random.random_bool(0.5) && coordinator {
                cluster.start_coordinator();
                if sidecar {
                    cluster.start_sidecar();
                }
            } else {
                if sidecar {
                    cluster.start_sidecar();
                }
                if coordinator {
                    cluster.start_coordinator();
                }
            }
            restarts += 1;
        }
        let newest: Vec<u64> = trainers.into_iter().map(|trainer| trainer.join().unwrap()).collect();
        assert!(newest.iter().all(|step| *step == newest[0]), "{newest:?}");
        newest[0]
    });
    println!("{restarts} restarts, newest committed step {newest} of {STEPS}");
    assert!(newest > 0 && ranks.iter().all(|rank| rank.session.generation() == generation));
    let check = |ranks: &[Trainer]| {
        for (number, rank) in ranks.iter().enumerate() {
            let restored = rank.restore(RestoreOptions::default()).unwrap().unwrap();
            assert_eq!(restored.step(), Step(newest));
            assert_eq!(contents(&restored), State::of(number as u32, newest, true), "{}", restored.source());
        }
    };
    check(&ranks);
    ranks.into_iter().for_each(Trainer::close);
    eventually("the closed job's arenas are removed", || cluster.arena_files().is_empty());
    let ranks = Trainer::world(&cluster, "j", WORLD);
    check(&ranks);
    let steps = ranks[0].session.all_steps(None, &Uninterrupted).unwrap();
    assert_eq!(steps.last().map(|step| step.step), Some(newest));
}
