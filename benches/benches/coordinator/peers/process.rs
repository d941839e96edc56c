//! A peer's process: what it says goes to a file that is shown when it ends before it is told to.

use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a peer may take to start or to end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What makes it end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The end of its standard input; then it ends its children too.
    Input,
    Kill,
}

pub struct Process {
    ending: Ending,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Process {
    /// `command`, with a folder of its own, on the disk that TMPDIR is on.
    pub fn start(ending: Ending, command: impl FnOnce(&Path) -> Command) -> Process {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = command(folder.path());
        let log = File::create(log(&folder)).expect("the directory is ours");
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        Process { ending, child, stdin, stdout: BufReader::new(stdout.expect("it is piped")), folder }
    }

    /// The next line of its output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a pipe can be read");
        assert!(line.ends_with('\n'), "a peer ended and said:\n{}", self.said());
        line
    }

    pub fn tell(&mut self, line: &str) {
        let told = writeln!(self.stdin.as_mut().expect("it is open while the process is ours"), "{line}");
        told.unwrap_or_else(|error| panic!("telling a peer {line:?}: {error}; it said:\n{}", self.said()));
    }

    /// Panics where it has ended.
    pub fn check(&mut self) {
        if let Some(status) = self.child.try_wait().expect("it is our child") {
            panic!("a peer ended with {status} and said:\n{}", self.said());
        }
    }

    fn said(&self) -> String {
        read_to_string(log(&self.folder)).unwrap_or_else(|error| error.to_string())
    }
}

fn log(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("said")
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let began = Instant::now();
        while self.ending == Ending::Input && began.elapsed() < PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(5));
        }
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}
