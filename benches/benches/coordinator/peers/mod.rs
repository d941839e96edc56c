//! What a user would ask instead, each in processes of its own that a turn starts anew: etcd, torchft's lighthouse and
//! torch's TCPStore. The first two are asked by the same gRPC client as our own server.

mod etcd;
mod process;
mod tcpstore;
mod torchft;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::empty::Sizes;
use crate::lighthouse;
use crate::load::Load;
use crate::operations::Ranks;
use etcd::Etcd;
use process::PATIENCE;
use tcpstore::Store;
use torchft::Lighthouse;

const HUNDRED: usize = 100;
const THOUSAND: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    Etcd,
    Torchft,
    TcpStore,
}

/// What is measured of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    KeepAlive,
    Put,
    Beat,
    Quorum(Ranks),
    Add,
    Get,
    Meet,
}

impl Program {
    pub const ALL: [Program; 3] = [Program::Etcd, Program::Torchft, Program::TcpStore];

    /// The word before its path on the command line.
    pub fn flag(self) -> &'static str {
        match self {
            Program::Etcd => "--etcd",
            Program::Torchft => "--torchft",
            Program::TcpStore => "--tcpstore",
        }
    }

    /// What the path must be of.
    pub fn wanted(self) -> &'static str {
        match self {
            Program::Etcd => "an etcd",
            Program::Torchft => "a Python with torchft",
            Program::TcpStore => "a Python with torch",
        }
    }

    pub fn version(self, path: &Path) -> String {
        match self {
            Program::Etcd => {
                let words = printed(Command::new(path).arg("--version"));
                words.lines().next().unwrap_or_default().to_owned()
            }
            Program::Torchft => printed(Command::new(path).args([lighthouse::SCRIPT, "version"])),
            Program::TcpStore => printed(Command::new(path).args([tcpstore::SCRIPT, "version"])),
        }
    }
}

impl Asked {
    pub fn of(self) -> Program {
        match self {
            Asked::KeepAlive | Asked::Put => Program::Etcd,
            Asked::Beat | Asked::Quorum(_) => Program::Torchft,
            Asked::Add | Asked::Get | Asked::Meet => Program::TcpStore,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Asked::KeepAlive => "etcd: lease keep-alive, a stream each",
            Asked::Put => "etcd: put",
            Asked::Beat => "torchft lighthouse: heartbeat",
            Asked::Quorum(Ranks::Hundred) => "torchft lighthouse: quorum of 100",
            Asked::Quorum(Ranks::Thousand) => "torchft lighthouse: quorum of 1,000",
            Asked::Add => "TCPStore: add, a process each",
            Asked::Get => "TCPStore: get, a process each",
            Asked::Meet => "TCPStore: barrier, 100 processes, from the last arrival",
        }
    }

    /// Whether it takes so long that the first turn alone has it.
    pub fn once(self) -> bool {
        self == Asked::Quorum(Ranks::Thousand)
    }
}

/// Where the programs are that this run has.
pub type Paths = HashMap<Program, PathBuf>;

/// Those of one turn.
pub struct Peers<'a> {
    clients: &'a Runtime,
    paths: &'a Paths,
    etcd: Option<Etcd>,
    lighthouse: Option<Lighthouse>,
    store: Option<Store>,
}

impl<'a> Peers<'a> {
    /// Starts those of `wanted` that are there.
    pub fn start(
        clients: &'a Runtime,
        paths: &'a Paths,
        wanted: &HashSet<Program>,
        sizes: &Sizes,
    ) -> Peers<'a> {
        let path = |program| paths.get(&program).filter(|_| wanted.contains(&program));
        Peers {
            clients,
            paths,
            etcd: path(Program::Etcd).map(|path| Etcd::start(clients, path, sizes.register.request)),
            lighthouse: path(Program::Torchft).map(|path| Lighthouse::start(clients, path, HUNDRED)),
            store: path(Program::TcpStore).map(|path| Store::start(path, sizes.get_shards.reply)),
        }
    }

    /// None where the program isn't there.
    pub fn measure(&mut self, asked: Asked, callers: usize, time: Duration) -> Option<Load> {
        let clients = self.clients;
        match asked {
            Asked::KeepAlive => Some(self.etcd.as_ref()?.keep_alive(clients, callers, time)),
            Asked::Put => Some(self.etcd.as_ref()?.put(clients, callers, time)),
            Asked::Beat => Some(self.lighthouse.as_ref()?.beat(clients, callers, time)),
            Asked::Quorum(Ranks::Hundred) => Some(self.lighthouse.as_ref()?.quorum(clients, time)),
            // One that waits for so many replicas has to be told so when it starts.
            Asked::Quorum(Ranks::Thousand) => {
                let path = self.paths.get(&Program::Torchft)?;
                Some(Lighthouse::start(clients, path, THOUSAND).quorum(clients, time))
            }
            Asked::Add => Some(self.store.as_mut()?.run("add", callers, time)),
            Asked::Get => Some(self.store.as_mut()?.run("get", callers, time)),
            Asked::Meet => Some(self.store.as_mut()?.run("barrier", HUNDRED, time)),
        }
    }
}

/// What a program prints that is asked for its version.
fn printed(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
