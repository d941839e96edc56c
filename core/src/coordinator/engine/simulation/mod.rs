//! A whole cluster in one thread and in virtual time: the engine over its log, against nodes that die, freeze, part and
//! come back, drawn from a seed. After every event what must never happen is looked for; then faults end, and everything
//! must come right. The same seed gives the same events.

mod acts;
mod faults;
mod host;
mod node;
mod store;
mod truth;
mod world;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::world::World;
use crate::torture_tests::Campaign;

fn seeded(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

#[test]
fn p4_p6_p7_a_cluster_survives_whatever_happens_to_it() {
    let mut campaign = Campaign::new("cluster", 20);
    campaign.play(|campaign, random| {
        let mut world = World::new(random.random());
        world.run();
        world.faults.iter().for_each(|fault| campaign.count(fault));
    });
    campaign.held();
}

#[test]
fn a_seed_gives_the_same_story_twice() {
    let seed = rand::random();
    println!("seed {seed}");
    let tell = || {
        let mut world = World::new(seed);
        world.run();
        std::mem::take(&mut world.trace.0)
    };
    let (first, second) = (tell(), tell());
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first, second);
    }
    assert_eq!(first.len(), second.len());
}
