//! A node in a process of its own, so that its CPU time can be told from its trainer's.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::node::Node;
use crate::table::{Figure, process_cpu};
use crate::trainer::Trainer;

/// The first word of the process's command line; the folder follows.
pub const WORD: &str = "serve-a-node";
/// What a run leaves behind stays small.
const KEPT: u32 = 2;

/// Coordinator and sidecar until standard input ends. Every line of it is answered by the CPU time used so far, in
/// nanoseconds.
pub fn serve(folder: &Path) {
    let node = Node::start(&folder.join("store"), KEPT);
    println!("{}", node.socket().display());
    for line in std::io::stdin().lock().lines() {
        line.expect("the bench writes text");
        println!("{}", process_cpu().as_nanos());
        std::io::stdout().flush().expect("the bench reads");
    }
}

pub struct Served {
    trainer: Trainer,
    requests: ChildStdin,
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
        Served { trainer, requests, answers, child }
    }

    fn cpu(&mut self) -> Duration {
        writeln!(self.requests, "cpu").expect("the node reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the node answers");
        Duration::from_nanos(answer.trim_end().parse().expect("a number of nanoseconds"))
    }

    pub fn save(&mut self) -> Saved {
        let (sidecar, own) = (self.cpu(), process_cpu());
        let (block, whole) = self.trainer.save();
        let own = process_cpu() - own;
        // Retention and the checksums of the slot go on for a while.
        std::thread::sleep(Duration::from_millis(500));
        let sidecar = self.cpu() - sidecar;
        Saved {
            whole: Figure { took: whole, cpu: sidecar },
            block: Figure { took: block, cpu: own },
            behind: Figure { took: whole - block, cpu: sidecar },
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}
