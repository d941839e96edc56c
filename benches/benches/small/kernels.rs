//! How fast one core makes a chunk small and whole again.

use std::hint::black_box;
use std::time::Instant;

use strata_core::format::chunks::CHUNK_BYTES;
use strata_core::format::delta::{self, Onto, Width};

use crate::{median, states};

const ROUNDS: usize = 41;

/// GB/s of decoded bytes, the median of several rounds.
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    let once = || {
        let started = Instant::now();
        work();
        bytes as f64 / started.elapsed().as_secs_f64() / 1e9
    };
    median(std::iter::repeat_with(once).take(ROUNDS).collect())
}

fn chunk(state: &[states::Tensor], prefix: &str) -> Vec<u8> {
    let tensors = state.iter().filter(|tensor| tensor.name.starts_with(prefix));
    let mut bytes: Vec<u8> = tensors.flat_map(|tensor| tensor.bytes.iter().copied()).collect();
    bytes.truncate(CHUNK_BYTES as usize);
    bytes
}

/// A table of rates over chunks of a real state and of its base.
pub fn print(base: &[states::Tensor], after: &[states::Tensor]) {
    println!("| GB/s of one core, chunks of 4 MiB | bf16 weights | fp32 masters |\n|---|---|---|");
    let kinds = [("model.", Width::Two), ("master.", Width::Four)];
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    for (prefix, width) in kinds {
        let (old, new) = (chunk(base, prefix), chunk(after, prefix));
        let bytes = new.len();
        let (mut planes, mut frame, mut back) = (vec![0; bytes], vec![0; bytes], old.clone());
        let mut add = |row: usize, name, rate| {
            if rows.len() <= row {
                rows.push((name, Vec::new()));
            }
            rows[row].1.push(rate);
        };
        add(0, "planes of the chunk", rate(bytes, || delta::split(width, black_box(&new), &mut planes)));
        add(1, "… and back", rate(bytes, || delta::join(width, black_box(&planes), &mut back)));
        let difference = |planes: &mut [u8]| delta::split_difference(width, black_box(&new), &old, planes);
        add(2, "planes of the difference", rate(bytes, || difference(&mut planes)));
        add(3, "… and back", rate(bytes, || delta::join_difference(width, black_box(&planes), &mut back)));
        let mut stored = 0;
        let mut encode = || {
            let estimate = delta::estimate(width, &new, Some(&old));
            difference(&mut planes);
            let compressed = delta::compress(width, &planes, &estimate, &mut frame);
            stored = compressed.expect("zstd works").expect("it fits");
        };
        add(4, "whole encode: samples, difference, planes, zstd", rate(bytes, &mut encode));
        encode();
        let decode = rate(bytes, || {
            back.copy_from_slice(&old);
            let decoded = delta::decompress(width, black_box(&frame[..stored]), Onto::Base, &mut back);
            decoded.expect("it was encoded before");
        });
        assert!(back == new, "what was encoded comes back");
        add(5, "whole decode, and a copy of the base", decode);
    }
    for (name, rates) in rows {
        println!("| {name} | {:.2} | {:.2} |", rates[0], rates[1]);
    }
    let (masters, weights) = (chunk(after, "master."), chunk(after, "model."));
    let half = masters.len() / 2;
    let mut rounded = vec![0; half];
    let compare = rate(half, || assert!(delta::is_rounded(black_box(&masters), &weights[..half])));
    println!("| weights compared with their masters, rounded | {compare:.2} | |");
    println!(
        "| weights made of their masters | {:.2} | |",
        rate(half, || delta::round(black_box(&masters), &mut rounded))
    );
}
