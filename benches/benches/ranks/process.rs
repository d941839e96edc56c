//! A child of the bench that is told what to do on its standard input, a word a line, and answers on its output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process and its children have so many files open, where they may.
pub fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let is_enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= files);
    if is_enough(limit.current) {
        return true;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    is_enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok()
}

/// Resident memory of a process, in KiB.
pub fn memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells it");
    line.split_whitespace().nth(1).expect("it has a number").parse().expect("in KiB")
}

pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// This executable again, with other words.
    pub fn start(words: &[String]) -> Process {
        let this = std::env::current_exe().expect("a running executable has a path");
        Process::of(Command::new(this).args(words))
    }

    pub fn of(command: &mut Command) -> Process {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let input = child.stdin.take().expect("it is a pipe");
        let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Process { child, input, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn say(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("the process lives");
    }

    /// What stands behind `word`, in the next line that begins with it.
    pub fn hear(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("the process lives");
            assert!(read > 0, "the process ended before it said {word:?}");
            if let Some(rest) = line.trim().strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Its input ends, and so does it.
    pub fn end(self) {
        let Process { mut child, input, output } = self;
        drop(input);
        drop(output);
        child.wait().expect("it is our child");
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}
