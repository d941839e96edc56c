//! What a set of three coordinators costs beside one alone, and how soon another leads: `make bench-set`.
//!
//! First registrations, each durable when it is answered, with two callers and with many. A turn starts one coordinator
//! and three, each in processes of their own and on empty homes of one disk, one after the other; every second turn the
//! other way round. Ratios are of the same turn. Then a set whose leader is killed (SIGKILL) again and again: from the
//! kill to the first registration that another one acknowledges. Who was killed is started again and has caught up
//! before the next. Words after `--`: `--turns 5`, `--seconds 3`, `--callers 2,64`, `--kills 100`.

mod coordinators;
#[allow(dead_code, reason = "the other bench asks for more of it")]
#[path = "../coordinator/load.rs"]
mod load;
#[path = "../../../embed/src/memory.rs"]
mod memory;
#[allow(dead_code, reason = "the other bench asks for more of it")]
#[path = "../ranks/process.rs"]
mod process;
mod registering;

use std::collections::HashMap;
use std::time::Duration;

use tokio::runtime::Runtime;

use coordinators::{Coordinators, SERVER};
use load::Load;

const ALONE: usize = 1;
const THREE: usize = 3;
/// Fewer kills than this have no 99th percentile.
const PERCENT: usize = 100;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == SERVER) {
        memory::keep_nothing_free();
        return coordinators::serve(&words[2..]);
    }
    let after = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1);
    let number = |flag, otherwise| {
        after(flag).map_or(otherwise, |text: &String| text.parse().expect("a whole number"))
    };
    let callers: Vec<usize> = after("--callers")
        .map_or("2,64", String::as_str)
        .split(',')
        .map(|text| text.parse().expect("whole numbers with commas between"))
        .collect();
    let clients = Runtime::new().expect("threads can be started");
    println!("load before: {}", busy());
    cost(&clients, number("--turns", 5), Duration::from_secs(number("--seconds", 3)), &callers);
    takeovers(&clients, number("--kills", 100) as usize);
    println!("load after: {}", busy());
}

/// Of one turn: the loads by how many coordinators and how many callers.
type Turn = HashMap<(usize, usize), Load>;

fn cost(clients: &Runtime, turns: u64, time: Duration, callers: &[usize]) {
    let turns: Vec<Turn> = (0..turns).map(|turn| one_turn(clients, turn, time, callers)).collect();
    println!("{} turns of {time:?}; registrations acknowledged a second\n", turns.len());
    println!(
        "| callers | alone (of turns) | p50, p99 ms | three (of turns) | p50, p99 ms | three to alone (of turns) |"
    );
    println!("|---|---|---|---|---|---|");
    for callers in callers {
        let of = |count| turns.iter().map(move |turn| &turn[&(count, *callers)]);
        let ratios = of(THREE).zip(of(ALONE)).map(|(three, alone)| three.rate() / alone.rate());
        let [alone, three] = [ALONE, THREE].map(|count| {
            let latencies = load::sorted(of(count).flat_map(|load| milliseconds(&load.latencies)));
            let [half, most] = [0.5, 0.99].map(|at| load::quantile(&latencies, at));
            format!("{} | {half:.2}, {most:.2}", spread(of(count).map(Load::rate), 0))
        });
        println!("| {callers} | {alone} | {three} | {} |", spread(ratios, 2));
    }
    println!();
}

fn one_turn(clients: &Runtime, turn: u64, time: Duration, callers: &[usize]) -> Turn {
    let mut counts = [ALONE, THREE];
    if turn % 2 == 1 {
        counts.reverse();
    }
    let mut found = Turn::new();
    for count in counts {
        let coordinators = Coordinators::start(count);
        for callers in callers {
            let load = clients.block_on(registering::by(coordinators.urls(), *callers, time));
            found.insert((count, *callers), load);
        }
        coordinators.end();
    }
    found
}

fn takeovers(clients: &Runtime, kills: usize) {
    if kills == 0 {
        return;
    }
    let mut coordinators = Coordinators::start(THREE);
    let took = (0..kills).map(|_| clients.block_on(registering::takeover(&mut coordinators)).as_secs_f64());
    let took = load::sorted(took);
    let at = |part| load::quantile(&took, part);
    let tail = if kills < PERCENT { String::new() } else { format!(", p99 {:.2} s", at(0.99)) };
    println!(
        "from SIGKILL of the leader to the first acknowledged registration: median {:.2} s of {kills}{tail} ({:.2}–{:.2})",
        at(0.5),
        at(0.0),
        at(1.0)
    );
    coordinators.end();
}

fn milliseconds(durations: &[Duration]) -> impl Iterator<Item = f64> {
    durations.iter().map(|duration| duration.as_secs_f64() * 1e3)
}

/// The median, with the least and the most.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let sorted = load::sorted(values);
    let [least, half, most] = [0.0, 0.5, 1.0].map(|at| load::quantile(&sorted, at));
    format!("{half:.digits$} ({least:.digits$}–{most:.digits$})")
}

fn busy() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}
