//! Coordinators as `strata coordinator` starts them, each a process with a home and a port of its own.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use strata_core::config::{Environment, Flag};
use strata_core::roles::{self, RoleOptions};

use crate::process::Process;

/// What the bench starts itself with.
pub const SERVER: &str = "--as-server";
const SECRET: &str = "a secret of the coordinators of a bench";

/// In the child: `words` are its home, its port and, of a set, the list of all.
pub fn serve(words: &[String]) {
    let [home, port, peers @ ..] = words else { panic!("a home and a port") };
    let port = format!(":{port}");
    let mut env =
        vec![("STRATA_HOME", home.as_str()), ("XDG_CONFIG_HOME", home.as_str()), ("STRATA_LOG", "error")];
    if let [list] = peers {
        env.extend([("STRATA_PEERS", list.as_str()), ("STRATA_PEERS_SECRET", SECRET)]);
    }
    let options = RoleOptions {
        env: Environment::of(env),
        config: None,
        flags: vec![
            Flag::new("--port", "coordinator.listen", &port),
            Flag::new("--http-port", "coordinator.http", ":0"),
        ],
        hooks_runner: vec![],
    };
    roles::coordinator(&options).expect("a coordinator on a home of its own serves until it is told to end");
}

/// One alone, or a set.
pub struct Coordinators {
    ports: Vec<u16>,
    homes: tempfile::TempDir,
    processes: Vec<Process>,
}

impl Coordinators {
    /// All at once, on empty homes. Nobody leads yet when this returns.
    pub fn start(count: usize) -> Coordinators {
        let held: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
        let ports: Vec<u16> =
            held.iter().map(|held| held.local_addr().expect("it is bound").port()).collect();
        drop(held);
        let homes = tempfile::tempdir().expect("a temporary directory can be made");
        let processes = (0..count).map(|which| start(&ports, homes.path(), which)).collect();
        Coordinators { ports, homes, processes }
    }

    pub fn urls(&self) -> Vec<String> {
        urls(&self.ports)
    }

    /// SIGKILL, and on the same home and port again later, by [`Self::restart`].
    pub fn kill(&self, which: usize) {
        signal(&self.processes[which], Signal::KILL);
    }

    /// Of one that was killed.
    pub fn restart(&mut self, which: usize) {
        let fresh = start(&self.ports, self.homes.path(), which);
        std::mem::replace(&mut self.processes[which], fresh).end();
    }

    pub fn end(self) {
        self.processes.iter().for_each(|process| signal(process, Signal::TERM));
        self.processes.into_iter().for_each(Process::end);
    }
}

fn urls(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect()
}

fn start(ports: &[u16], homes: &Path, which: usize) -> Process {
    let home = homes.join(which.to_string());
    let mut words = vec![SERVER.to_owned(), home.display().to_string(), ports[which].to_string()];
    if ports.len() > 1 {
        words.push(urls(ports).join(","));
    }
    Process::start(&words)
}

fn signal(process: &Process, signal: Signal) {
    let pid = Pid::from_raw(process.pid() as i32).expect("a child has a pid");
    kill_process(pid, signal).expect("it is our child");
}
