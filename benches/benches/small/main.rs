//! What INCREMENTAL saves store of a training run, and what that costs: `cargo bench --bench small`.
//!
//! The states come from benches/small/states.py, which says what is trained; STRATA_SMALL_STATES names the folder that it
//! wrote to. They are saved through a session, a sidecar and a coordinator into a directory (TMPDIR, on the disk to be
//! measured), and what is stored of each step is what the coordinator tells of it. Beside it, of the same bytes in the
//! same run: plain zstd, and hf-xet where STRATA_SMALL_PYTHON names a Python that has it.

mod kernels;
#[path = "../node.rs"]
mod node;
mod states;
mod trainer;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use strata_core::proto::v1::SaveKind;

use node::Node;
use trainer::{Saved, Trainer};

/// Of alternating rounds.
const RESTORES: usize = 11;
const MIXED_PAIRS: [(u64, u64); 3] = [(100, 110), (200, 210), (300, 310)];
const CHAIN: [u64; 6] = [300, 310, 320, 330, 340, 350];

/// No chain is longer.
const KEPT: u32 = 100;

/// Name, run, prefix of its tensors, base and next step.
type Pair = (&'static str, &'static str, &'static str, u64, u64);

fn main() {
    let Some(folder) = std::env::var_os("STRATA_SMALL_STATES").map(PathBuf::from) else {
        println!(
            "small: left out; hint: python benches/small/states.py FOLDER, then STRATA_SMALL_STATES=FOLDER"
        );
        return;
    };
    let store = tempfile::tempdir().expect("a temporary directory can be made");
    let node = Node::start(store.path(), KEPT);
    let load =
        |run: &str, step: u64, prefix: &str| states::load(&folder.join(run).join(step.to_string()), prefix);

    kernels::print(&load("mixed", 100, ""), &load("mixed", 110, ""));
    pairs(&node, &folder, &load);
    chain(&node, "mixed", &|step| load("mixed", step, ""));
    chain(&node, "weights", &|step| load("mixed", step, "model."));
    large(&node, "mixed", &|step| load("mixed", step, ""));
    large(&node, "weights", &|step| load("mixed", step, "model."));
}

fn pairs(node: &Node, folder: &Path, load: &dyn Fn(&str, u64, &str) -> Vec<states::Tensor>) {
    let xet = xet(folder);
    let of = |name, prefix| MIXED_PAIRS.map(|(base, next)| (name, "mixed", prefix, base, next));
    let mut pairs: Vec<Pair> = [of("mixed", ""), of("weights", "model.")].concat();
    pairs.push(("lora", "lora", "", 50, 60));
    println!(
        "\n| stored of the state's bytes | FULL | INCREMENTAL, 10 steps on | zstd -1 | zstd -3 | hf-xet, same pair |"
    );
    println!("|---|---|---|---|---|---|");
    let mut cost = Vec::new();
    for (name, run, prefix, base, next) in pairs {
        let trainer = Trainer::join(node, &format!("pair-{name}-{base}"));
        let (before, after) = (load(run, base, prefix), load(run, next, prefix));
        // The first save through a mapping pays for its pages: this one is not counted.
        trainer.save(base - 1, SaveKind::Full, &before);
        let full = trainer.save(base, SaveKind::Full, &before);
        let saved = trainer.save(next, SaveKind::Incremental, &after);
        let plain = |level| {
            let whole: Vec<u8> = after.iter().flat_map(|tensor| tensor.bytes.iter().copied()).collect();
            let stored = zstd::bulk::compress(&whole, level).expect("zstd works").len();
            100.0 * stored as f64 / whole.len() as f64
        };
        let peer = xet.as_ref().map(|found| &found[format!("{name} {base} {next}")]["next"]);
        let peer = peer.and_then(serde_json::Value::as_f64).map(|part| format!("{:.1} %", 100.0 * part));
        println!(
            "| {name} {base} → {next} ({:.0} MB) | {:.1} % | **{:.1} %** | {:.1} % | {:.1} % | {} |",
            states::bytes(&after) as f64 / 1e6,
            100.0 * full.part(),
            100.0 * saved.part(),
            plain(1),
            plain(3),
            peer.as_deref().unwrap_or("not installed")
        );
        cost.push((format!("{name} {base} → {next}"), full, saved));
    }
    println!(
        "\n| save until committed | FULL | INCREMENTAL | CPU-s per GB, FULL | INCREMENTAL |\n|---|---|---|---|---|"
    );
    let cpu = |saved: &Saved| saved.cpu.as_secs_f64() / saved.bytes as f64 * 1e9;
    for (name, full, saved) in cost {
        println!(
            "| {name} | {:.0} ms | {:.0} ms | {:.2} | {:.2} |",
            1e3 * full.committed_after.as_secs_f64(),
            1e3 * saved.committed_after.as_secs_f64(),
            cpu(&full),
            cpu(&saved)
        );
    }
}

/// A run of saves each against the one before, and how long its end takes to restore beside a FULL step of the same state.
fn chain(node: &Node, name: &str, load: &dyn Fn(u64) -> Vec<states::Tensor>) {
    let (chain, whole) =
        (Trainer::join(node, &format!("chain-{name}")), Trainer::join(node, &format!("whole-{name}")));
    println!("\n| {name}, each against the step before | stored |\n|---|---|");
    let mut parts = Vec::new();
    for step in CHAIN {
        let kind = if step == CHAIN[0] { SaveKind::Full } else { SaveKind::Incremental };
        let saved = chain.save(step, kind, &load(step));
        println!("| {step} | {:.1} % |", 100.0 * saved.part());
        parts.extend((step > CHAIN[0]).then(|| saved.part()));
    }
    println!(
        "| mean of the INCREMENTAL ones | {:.1} % |",
        100.0 * parts.iter().sum::<f64>() / parts.len() as f64
    );
    let last = CHAIN[CHAIN.len() - 1];
    let state = load(last);
    whole.save(last, SaveKind::Full, &state);
    restores(&format!("{name} {last}, end of the chain"), &whole, &chain, last, &state);
}

/// The three pairs side by side, as one state that is large enough to keep a disk busy.
fn large(node: &Node, name: &str, load: &dyn Fn(u64) -> Vec<states::Tensor>) {
    let side_by_side = |steps: [u64; 3]| -> Vec<states::Tensor> {
        let named = |(number, step): (usize, u64)| {
            let rename = move |tensor: states::Tensor| states::Tensor {
                name: format!("{number}.{}", tensor.name),
                ..tensor
            };
            load(step).into_iter().map(rename)
        };
        steps.into_iter().enumerate().flat_map(named).collect()
    };
    let (delta, whole) =
        (Trainer::join(node, &format!("large-{name}")), Trainer::join(node, &format!("large-whole-{name}")));
    delta.save(1, SaveKind::Full, &side_by_side(MIXED_PAIRS.map(|(base, _)| base)));
    let state = side_by_side(MIXED_PAIRS.map(|(_, next)| next));
    delta.save(2, SaveKind::Incremental, &state);
    whole.save(2, SaveKind::Full, &state);
    let what = format!("{name}, the three pairs side by side ({:.0} MB)", states::bytes(&state) as f64 / 1e6);
    restores(&what, &whole, &delta, 2, &state);
}

/// One step from two jobs: FULL, and as differences; in turns.
fn restores(what: &str, whole: &Trainer<'_>, delta: &Trainer<'_>, step: u64, state: &[states::Tensor]) {
    let (mut memory, mut full, mut end) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RESTORES {
        full.push(whole.restore(step, state, &mut memory));
        end.push(delta.restore(step, state, &mut memory));
    }
    let (full, end) = (times(&full), times(&end));
    println!("\n| {what}: restored from the store, verified | median | fastest to slowest |\n|---|---|---|");
    println!("| FULL | {:.0} ms | {:.0}–{:.0} |", full.0, full.1, full.2);
    println!("| INCREMENTAL | {:.0} ms | {:.0}–{:.0} |", end.0, end.1, end.2);
    println!("| ratio | **{:.2}** | |", end.0 / full.0);
}

/// Median, fastest, slowest, in milliseconds.
fn times(taken: &[Duration]) -> (f64, f64, f64) {
    let mut taken: Vec<f64> = taken.iter().map(|time| 1e3 * time.as_secs_f64()).collect();
    taken.sort_by(f64::total_cmp);
    (taken[taken.len() / 2], taken[0], taken[taken.len() - 1])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What benches/small/xet.py found; None, said aloud, without a Python that has hf-xet.
fn xet(folder: &Path) -> Option<serde_json::Value> {
    let Some(python) = std::env::var_os("STRATA_SMALL_PYTHON") else {
        println!("\nhf-xet: left out; hint: set STRATA_SMALL_PYTHON to a Python with `pip install hf-xet`");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("small/xet.py");
    let output = Command::new(python).arg(script).arg(folder).output().expect("STRATA_SMALL_PYTHON starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("it prints JSON"))
}
