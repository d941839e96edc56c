//! A trainer as a process of its own, which can be killed: this test program, started again for one test that plays it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::trainer::{State, Trainer};
use strata_core::client::{ConnectOptions, Uninterrupted};
use strata_core::ids::{Rank, WorldSize};

const PART: &str = "STRATA_TEST_TRAINER";

/// Starts one that joins as `rank` of `world`, and saves `step` without waiting for its commit.
pub fn start(socket: &Path, job: &str, rank: u32, world: u32, step: u64, done: &Path) -> Child {
    let part = format!("{} {job} {rank} {world} {step} {}", socket.display(), done.display());
    let own = std::env::current_exe().unwrap();
    Command::new(own)
        .args(["plays_a_trainer", "--exact", "--nocapture"])
        .env(PART, part)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The body of the test `plays_a_trainer`; does nothing where this program was not started for it.
pub fn play() {
    let Ok(part) = std::env::var(PART) else { return };
    let words: Vec<&str> = part.split(' ').collect();
    let [socket, job, rank, world, step, done] = words[..] else { panic!("{part}") };
    let (rank, step): (u32, u64) = (rank.parse().unwrap(), step.parse().unwrap());
    let trainer = Trainer::connect(ConnectOptions {
        job: job.parse().unwrap(),
        rank: Rank(rank),
        world_size: WorldSize(world.parse().unwrap()),
        store: None,
        sockets: vec![socket.into()],
        coordinator: None,
        token: None,
        timeout: Duration::from_secs(30),
        version: None,
        stacks: None,
    })
    .unwrap();
    trainer.session.wait_world(None, &Uninterrupted).unwrap();
    let _handle = trainer.save(step, &State::of(rank, step, false)).unwrap();
    std::fs::write(done, "staged").unwrap();
    std::thread::sleep(Duration::from_secs(600));
}
