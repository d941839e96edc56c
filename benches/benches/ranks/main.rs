//! A coordinator with 100,000 ranks: `make bench-ranks`, or `cargo bench --bench ranks`.
//!
//! The coordinator as it is shipped, in a process of its own, and two processes that hold a connection each for every
//! sidecar, with a line on it: eight ranks register through each. Told are the seconds from the first registration until
//! every sidecar holds the generation, the server's memory, its pages at that size, the frames that it takes, and how
//! soon all know of a lost rank. A turn is made of fresh processes; medians over turns. Then, once, torch's TCPStore and
//! torchft's lighthouse with as many connections, where a Python that has them is named.
//! Words after `--`: `--ranks 100000`, `--sidecars 12500`, `--turns 3`, `--loads 2`, `--frames 5` (seconds),
//! `--tcpstore PYTHON`, `--torchft PYTHON`.

#[path = "../foreign.rs"]
mod foreign;
#[path = "../lighthouse.rs"]
mod lighthouse;
mod load;
#[path = "../../../embed/src/memory.rs"]
mod memory;
mod peers;
mod process;
mod server;
mod sidecar;

use std::path::PathBuf;
use std::time::Duration;

use peers::Paths;
use process::Process;
use server::Server;

/// What the bench's own processes are started with.
pub const SERVER: &str = "--as-server";
pub const LOAD: &str = "--as-load";

const TOLD: &str = "a sidecar is told";
const MIB: f64 = 1024.0 * 1024.0;

#[derive(Clone, Copy)]
pub struct Size {
    pub ranks: u32,
    pub sidecars: u32,
    pub loads: u32,
    pub frames: u32,
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some(SERVER) => {
            memory::keep_nothing_free();
            return server::serve(words[2].as_ref());
        }
        Some(LOAD) => return load::run(&words[2..]),
        _ => {}
    }
    let after = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1);
    let number = |flag: &str, otherwise: u32| {
        after(flag).map_or(otherwise, |text| text.parse().expect("a whole number"))
    };
    let size = Size {
        ranks: number("--ranks", 100_000),
        sidecars: number("--sidecars", 12_500),
        loads: number("--loads", 2),
        frames: number("--frames", 5),
    };
    assert!(
        size.sidecars >= size.loads && size.ranks >= size.sidecars,
        "every process needs sidecars, every sidecar ranks"
    );
    // The server has all connections, and some files.
    if !process::may_open(u64::from(size.sidecars) + 200) {
        println!(
            "ranks: left out, a process may not open {} files; hint: ulimit -n, or fewer --sidecars",
            size.sidecars
        );
        return;
    }
    let turns: Vec<Vec<Figure>> = (0..number("--turns", 3)).map(|_| turn(size)).collect();
    print(size, &turns);
    let told = turns.iter().flatten().find(|figure| figure.name == TOLD).map_or(0.0, |figure| figure.value);
    let [tcpstore, torchft] = ["--tcpstore", "--torchft"].map(|flag| after(flag).map(PathBuf::from));
    peers::beside(&Paths { tcpstore, torchft }, size, told as usize);
}

/// What was measured once.
struct Figure {
    name: &'static str,
    unit: &'static str,
    value: f64,
}

fn figure(name: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure { name, unit, value }
}

fn turn(size: Size) -> Vec<Figure> {
    let server = Server::start();
    let mut loads: Vec<Process> = (0..size.loads).map(|number| load::start(&server, size, number)).collect();
    let mut figures = Vec::new();
    let bare = server.memory();
    ask(&mut loads, "connect");
    let connected = server.memory();
    let of_one = |more: f64| more * 1024.0 / f64::from(size.sidecars);
    figures.push(figure("memory before", "MiB", bare / 1024.0));
    figures.push(figure("memory of a connection", "KiB", of_one(connected - bare) / 1024.0));

    let cpu = server.cpu();
    let opened = Span::of(&ask(&mut loads, "register"));
    figures.push(figure("first registration to last sidecar", "s", opened.seconds()));
    figures.push(figure("server's processor time for it", "s", server.cpu() - cpu));
    figures.push(figure(TOLD, "bytes", opened.bytes));
    let registered = server.memory();
    figures.push(figure("memory with all ranks", "MiB", registered / 1024.0));
    figures.push(figure("a connection and its ranks", "KiB", of_one(registered - bare) / 1024.0));
    figures.push(figure("/metrics, idle", "ms", ms(server.get("/metrics"))));

    let (before, cpu) = (server.frames(), server.cpu());
    for load in &mut loads {
        load.say(&format!("frames {}", size.frames));
    }
    std::thread::sleep(Duration::from_secs(u64::from(size.frames)) / 2);
    figures.push(figure("/metrics, under frames", "ms", ms(server.get("/metrics"))));
    loads.iter_mut().for_each(|load| drop(load.hear("frames")));
    let applied = server.frames() - before;
    figures.push(figure("ranks' beats applied", "/s", beats(size, applied) / f64::from(size.frames)));
    figures.push(figure("server's processor", "cores", (server.cpu() - cpu) / f64::from(size.frames)));
    figures.push(figure("/api/v1/status", "ms", ms(server.get("/api/v1/status"))));
    figures.push(figure("memory at the end", "MiB", server.memory() / 1024.0));

    loads.iter_mut().for_each(|load| load.say("watch"));
    loads.iter_mut().for_each(|load| drop(load.hear("watching")));
    loads[0].say("lose");
    let ended: Vec<String> = loads.iter_mut().map(|load| load.hear("ended")).collect();
    figures.push(figure("a lost rank, to the last sidecar", "ms", Span::of(&ended).seconds() * 1e3));
    loads.into_iter().for_each(Process::end);
    server.end();
    figures
}

/// Of a frame that speaks for all ranks of its sidecar.
fn beats(size: Size, frames: f64) -> f64 {
    frames * f64::from(size.ranks) / f64::from(size.sidecars)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The same to all of them at once; their answers.
fn ask(loads: &mut [Process], what: &str) -> Vec<String> {
    loads.iter_mut().for_each(|load| load.say(what));
    loads.iter_mut().map(|load| load.hear(what)).collect()
}

/// From the first beginning to the last end, over processes: they share the machine's clock.
struct Span {
    begin: u64,
    end: u64,
    bytes: f64,
}

impl Span {
    /// Of answers like `begin end bytes`, in nanoseconds.
    fn of(answers: &[String]) -> Span {
        let numbers: Vec<Vec<u64>> = answers
            .iter()
            .map(|answer| answer.split(' ').map(|number| number.parse().expect("a number")).collect())
            .collect();
        Span {
            begin: numbers.iter().map(|one| one[0]).min().expect("there are load processes"),
            end: numbers.iter().map(|one| one[1]).max().expect("there are load processes"),
            bytes: numbers.iter().map(|one| one[2]).max().expect("there are load processes") as f64,
        }
    }

    fn seconds(&self) -> f64 {
        self.end.saturating_sub(self.begin) as f64 / 1e9
    }
}

fn print(size: Size, turns: &[Vec<Figure>]) {
    println!(
        "{} ranks behind {} sidecars from {} processes, {} turns",
        size.ranks,
        size.sidecars,
        size.loads,
        turns.len()
    );
    println!("{:<38}{:>12}{:>24}", "", "median", "of turns");
    for (at, first) in turns[0].iter().enumerate() {
        let mut all: Vec<f64> = turns.iter().map(|turn| turn[at].value).collect();
        all.sort_by(f64::total_cmp);
        let digits = if first.value < 100.0 { 2 } else { 0 };
        println!(
            "{:<38}{:>12.digits$}{:>24} {}",
            first.name,
            all[all.len() / 2],
            format!("{:.digits$}–{:.digits$}", all[0], all[all.len() - 1]),
            first.unit
        );
    }
    let memory = turns.iter().flatten().filter(|figure| figure.unit == "MiB").map(|figure| figure.value);
    println!("most memory of the server: {:.0} MB", memory.fold(0.0, f64::max) * MIB / 1e6);
}
