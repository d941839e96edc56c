//! What a user would load with instead: torch's distributed checkpoint, from files that no cache holds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::table::Figure;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/dcp_load.py");

pub struct DcpLoad {
    python: String,
    folder: PathBuf,
}

impl DcpLoad {
    /// Saves a state of about `bytes` in `folder`.
    pub fn save(python: &str, folder: &Path, bytes: usize) -> DcpLoad {
        let peer = DcpLoad { python: python.to_owned(), folder: folder.to_owned() };
        peer.run("save", bytes);
        peer
    }

    /// The time of the call alone, in a process that has imported what it needs, and its CPU time.
    pub fn load(&self) -> Figure {
        let text = self.run("load", 0);
        let mut numbers = text.split_whitespace().map(|word| word.parse::<f64>().expect("seconds"));
        let mut next = || Duration::from_secs_f64(numbers.next().expect("two numbers"));
        Figure { took: next(), cpu: next(), checking: Duration::ZERO }
    }

    fn run(&self, what: &str, bytes: usize) -> String {
        let mut command = Command::new(&self.python);
        command.arg(SCRIPT).arg(what).arg(&self.folder).arg(bytes.to_string()).stderr(Stdio::inherit());
        let output = command.output().expect("the Python that was named starts");
        assert!(output.status.success(), "dcp_load.py {what} ended with {}", output.status);
        String::from_utf8(output.stdout).expect("it prints numbers")
    }
}
