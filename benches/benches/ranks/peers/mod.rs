//! What a user would ask instead, as far as it goes on this machine: torch's TCPStore and torchft's lighthouse, with as
//! many connections, each of which speaks for the same ranks. Neither writes anything down, and neither knows whether a
//! rank lives: what is put beside ours is that all have joined and hold one generation.

mod tcpstore;
mod torchft;

use std::path::PathBuf;
use std::time::Duration;

use crate::Size;

/// The interpreters that have them.
pub struct Paths {
    pub tcpstore: Option<PathBuf>,
    pub torchft: Option<PathBuf>,
}

/// One that has been tried.
pub struct Row {
    name: String,
    connections: u32,
    outcome: Outcome,
    /// Of the server, in KiB: before the first connection (an interpreter is in it), with all, and at most.
    before: f64,
    bare: f64,
    memory: f64,
}

pub enum Outcome {
    /// From the first that joins until the last holds the generation.
    Joined(Duration),
    Stopped(String),
}

/// Tries each that is there once, and prints what came of it. `told`: bytes that a sidecar of ours is told.
pub fn beside(paths: &Paths, size: Size, told: usize) {
    let mut rows = Vec::new();
    match &paths.tcpstore {
        Some(python) => rows.push(tcpstore::join(python, size, told)),
        None => println!("left out, for want of a Python with torch: --tcpstore PYTHON"),
    }
    match &paths.torchft {
        Some(python) => rows.extend(torchft::join(python, size)),
        None => println!("left out, for want of a Python with torchft: --torchft PYTHON"),
    }
    if rows.is_empty() {
        return;
    }
    println!(
        "\n{:<42}{:>12}{:>18}{:>13}{:>12}{:>12}",
        "beside it, once", "connections", "first to last, s", "before, MiB", "bare, MiB", "most, MiB"
    );
    for row in &rows {
        let (joined, why) = match &row.outcome {
            Outcome::Joined(took) => (format!("{:.2}", took.as_secs_f64()), ""),
            Outcome::Stopped(why) => ("-".to_owned(), why.as_str()),
        };
        let [before, bare, most] =
            [row.before, row.bare, row.memory].map(|kib| format!("{:.1}", kib / 1024.0));
        println!(
            "{:<42}{:>12}{joined:>18}{before:>13}{bare:>12}{most:>12}  {why}",
            row.name, row.connections
        );
    }
}
