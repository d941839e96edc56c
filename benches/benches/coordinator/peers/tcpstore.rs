//! torch's TCPStore, by its own client: `benches/peers/tcpstore.py` has the server in a process of its own and forks one
//! for every caller, so that no interpreter lock is shared.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::{Ending, Process};
use crate::load::Load;

pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/tcpstore.py");

pub struct Store(Process);

impl Store {
    /// `value`: bytes of what is got.
    pub fn start(python: &Path, value: usize) -> Store {
        let command = |_: &Path| {
            let mut command = Command::new(python);
            command.args([SCRIPT, "serve", &value.to_string()]);
            command
        };
        let mut process = Process::start(Ending::Input, command);
        assert_eq!(process.line().trim(), "ready");
        Store(process)
    }

    /// `what`: add, get or barrier.
    pub fn run(&mut self, what: &str, callers: usize, time: Duration) -> Load {
        self.0.tell(&format!("{what} {callers} {}", time.as_secs_f64()));
        let line = self.0.line();
        let seconds: Vec<f64> = serde_json::from_str(&line).expect("a list of seconds");
        let mut seconds = seconds.into_iter().map(Duration::from_secs_f64);
        let elapsed = seconds.next().expect("the first is the whole time");
        let latencies: Vec<Duration> = seconds.collect();
        assert!(!latencies.is_empty(), "{what} was done at least once");
        Load { operations: latencies.len() as u64, latencies, skews: Vec::new(), elapsed }
    }
}
