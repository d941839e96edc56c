//! Words after `--`: `--etcd PATH --torchft PYTHON --tcpstore PYTHON --only KEY... --json FILE --turns 5`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::peers::{Paths, Program};
use crate::rows::{self, Group};

const TURNS: usize = 5;

pub struct Options {
    pub peers: Paths,
    pub groups: Vec<Group>,
    /// Whether groups were named: then nothing else is wanted.
    pub named: bool,
    pub json: Option<PathBuf>,
    pub turns: usize,
}

impl Options {
    /// Of this process. Says which peers are left out, and how to have them.
    pub fn read() -> Options {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let after = |flag: &str| {
            let behind = words.iter().skip_while(|word| *word != flag).skip(1);
            behind.take_while(|word| !word.starts_with("--")).cloned().collect::<Vec<String>>()
        };
        let one = |flag: &str| after(flag).into_iter().next();
        let only = after("--only");
        Options {
            peers: peers(one),
            groups: chosen(&only),
            named: !only.is_empty(),
            json: one("--json").map(PathBuf::from),
            turns: one("--turns").map_or(TURNS, |text| text.parse().expect("--turns takes a whole number")),
        }
    }
}

fn peers(one: impl Fn(&str) -> Option<String>) -> Paths {
    let given = |program: Program| Some((program, PathBuf::from(one(program.flag())?)));
    let found: Paths = Program::ALL.into_iter().filter_map(given).collect();
    for program in Program::ALL {
        match found.get(&program) {
            Some(path) => println!("beside us: {}", program.version(path)),
            None => println!(
                "left out, for want of {}: {} PATH; hint: make bench-coordinator fetches it",
                program.wanted(),
                program.flag()
            ),
        }
    }
    found
}

fn chosen(only: &[String]) -> Vec<Group> {
    let mut groups = rows::groups();
    let keys: BTreeSet<&str> = groups.iter().map(|group| group.key).collect();
    for name in only {
        assert!(keys.contains(name.as_str()), "--only {name}: there are {keys:?}");
    }
    groups.retain(|group| only.is_empty() || only.iter().any(|name| name == group.key));
    groups
}
