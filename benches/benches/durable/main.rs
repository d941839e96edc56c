//! How much of the disk's own rate reaches a committed step: `make bench-durable`, or `cargo bench --bench durable`.
//!
//! Rounds that take turns, each on new files of the same size on the same disk (TMPDIR): fio, our writer with io_uring
//! and with threads, a save through session, sidecar and coordinator until its COMMIT is acknowledged, and then fio's
//! and our reads. Words after `--`: `--rounds 7`, `--mb 1080`.

#[path = "../node.rs"]
mod node;
#[allow(dead_code, reason = "the other bench asks for more of it")]
#[path = "../checkpoint_throughput/rank.rs"]
mod rank;

mod fio;
mod served;
mod table;
#[allow(dead_code, reason = "the other bench asks for more of it")]
#[path = "../checkpoint_throughput/trainer.rs"]
mod trainer;
mod writer;

use std::path::Path;

use strata_core::storage::{DiskQueue, StoreOptions, StoreUrl};

use fio::Way;
use rank::Rank;
use served::Served;
use table::{Figure, Table};

/// As users count: 10^6 bytes.
const MB: usize = 1_000_000;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == served::WORD) {
        return served::serve(Path::new(&words[2]));
    }
    let number = |flag: &str, otherwise: usize| {
        let given = words.iter().skip_while(|word| *word != flag).nth(1);
        given.map_or(otherwise, |text| text.parse().expect("a whole number"))
    };
    let (rounds, bytes) = (number("--rounds", 7), number("--mb", 1080) * MB);
    if !fio::is_there() {
        println!("durable: left out, fio is not installed; hint: make bench-durable installs it");
        return;
    }
    measure(rounds, bytes);
}

fn measure(rounds: usize, bytes: usize) {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let options = StoreOptions::default();
    let url = StoreUrl::local(folder.path().join("rank")).expect("the path is absolute");
    let mut rank = runtime.block_on(Rank::start(&url, &options, bytes));
    // What is restored in every round.
    runtime.block_on(rank.save());
    let staged = rank.staged();
    let mut node = Served::start(&folder.path().join("served"), bytes);
    let threads = StoreOptions { disk_queue: DiskQueue::Threads, ..options.clone() };

    let mut table = Table::new(staged.len());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        table.add("fio: write, fsync", fio::run(Way::Write, folder.path(), staged.len()));
        table.add("writer, io_uring", writer::write(folder.path(), &options, &staged));
        table.add("writer, threads", writer::write(folder.path(), &threads, &staged));
        let saved = node.save();
        table.add("save() until COMMIT is acknowledged; CPU of the sidecar", saved.whole);
        table.add("  of it: save() blocks", saved.block);
        table.add("  of it: after save()", saved.behind);
        table.add("fio: read", fio::run(Way::Read, folder.path(), staged.len()));
        table.add("restore from the store, verified", Figure::of(|| runtime.block_on(rank.restore())));
    }
    print!("{table}");
}
