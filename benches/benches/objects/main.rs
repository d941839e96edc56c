//! How much of a tuned client's rate reaches a step in a bucket: `make bench-objects`, or `cargo bench --bench objects`.
//!
//! The server (versitygw in memory, or the one that STRATA_BENCH_S3 names) is asked as it is, and over a long line. The peer is
//! object_store's own client with nothing of ours: parts and requests are those that were fastest of a grid, tried before
//! on the same server. Then rounds take turns. Our first round is that of a process that knows nothing of the bucket.
//! Words after `--`: `--rounds 5`, `--mb 1080`.

#[path = "../checkpoint_throughput/limits.rs"]
#[allow(dead_code, reason = "the other bench asks for more of it")]
mod limits;
mod line;
#[path = "../checkpoint_throughput/rank.rs"]
#[allow(dead_code, reason = "the other bench asks for more of it")]
mod rank;
#[path = "../checkpoint_throughput/s3.rs"]
mod s3;
#[path = "../durable/table.rs"]
mod table;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use strata_core::telemetry::{Direction, requests};
use tokio::runtime::Runtime;

use limits::{Plain, Tuning};
use line::{Length, Line};
use rank::Rank;
use s3::Server;
use table::{Figure, Table};

/// As users count: 10^6 bytes.
const MB: usize = 1_000_000;
const PARTS: [usize; 3] = [5 << 20, 8 << 20, 16 << 20];
const REQUESTS: [usize; 4] = [4, 16, 32, 64];
/// Of the grid, each so often.
const FINALISTS: usize = 3;
const TRIES: usize = 3;
/// About that from an instance to S3 in its region, with less for each connection, so that the line and not this machine's
/// processor is what one connection can't fill.
const LONG: Length = Length { way: Duration::from_millis(15), rate: 30e6 };

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let number = |flag: &str, otherwise: usize| {
        let given = words.iter().skip_while(|word| *word != flag).nth(1);
        given.map_or(otherwise, |text| text.parse().expect("a whole number"))
    };
    let (rounds, bytes) = (number("--rounds", 5), number("--mb", 1080) * MB);
    let Some(mut server) = Server::find(Path::new("/dev/shm")) else {
        println!(
            "objects: left out; hint: set STRATA_VERSITYGW, or STRATA_BENCH_S3 and AWS_* for a server of your own"
        );
        return;
    };
    println!("## As it is\n");
    measure(&server, rounds, bytes);
    let endpoint = server.options.endpoint.clone().unwrap_or_default();
    let Some(address) = endpoint.strip_prefix("http://").and_then(|name| name.parse::<SocketAddr>().ok())
    else {
        println!("over a long line: left out, {endpoint:?} is no http://address:port");
        return;
    };
    let line = Line::to(address, LONG);
    server.options.endpoint = Some(format!("http://{}", line.address));
    server.move_to("over-a-line");
    println!("\n## Over a line of {} ms, {} MB/s a connection\n", 2 * LONG.way.as_millis(), LONG.rate / 1e6);
    measure(&server, rounds, bytes);
}

fn measure(server: &Server, rounds: usize, bytes: usize) {
    let runtime = Runtime::new().expect("threads can be started");
    let mut rank = runtime.block_on(Rank::start(&server.url, &server.options, bytes));
    let mut plain = Plain::new(server);
    let content = rank.source().to_vec();
    let put = tune(&mut plain, |plain| runtime.block_on(plain.upload(&content)));
    let get = tune(&mut plain, |plain| runtime.block_on(plain.download(bytes)));
    println!("Tuned: {} to put, {} to get.", shown(put), shown(get));

    let (mut first, mut table) = (Table::new(bytes), Table::new(bytes));
    for round in 0..=rounds {
        eprintln!("round {round} of {rounds}");
        let table = if round == 0 { &mut first } else { &mut table };
        plain.tuning = put;
        table.add("limit: tuned client, put", Figure::of(|| runtime.block_on(plain.upload(&content))));
        table.add("save: copy, persist, COMMIT", Figure::of(|| runtime.block_on(rank.save())));
        plain.tuning = get;
        table.add("limit: tuned client, get", Figure::of(|| runtime.block_on(plain.download(bytes))));
        table.add("restore, verified", Figure::of(|| runtime.block_on(rank.restore())));
        if round == 0 {
            println!("\nFirst, when nothing is known of the bucket; {}", in_flight(server));
        }
    }
    println!("{first}\nSteady; {}\n{table}", in_flight(server));
}

/// The fastest of the grid, by medians of several tries of the best few.
fn tune(plain: &mut Plain, mut run: impl FnMut(&Plain) -> Duration) -> Tuning {
    let grid = PARTS.iter().flat_map(|&part_bytes| REQUESTS.map(|requests| Tuning { part_bytes, requests }));
    let mut tried: Vec<(Tuning, Vec<Duration>)> = grid.map(|tuning| (tuning, Vec::new())).collect();
    for tries in 0..TRIES {
        if tries == 1 {
            tried.sort_by_key(|(_, took)| took[0]);
            tried.truncate(FINALISTS);
        }
        for (tuning, took) in &mut tried {
            plain.tuning = *tuning;
            took.push(run(plain));
        }
    }
    tried.iter_mut().for_each(|(_, took)| took.sort());
    tried.sort_by_key(|(_, took)| took[TRIES / 2]);
    tried[0].0
}

fn shown(tuning: Tuning) -> String {
    format!("{} requests of {} MiB", tuning.requests, tuning.part_bytes >> 20)
}

fn in_flight(server: &Server) -> String {
    let most = |direction| requests(&format!("s3://{}", server.bucket), direction).most.get();
    format!("in flight at the end: {} to send, {} to bring", most(Direction::send), most(Direction::bring))
}
