//! The coordinator over loopback gRPC with its real log: `cargo bench --bench coordinator`.
//!
//! First a table under load: rate, median and 99th percentile of each operation with several callers, in turns with
//! the limits of this machine in the same run (an empty call through the same gRPC stack, and a durable write of one
//! block). Then criterion's figures for one caller at a time.

mod cluster;
mod floor;
mod load;
mod operations;
mod sidecars;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use cluster::{BARRIER_RANKS, Cluster};
use load::Load;
use operations::{Operation, Ranks, Target};

const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(1);

struct Row {
    operation: Operation,
    callers: usize,
    turns: Vec<Load>,
}

fn under_load(_: &mut Criterion) {
    let cluster = Cluster::start();
    let wanted = [
        (Operation::Empty, 4),
        (Operation::Heartbeat, 4),
        (Operation::GetShards, 4),
        (Operation::Empty, 32),
        (Operation::Heartbeat, 32),
        (Operation::GetShards, 32),
        (Operation::Sync, 1),
        (Operation::Register, 1),
        (Operation::Register, 200),
        (Operation::EmptyByAll, 1),
        (Operation::Barrier, 1),
        (Operation::Sockets(Ranks::Hundred), 1),
        (Operation::Folded(Ranks::Hundred), 1),
        (Operation::Sockets(Ranks::Thousand), 1),
        (Operation::Folded(Ranks::Thousand), 1),
        (Operation::Frames, 1),
    ];
    let mut rows: Vec<Row> =
        wanted.map(|(operation, callers)| Row { operation, callers, turns: Vec::new() }).into();
    for _ in 0..TURNS {
        for row in &mut rows {
            let target = Target::new(&cluster, row.operation);
            row.turns.push(cluster.clients.block_on(load::run(row.callers, TURN, target)));
        }
    }
    println!("coordinator, {BARRIER_RANKS} workers, {TURNS} turns of {TURN:?} each");
    println!(
        "{:<32}{:>8}{:>12}{:>20}{:>10}{:>10}{:>14}",
        "", "callers", "a second", "of turns", "p50 ms", "p99 ms", "p99 skew ms"
    );
    for row in &rows {
        let rates = load::sorted(row.turns.iter().map(Load::rate));
        let all =
            load::sorted(row.turns.iter().flat_map(|turn| turn.latencies.iter().map(Duration::as_secs_f64)));
        let skews =
            load::sorted(row.turns.iter().flat_map(|turn| turn.skews.iter().map(Duration::as_secs_f64)));
        println!(
            "{:<32}{:>8}{:>12.0}{:>20}{:>10.3}{:>10.3}{:>14}",
            row.operation.name(),
            row.callers,
            load::quantile(&rates, 0.5),
            format!("{:.0}–{:.0}", rates[0], rates[rates.len() - 1]),
            load::quantile(&all, 0.5) * 1e3,
            load::quantile(&all, 0.99) * 1e3,
            if skews.is_empty() {
                String::new()
            } else {
                format!("{:.3}", load::quantile(&skews, 0.99) * 1e3)
            },
        );
    }
}

fn one_at_a_time(criterion: &mut Criterion) {
    let cluster = Cluster::start();
    let mut group = criterion.benchmark_group("coordinator");
    for operation in Operation::ONE_AT_A_TIME {
        let target = Target::new(&cluster, operation);
        group.bench_function(operation.name(), |bencher| {
            bencher.iter(|| cluster.clients.block_on(target.call(0)));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3));
    targets = under_load, one_at_a_time
}
criterion_main!(benches);
