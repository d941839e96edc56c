//! A child of the bench that is told what to do on its standard input, a word a line, and answers on its output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// This executable again, with other words.
    pub fn start(words: &[String]) -> Process {
        let this = std::env::current_exe().expect("a running executable has a path");
        let mut child = Command::new(this)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this executable can be started");
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
}
