//! A rank's checkpoint from its arena to a store and back: `cargo bench --bench checkpoint_throughput`.
//!
//! States of 1, 10 and 100 MB, in a local directory (TMPDIR, on the disk to be measured) and on S3. Each operation
//! stands next to what the machine allows for the same bytes in the same run: a copy by two threads into the same
//! arena, direct writes and reads of the same disk, a plain upload and download.
//!
//! S3 is measured against the server that STRATA_BENCH_S3 (s3://bucket/prefix) and the AWS_* variables name, or
//! against a versitygw that the bench starts (STRATA_VERSITYGW or in PATH), or is left out.

mod limits;
#[path = "../node.rs"]
mod node;
mod rank;
mod s3;
mod trainer;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use strata_core::storage::{StoreOptions, StoreUrl};
use tokio::runtime::{Builder, Runtime};

use node::Node;
use rank::Rank;
use trainer::Trainer;

/// As users count: 10^6 bytes.
const MB: usize = 1_000_000;
/// What a run leaves behind stays small.
const KEPT: u32 = 2;
const SIZES: [usize; 3] = [1, 10, 100];

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().expect("threads can be started")
}

fn local(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let url = StoreUrl::local(folder.path()).expect("a temporary directory has an absolute path");
    let mut group = criterion.benchmark_group("local");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(4));
    for size in SIZES {
        let bytes = size * MB;
        let name = |what| BenchmarkId::new(what, format!("{size} MB"));
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut rank = runtime.block_on(Rank::start(&url, &StoreOptions::default(), bytes));
        let scratch = folder.path().join("limit");

        group.bench_function(name("limit: copy by two threads"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| rank.plain_copy()).sum());
        });
        group.bench_function(name("block: copy into the arena and seal"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| rank.fill_only()).sum());
        });
        group.bench_function(name("limit: direct write and fsync"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| limits::write(&scratch, rank.source())).sum());
        });
        group.bench_function(name("save until committed"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(rank.save())).sum());
        });
        group.bench_function(name("limit: direct read"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| limits::read(&scratch, bytes)).sum());
        });
        group.bench_function(name("restore from the store, verified"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(rank.restore())).sum());
        });
    }
}

/// What a training loop sees: through session, sidecar and coordinator.
fn through_a_node(criterion: &mut Criterion) {
    let store = tempfile::tempdir().expect("a temporary directory can be made");
    let node = Node::start(store.path(), KEPT);
    let mut group = criterion.benchmark_group("node");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(4));
    for size in SIZES {
        let name = |what| BenchmarkId::new(what, format!("{size} MB"));
        group.throughput(Throughput::Bytes((size * MB) as u64));
        let mut trainer = Trainer::join(&node.socket(), size * MB);
        group.bench_function(name("save blocks"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| trainer.save().0).sum());
        });
        group.bench_function(name("save until committed"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| trainer.save().1).sum());
        });
        group.bench_function(name("restore from the arena, verified"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| trainer.restore()).sum());
        });
    }
}

fn on_s3(criterion: &mut Criterion) {
    let Some(server) = s3::Server::find(&std::env::temp_dir()) else {
        println!(
            "s3: left out; hint: set STRATA_VERSITYGW, or STRATA_BENCH_S3 and AWS_* for a server of your own"
        );
        return;
    };
    let runtime = runtime();
    let plain = limits::Plain::new(&server);
    let mut group = criterion.benchmark_group("s3");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(4));
    for size in SIZES {
        let bytes = size * MB;
        let name = |what| BenchmarkId::new(what, format!("{size} MB"));
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut rank = runtime.block_on(Rank::start(&server.url, &server.options, bytes));
        group.bench_function(name("limit: plain upload"), |bencher| {
            bencher
                .iter_custom(|times| (0..times).map(|_| runtime.block_on(plain.upload(rank.source()))).sum());
        });
        group.bench_function(name("save until committed"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(rank.save())).sum());
        });
        group.bench_function(name("limit: plain download"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(plain.download(bytes))).sum());
        });
        group.bench_function(name("restore, verified"), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(rank.restore())).sum());
        });
    }
}

criterion_group!(benches, local, through_a_node, on_s3);
criterion_main!(benches);
