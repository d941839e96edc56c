//! What is measured, and what it is put beside: a row of ours, then its limit and its peers of the same turn.
//!
//! A new row is a line in [`groups`] and, where nothing does it yet, an [`Operation`].

use crate::empty::Like;
use crate::operations::{Operation, Ranks};
use crate::peers::Asked;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    Ours(Operation),
    Peer(Asked),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub what: What,
    pub callers: usize,
}

pub struct Group {
    /// As `--only` names it.
    pub key: &'static str,
    pub ours: Row,
    pub beside: Vec<Row>,
    /// What is asked of ours by the project.
    pub wanted: &'static str,
}

impl Row {
    pub fn name(&self) -> &'static str {
        match self.what {
            What::Ours(operation) => operation.name(),
            What::Peer(asked) => asked.name(),
        }
    }
}

/// In the order of the table. A barrier of whatever size counts as one caller, who waits for its end.
pub fn groups() -> Vec<Group> {
    use Operation::{Barrier, EmptyAndSync, EmptyByAll, Folded, Frames, Register, Sockets};
    let meetings = [Asked::Quorum(Ranks::Hundred), Asked::Meet];
    vec![
        heartbeats(8),
        heartbeats(32),
        shards(8),
        shards(32),
        group("registration", 1, Register, EmptyAndSync(Like::Register), &[Asked::Put], "0.77: 1/1.3"),
        group("registration", 200, Register, Operation::Empty(Like::Register), &[Asked::Put], "0.5"),
        group("barrier-100", 1, Barrier, EmptyByAll, &meetings, "800/s where sockets do 1,600"),
        group(
            "barrier-100",
            1,
            Folded(Ranks::Hundred),
            Sockets(Ranks::Hundred),
            &meetings,
            "3,000/s, p99 1 ms where sockets do 7,000 to 10,000",
        ),
        group(
            "barrier-1000",
            1,
            Folded(Ranks::Thousand),
            Sockets(Ranks::Thousand),
            &[Asked::Quorum(Ranks::Thousand)],
            "p99 3 ms, skew 1 ms where sockets do 2,000/s",
        ),
        Group { key: "frames", ours: ours(Frames, 1), beside: Vec::new(), wanted: "500,000" },
    ]
}

fn heartbeats(callers: usize) -> Group {
    let peers = [Asked::KeepAlive, Asked::Beat, Asked::Add];
    let empty = Operation::Empty(Like::Heartbeat);
    group("heartbeat", callers, Operation::Heartbeat, empty, &peers, "0.9; p99 1.2")
}

fn shards(callers: usize) -> Group {
    let empty = Operation::Empty(Like::GetShards);
    group("get-shard", callers, Operation::GetShards, empty, &[Asked::Get], "0.9")
}

fn group(
    key: &'static str,
    callers: usize,
    measured: Operation,
    limit: Operation,
    peers: &[Asked],
    wanted: &'static str,
) -> Group {
    let peers = peers.iter().map(|asked| Row { what: What::Peer(*asked), callers });
    let beside = [ours(limit, callers)].into_iter().chain(peers).collect();
    Group { key, ours: ours(measured, callers), beside, wanted }
}

fn ours(operation: Operation, callers: usize) -> Row {
    Row { what: What::Ours(operation), callers }
}
