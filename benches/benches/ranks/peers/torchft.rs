//! torchft's lighthouse: a replica, which is what it counts, stands for a sidecar here, with as many ranks. It answers
//! each replica with all of them, so what it sends grows with the square of their number: it is asked for greater and
//! greater quorums until one takes too long or too much memory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::stream::{self, StreamExt};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{Outcome, Row};
use crate::Size;
use crate::lighthouse::{SCRIPT, quorum};
use crate::load::CONNECTING;
use crate::process::{Process, memory};

/// Each is tried, and then the size that is asked of ours.
const STEPS: [u32; 4] = [1000, 2000, 4000, 8000];
/// A quorum that is not there by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// It takes a replica for lost that has not been heard of for so long: here no time.
const BEATS_LAST: Duration = Duration::from_secs(3600);
/// What server, or clients, may take: eight times what ours has.
const MOST_KIB: f64 = 4.0 * 1024.0 * 1024.0;
const LOOKS: Duration = Duration::from_millis(50);

pub fn join(python: &Path, size: Size) -> Vec<Row> {
    let sizes = STEPS.into_iter().filter(|replicas| *replicas < size.sidecars).chain([size.sidecars]);
    let ranks = u64::from(size.ranks / size.sidecars);
    let name = format!("{}: a quorum", version(python));
    let mut rows = Vec::new();
    for replicas in sizes {
        rows.push(once(python, &name, replicas, ranks));
        if matches!(rows.last(), Some(Row { outcome: Outcome::Stopped(_), .. })) {
            break;
        }
    }
    rows
}

fn once(python: &Path, name: &str, replicas: u32, ranks: u64) -> Row {
    let mut command = Command::new(python);
    command.args([SCRIPT, "serve", &replicas.to_string(), &BEATS_LAST.as_millis().to_string()]);
    // A line for each replica that asks.
    let mut server = Process::of(command.stderr(Stdio::null()));
    let address = format!("http://127.0.0.1:{}", server.hear(""));
    let before = memory(server.pid());
    let clients = Runtime::new().expect("threads can be started");
    let lines = clients.block_on(connect(&address, replicas));
    let bare = memory(server.pid());
    let mut most = bare;
    let outcome = clients.block_on(async {
        tokio::select! {
            outcome = meet(&lines, ranks) => outcome,
            why = too_much(server.pid(), &mut most) => Outcome::Stopped(why),
        }
    });
    most = most.max(memory(server.pid()));
    drop(lines);
    clients.shutdown_background();
    server.kill();
    Row { name: name.to_owned(), connections: replicas, outcome, before, bare, memory: most }
}

/// All replicas ask at once, until the last is answered.
async fn meet(lines: &[Channel], ranks: u64) -> Outcome {
    let began = Instant::now();
    let asking = lines.iter().enumerate().map(async |(number, line)| {
        let met = quorum(line, number, ranks).await?;
        assert_eq!(met.participants.len(), lines.len(), "a quorum is of all");
        Ok::<i64, Status>(met.quorum_id)
    });
    match try_join_all(asking).await {
        Ok(met) => {
            assert!(met.iter().all(|quorum| *quorum == met[0]), "all hold the same quorum");
            Outcome::Joined(began.elapsed())
        }
        Err(status) => Outcome::Stopped(format!("it answers {status}")),
    }
}

fn version(python: &Path) -> String {
    let mut process = Process::of(Command::new(python).args([SCRIPT, "version"]));
    let version = process.hear("");
    process.end();
    version
}

async fn connect(address: &str, replicas: u32) -> Vec<Channel> {
    let connecting = (0..replicas).map(|_| async {
        let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address is a URI");
        endpoint.tcp_nodelay(true).connect().await.expect("the lighthouse listens")
    });
    stream::iter(connecting).buffer_unordered(CONNECTING).collect().await
}

/// Why it is not waited for any longer; keeps the most memory that the server had.
async fn too_much(server: u32, most: &mut f64) -> String {
    let began = Instant::now();
    loop {
        tokio::time::sleep(LOOKS).await;
        *most = most.max(memory(server));
        let ours = memory(std::process::id());
        let after = began.elapsed().as_secs_f64();
        if *most > MOST_KIB {
            return format!("its memory passed {:.0} GiB after {after:.1} s", MOST_KIB / 1024.0 / 1024.0);
        }
        if ours > MOST_KIB {
            return format!(
                "what its clients are answered passed {:.0} GiB after {after:.1} s",
                MOST_KIB / 1024.0 / 1024.0
            );
        }
        if began.elapsed() > PATIENCE {
            return format!("no quorum after {after:.0} s");
        }
    }
}
