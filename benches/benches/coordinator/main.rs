//! The coordinator over loopback gRPC with its real log, beside what limits it and what a user would ask instead:
//! `make bench-coordinator`, or `cargo bench --bench coordinator`.
//!
//! First a table under load: rate, median and 99th percentile of each operation with several callers. A turn starts
//! every server anew, each in a process of its own, and measures each operation, then its limit on this machine (an
//! empty call of the same sizes through the same gRPC stack, a durable write, bare sockets) and its peers. Ratios are
//! of the same turn. Then criterion's figures for one caller at a time, unless `--only` names what is wanted.
//! Words after `--`: see [`options`].

mod cluster;
mod empty;
mod floor;
#[path = "../foreign.rs"]
mod foreign;
#[path = "../lighthouse.rs"]
mod lighthouse;
mod load;
mod operations;
mod options;
mod peers;
mod rows;
mod server;
mod sidecars;
mod table;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use criterion::Criterion;
use tokio::runtime::Runtime;

use cluster::Cluster;
use load::Load;
use operations::{Operation, Target};
use options::Options;
use peers::{Peers, Program};
use rows::{Group, Row, What};
use table::Table;

const TURN: Duration = Duration::from_secs(1);

/// The executable's, without its settings.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    if std::env::args().any(|word| word == server::SERVE) {
        return server::serve();
    }
    let options = Options::read();
    let clients = Runtime::new().expect("threads can be started");
    under_load(&options, &clients);
    if !options.named {
        one_at_a_time(&clients);
    }
}

fn under_load(options: &Options, clients: &Runtime) {
    println!("before: {}", machine());
    let mut table = Table::new(&options.groups);
    for turn in 0..options.turns {
        eprintln!("turn {} of {}", turn + 1, options.turns);
        table.add(Turn::start(options, clients).measure(order(&options.groups, turn)));
    }
    println!("after: {}", machine());
    println!("{} turns of {TURN:?} each; ours and each peer as new processes in each turn\n", options.turns);
    println!("{table}");
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&table.json()).expect("figures are JSON");
        std::fs::write(file, text).unwrap_or_else(|error| panic!("writing {}: {error}", file.display()));
    }
}

/// All the servers of one turn.
struct Turn<'a> {
    clients: &'a Runtime,
    cluster: Cluster,
    peers: Peers<'a>,
}

impl Turn<'_> {
    fn start<'a>(options: &'a Options, clients: &'a Runtime) -> Turn<'a> {
        let cluster = Cluster::start(clients);
        let peers = Peers::start(clients, &options.peers, &wanted(&options.groups), &cluster.sizes);
        Turn { clients, cluster, peers }
    }

    fn measure(&mut self, rows: Vec<Row>) -> HashMap<Row, Load> {
        let mut found = HashMap::new();
        for row in rows {
            if !found.contains_key(&row)
                && let Some(load) = self.run(&row)
            {
                found.insert(row, load);
            }
        }
        found
    }

    fn run(&mut self, row: &Row) -> Option<Load> {
        match row.what {
            What::Ours(operation) => Some(ours(self.clients, &self.cluster, operation, row.callers)),
            What::Peer(asked) => self.peers.measure(asked, row.callers, TURN),
        }
    }
}

fn ours(clients: &Runtime, cluster: &Cluster, operation: Operation, callers: usize) -> Load {
    let target = Target::new(cluster, operation);
    let called = target.clone();
    let call = move |caller| {
        let target = called.clone();
        async move { target.call(caller).await }
    };
    let load = clients.block_on(load::run(callers, TURN, call));
    Load { skews: target.skews(), ..load }
}

fn wanted(groups: &[Group]) -> HashSet<Program> {
    let peer = |row: &Row| match row.what {
        What::Peer(asked) => Some(asked.of()),
        What::Ours(_) => None,
    };
    groups.iter().flat_map(|group| &group.beside).filter_map(peer).collect()
}

/// Every second turn the other way round: who comes first is at an advantage or not, by what the machine did before.
fn order(groups: &[Group], turn: usize) -> Vec<Row> {
    let all = groups.iter().flat_map(|group| [&group.ours].into_iter().chain(&group.beside));
    let mut rows: Vec<Row> = all.filter(|row| turn == 0 || !once(row)).copied().collect();
    if turn % 2 == 1 {
        rows.reverse();
    }
    rows
}

fn once(row: &Row) -> bool {
    matches!(row.what, What::Peer(asked) if asked.once())
}

/// What there is of it, and how busy it is.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{cores} cores, load {}", load.split(' ').next().unwrap_or("unknown"))
}

fn one_at_a_time(clients: &Runtime) {
    let cluster = Cluster::start(clients);
    let mut criterion = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    let mut group = criterion.benchmark_group("coordinator");
    for operation in Operation::ONE_AT_A_TIME {
        let target = Target::new(&cluster, operation);
        group.bench_function(operation.name(), |bencher| {
            bencher.iter(|| clients.block_on(target.call(0)));
        });
    }
    group.finish();
}
