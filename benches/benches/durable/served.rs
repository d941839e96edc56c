//! A node in a process of its own, so that its CPU time can be told from its trainer's.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use strata_core::checksum;

use crate::node::Node;
use crate::table::{Figure, process_cpu};
use crate::trainer::Trainer;

/// The first word of the process's command line; the folder follows.
pub const WORD: &str = "serve-a-node";
/// What a run leaves behind stays small.
const KEPT: u32 = 2;

/// Coordinator and sidecar until standard input ends. Every line of it is answered by the CPU time used so far, and that of
/// sums, in nanoseconds.
pub fn serve(folder: &Path) {
    let node = Node::start(&folder.join("store"), KEPT);
    println!("{}", node.socket().display());
    for line in std::io::stdin().lock().lines() {
        line.expect("the bench writes text");
        println!("{} {}", process_cpu().as_nanos(), checksum::spent().cpu.as_nanos());
        std::io::stdout().flush().expect("the bench reads");
    }
}

pub struct Served {
    trainer: Trainer,
    /// None: it is to end.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    child: Child,
}

pub struct Saved {
    /// With the sidecar's CPU time.
    pub whole: Figure,
    /// With the trainer's.
    pub block: Figure,
    pub behind: Figure,
}

impl Served {
    pub fn start(folder: &Path, bytes: usize) -> Served {
        let own = std::env::current_exe().expect("the bench knows its file");
        let mut child = Command::new(own)
            .arg(WORD)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bench starts itself");
        let requests = child.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut socket = String::new();
        answers.read_line(&mut socket).expect("the node says where it listens");
        let trainer = Trainer::join(Path::new(socket.trim_end()), bytes);
        Served { trainer, requests: Some(requests), answers, child }
    }

    /// All of it, and that of sums.
    fn cpu(&mut self) -> [Duration; 2] {
        let requests = self.requests.as_mut().expect("it is not to end yet");
        writeln!(requests, "cpu").expect("the node reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the node answers");
        let mut numbers =
            answer.split_whitespace().map(|number| number.parse().expect("a number of nanoseconds"));
        [(); 2].map(|()| Duration::from_nanos(numbers.next().expect("two numbers")))
    }

    pub fn save(&mut self) -> Saved {
        let before = self.cpu();
        let mut took = (Duration::ZERO, Duration::ZERO);
        let block = Figure::of(|| {
            took = self.trainer.save();
            took.0
        });
        let whole = took.1;
        // Retention and the checksums of the slot go on for a while.
        std::thread::sleep(Duration::from_millis(500));
        let after = self.cpu();
        let node = |took| Figure { took, cpu: after[0] - before[0], checking: after[1] - before[1] };
        Saved { whole: node(whole), block, behind: node(whole - block.took) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // By itself, so that it takes its arenas with it.
        self.requests = None;
        self.child.wait().expect("it is our child");
    }
}
