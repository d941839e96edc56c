//! The data plane: ring, placement, order, reading. `cargo bench --bench data_loading`.
//!
//! The groups `assignment/*` are the operations and sizes of the table workers / shards, assignment, memory: building
//! the ring and the exact map from nothing, and the change when one worker goes. Memory is heap held, printed once.

use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strata_core::data::{
    Assignment, Batches, DatasetSpec, Dtype, Format, HeldShards, OnDamage, Share, resolve,
};
use strata_core::ids::{Rank, WorldSize};
use strata_core::proto::v1;
use strata_core::sharding::{DatasetKey, ORDER_WINDOW, Order, Permutation, Placement, Ring, Tail};

const SIZES: [(u32, u32); 3] = [(10, 1_000), (100, 10_000), (1_000, 100_000)];

fn assignment(criterion: &mut Criterion) {
    let key = DatasetKey::new("imagenet");
    let mut group = criterion.benchmark_group("assignment");
    group.sample_size(20);
    for (workers, shards) in SIZES {
        let size = format!("{workers}/{shards}");
        let ring = Ring::of_world(WorldSize(workers)).expect("at least one worker");
        let placement = Placement::new(None, &ring, key, shards);
        let survivors: Vec<Rank> = (0..workers).filter(|rank| *rank != workers / 2).map(Rank).collect();
        let fewer = Ring::new(&survivors).expect("at least one worker");
        let moved = placement.moves(&Placement::new(Some(&placement), &fewer, key, shards)).len();
        println!(
            "assignment {size}: map {} KB, ring {} KB, one worker of {workers} gone moves {moved} shards",
            placement.heap_bytes() / 1_000,
            ring.heap_bytes() / 1_000,
        );

        group.bench_function(BenchmarkId::new("ring", &size), |bencher| {
            bencher.iter(|| Ring::of_world(black_box(WorldSize(workers))));
        });
        group.bench_function(BenchmarkId::new("map", &size), |bencher| {
            bencher.iter(|| Placement::new(None, black_box(&ring), key, shards));
        });
        group.bench_function(BenchmarkId::new("ring and map", &size), |bencher| {
            bencher.iter(|| {
                let ring = Ring::of_world(black_box(WorldSize(workers))).expect("at least one worker");
                Placement::new(None, &ring, key, shards)
            });
        });
        group.bench_function(BenchmarkId::new("change of map", &size), |bencher| {
            bencher.iter(|| Placement::new(Some(black_box(&placement)), &fewer, key, shards));
        });
        // What the coordinator answers everyone with.
        let map = Assignment::new(registered(shards), WorldSize(workers)).expect("a world of ranks");
        group.bench_function(BenchmarkId::new("shards of a rank", &size), |bencher| {
            let mut epoch = 0;
            bencher.iter(|| {
                epoch += 1;
                map.shards(black_box(Rank(workers / 2)), epoch).expect("a rank of the world")
            });
        });
        // What a sidecar answers the eight ranks of its node with: each goes to the next epoch after a hundred questions.
        let held = HeldShards::new(map);
        group.bench_function(
            BenchmarkId::new("shards of a rank, from the sidecar's copy", &size),
            |bencher| {
                let mut asked = 0;
                bencher.iter(|| {
                    asked += 1;
                    held.of(black_box(Rank(asked % 8)), u64::from(asked / 800)).expect("a rank of the world")
                });
            },
        );
    }
}

/// A shuffled dataset of so many shards, each in a file of its own.
fn registered(shards: u32) -> v1::DatasetSpec {
    const SHARD: u64 = 1_000;
    let file = |number| v1::DataFile { path: format!("/data/train/part-{number:06}"), samples: SHARD };
    v1::DatasetSpec {
        id: "imagenet".into(),
        total_samples: u64::from(shards) * SHARD,
        shard_size: SHARD,
        shuffle: true,
        version: 1,
        files: (0..shards).map(file).collect(),
        ..Default::default()
    }
}

/// Samples and shard sizes of epochs: ImageNet's, a trillion tokens' worth of 2,048, and a trillion samples.
const EPOCHS: [(u64, u64); 3] = [(1_281_167, 10_000), (488_281_250, 65_536), (1_000_000_000_000, 65_536)];
/// Positions that a rank takes at once.
const AT_ONCE: u64 = 256;

/// From nothing to an epoch's first sample, then a sample for each position: one by one in order, one by one anywhere,
/// and a batch at once, as `Batches` takes them. The limit beside them is the two permutations that a sample needs.
fn order(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("order");
    for (samples, shard_size) in EPOCHS {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("first sample of an epoch", samples), |bencher| {
            let mut epoch = 0;
            bencher.iter(|| {
                epoch += 1;
                Order::new(1, 2, black_box(epoch), samples, shard_size, true).sample_at(black_box(0))
            });
        });
        let order = Order::new(1, 2, 3, samples, shard_size, true);
        group.bench_function(BenchmarkId::new("sample_at, in order", samples), |bencher| {
            let mut position = samples / 2;
            bencher.iter(|| {
                position = if position + 1 < samples { position + 1 } else { 0 };
                order.sample_at(black_box(position))
            });
        });
        group.bench_function(BenchmarkId::new("sample_at, anywhere", samples), |bencher| {
            let mut number = 0;
            bencher.iter(|| {
                number += 1;
                order.sample_at(black_box(anywhere(number, samples)))
            });
        });
        let (window, shards) =
            (Permutation::new(ORDER_WINDOW * shard_size, 1), Permutation::new(order.shards(), 2));
        group.bench_function(BenchmarkId::new("limit: two permutations", samples), |bencher| {
            let mut number = 0;
            bencher.iter(|| {
                number += 1;
                let mixed = window.apply(black_box(anywhere(number, ORDER_WINDOW * shard_size)));
                shards.apply(mixed % ORDER_WINDOW)
            });
        });
        group.throughput(Throughput::Elements(AT_ONCE));
        group.bench_function(BenchmarkId::new(format!("a batch of {AT_ONCE}"), samples), |bencher| {
            let (mut batch, mut start) = (Vec::new(), samples / 2);
            bencher.iter(|| {
                start = if start + 2 * AT_ONCE < samples { start + AT_ONCE } else { 0 };
                batch.clear();
                order.extend_with(&mut batch, black_box(start..start + AT_ONCE));
                batch.last().copied()
            });
        });
    }
}

/// A number below `limit` that has nothing to do with its neighbours (Steele et al. 2014, SplitMix).
fn anywhere(number: u64, limit: u64) -> u64 {
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let spread = (spread ^ (spread >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((u128::from(spread ^ (spread >> 32)) * u128::from(limit)) >> 64) as u64
}

/// Batches of 64 samples of 1,024 two-byte tokens, from a file in the page cache.
fn reading(criterion: &mut Criterion) {
    const SAMPLES: u64 = 32_768;
    const BATCH: u64 = 64;
    const SAMPLE_LEN: u32 = 1_024;
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let path = folder.path().join("tokens.bin");
    let bytes = SAMPLES * u64::from(SAMPLE_LEN) * 2;
    fs::write(&path, vec![1; bytes as usize]).expect("the temporary directory has room for 64 MiB");

    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(BATCH * u64::from(SAMPLE_LEN) * 2));
    for (name, shuffle) in [("in order", false), ("shuffled", true)] {
        let format = Format::Tokens { dtype: Dtype::Uint16, sample_len: SAMPLE_LEN };
        let bare = DatasetSpec::new("tokens", &path, format, 1_024);
        let spec = DatasetSpec { total_samples: SAMPLES, shuffle, seed: 1, ..bare };
        let (spec, _) = resolve(spec, OnDamage::Raise).expect("the file holds what is declared");
        let share = Share::new(spec, Rank(0), WorldSize(1), BATCH, Tail::Drop, OnDamage::Raise)
            .expect("the file is there");
        let mut at = share.cursor(None).expect("it has one");
        let share = Arc::new(share);
        let mut batches = Batches::new(share.clone(), at.clone(), 1, 0);
        group.bench_function(BenchmarkId::new("batch of 64 x 1024 uint16", name), |bencher| {
            bencher.iter(|| {
                loop {
                    if let Some(batch) = batches.next_batch(|| Ok(())).expect("the file is whole") {
                        return batch;
                    }
                    at = at.next_epoch();
                    batches = Batches::new(share.clone(), at.clone(), 1, 0);
                }
            });
        });
    }
}

criterion_group!(benches, assignment, order, reading);
criterion_main!(benches);
