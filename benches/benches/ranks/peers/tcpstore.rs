//! torch's TCPStore, by its own client: `benches/peers/tcpstore_world.py` has the server in a process of its own, and as
//! many load processes as ours.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Outcome, Row};
use crate::Size;
use crate::process::Process;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/tcpstore_world.py");

pub fn join(python: &Path, size: Size, told: usize) -> Row {
    let numbers = [size.sidecars, size.ranks, size.loads].map(|number| number.to_string());
    let mut command = Command::new(python);
    command.arg(SCRIPT).args(numbers).arg(told.to_string());
    let mut process = Process::of(&mut command);
    let told: Value = serde_json::from_str(&process.hear("told")).expect("the script prints JSON");
    process.end();
    let number = |name: &str| told[name].as_f64().expect("a number");
    Row {
        name: format!("TCPStore of {}", told["version"].as_str().expect("text")),
        connections: number("connections") as u32,
        outcome: match told["stopped"].as_str() {
            None => Outcome::Joined(Duration::from_secs_f64(number("seconds"))),
            Some(why) => Outcome::Stopped(why.to_owned()),
        },
        before: number("before"),
        bare: number("bare"),
        memory: number("memory"),
    }
}
