//! How fast a rank has its state back: `make bench-restore`, or `cargo bench --bench restore`.
//!
//! Rounds that take turns. On the same node: one pass of CRC32C over the state on all cores (the limit: every byte is
//! checked before it is handed out), and a restore to tensors that are mapped, through session, sidecar and coordinator.
//! From the disk (TMPDIR), past the page cache: fio, our restore, and torch's `dcp.load` of its own checkpoint in a fresh
//! process. Words after `--`: `--rounds 7`, `--mb 1080`, `--python PYTHON_WITH_TORCH` (else `dcp.load` is left out).

#[path = "../node.rs"]
mod node;
#[allow(dead_code, reason = "the other benches ask for more of it")]
#[path = "../checkpoint_throughput/rank.rs"]
mod rank;
#[allow(dead_code, reason = "the other benches ask for more of it")]
#[path = "../checkpoint_throughput/trainer.rs"]
mod trainer;

#[allow(dead_code, reason = "the other bench writes too")]
#[path = "../durable/fio.rs"]
mod fio;
mod peer;
#[path = "../durable/table.rs"]
mod table;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use strata_core::storage::{StoreOptions, StoreUrl, crc32c};

use fio::Way;
use node::Node;
use peer::DcpLoad;
use rank::Rank;
use table::{Figure, Table};
use trainer::Trainer;

/// As users count: 10^6 bytes.
const MB: usize = 1_000_000;
/// As chunks are summed.
const CHUNK: usize = 4 << 20;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let word = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1);
    let number = |flag: &str, otherwise: usize| {
        word(flag).map_or(otherwise, |text| text.parse().expect("a whole number"))
    };
    let (rounds, bytes) = (number("--rounds", 7), number("--mb", 1080) * MB);
    let has_fio = fio::is_there();
    if !has_fio {
        println!(
            "restore: the disk's rate is left out, fio is not installed; hint: make bench-restore installs it"
        );
    }
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let dcp = word("--python").map(|python| DcpLoad::save(python, &folder.path().join("dcp"), bytes));
    same_node(rounds, bytes);
    from_disk(rounds, bytes, folder.path(), has_fio, dcp.as_ref());
}

fn same_node(rounds: usize, bytes: usize) {
    let store = tempfile::tempdir().expect("a temporary directory can be made");
    let node = Node::start(&store.path().join("store"), 2);
    let mut trainer = Trainer::join(&node.socket(), bytes);
    let mut table = Table::new(bytes);
    for round in 1..=rounds {
        eprintln!("same node, round {round} of {rounds}");
        table.add(CHECK, Figure::of(|| summed(trainer.state())));
        table.add("restore() to mapped tensors, every byte checked", Figure::of(|| trainer.restore_mapped()));
        table.add("restore() to a copy", Figure::of(|| trainer.restore_copied()));
    }
    println!("{table}");
}

const CHECK: &str = "limit: one pass of CRC32C, all cores";

/// Over memory whose page tables are filled, as the sidecar's are.
fn summed(state: &[u8]) -> Duration {
    let chunks: Vec<&[u8]> = state.chunks(CHUNK).collect();
    let (next, sums) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            sums.fetch_add(crc32c(chunk) as usize, Ordering::Relaxed);
        }
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 1..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
        work();
    });
    let took = started.elapsed();
    assert!(sums.into_inner() > 0);
    took
}

fn from_disk(rounds: usize, bytes: usize, folder: &std::path::Path, has_fio: bool, dcp: Option<&DcpLoad>) {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let url = StoreUrl::local(folder.join("rank")).expect("the path is absolute");
    let mut rank = runtime.block_on(Rank::start(&url, &StoreOptions::default(), bytes));
    runtime.block_on(rank.save());
    let mut table = Table::new(bytes);
    for round in 1..=rounds {
        eprintln!("from the disk, round {round} of {rounds}");
        if has_fio {
            table.add("limit: fio, read", fio::run(Way::Read, folder, bytes));
        }
        table.add("restore from the store, verified", Figure::of(|| runtime.block_on(rank.restore())));
        if let Some(dcp) = dcp {
            table.add("torch dcp.load, fresh process, cache dropped", dcp.load());
        }
    }
    println!("{table}");
}
