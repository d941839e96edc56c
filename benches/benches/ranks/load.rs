//! A process that holds its share of the sidecars' connections.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;

use crate::process::Process;
use crate::server::Server;
use crate::sidecar::{Heard, Sidecar, now};
use crate::{LOAD, Size};

/// Connections that are being made at once: fewer than the server's backlog.
pub const CONNECTING: usize = 256;
/// Time to come to rest between two phases.
const REST: Duration = Duration::from_secs(1);

pub fn start(server: &Server, size: Size, number: u32) -> Process {
    let share = |number: u32| u64::from(size.sidecars) * u64::from(number) / u64::from(size.loads);
    let words = [
        LOAD.to_owned(),
        server.grpc.clone(),
        number.to_string(),
        share(number).to_string(),
        share(number + 1).to_string(),
        size.sidecars.to_string(),
        size.ranks.to_string(),
    ];
    Process::start(&words)
}

/// In the child.
pub fn run(words: &[String]) {
    let numbers: Vec<u32> = words[1..].iter().map(|word| word.parse().expect("a number")).collect();
    let [number, first, end, sidecars, world] = numbers[..] else { panic!("five numbers") };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let mut words_in = words_in();
        let heard = Arc::new(Heard::default());
        // An address of its own, so that ports suffice.
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + number as u8));
        let ranks_of = |sidecar: u32| {
            let first = |sidecar: u32| (u64::from(world) * u64::from(sidecar) / u64::from(sidecars)) as u32;
            first(sidecar)..first(sidecar + 1)
        };
        let mut lines: Vec<Sidecar> = Vec::new();
        while let Some(word) = words_in.recv().await {
            let (word, more) = word.split_once(' ').unwrap_or((&word, ""));
            match word {
                "connect" => {
                    let attaching = (first..end).map(|sidecar| {
                        Sidecar::attach(&words[0], from, sidecar, ranks_of(sidecar), world, heard.clone())
                    });
                    lines = stream::iter(attaching).buffer_unordered(CONNECTING).collect().await;
                    tokio::time::sleep(REST).await;
                    println!("connect");
                }
                "register" => {
                    let begun = now();
                    futures::future::join_all(lines.iter().map(Sidecar::register)).await;
                    heard.all_opened(lines.len()).await;
                    println!("register {begun} {} {}", heard.last_opened(), heard.longest());
                    tokio::time::sleep(REST).await;
                }
                "frames" => {
                    let time = Duration::from_secs(more.parse().expect("seconds"));
                    futures::future::join_all(lines.iter().map(|line| line.beat(time))).await;
                    tokio::time::sleep(REST).await;
                    println!("frames");
                }
                "watch" => {
                    heard.forget_begin();
                    let (heard, count) = (heard.clone(), lines.len());
                    tokio::spawn(async move {
                        heard.all_ended(count).await;
                        println!("ended {} {} 0", heard.begun(), heard.last_ended());
                    });
                    println!("watching");
                }
                "lose" => {
                    heard.begin();
                    lines[0].lose().await;
                }
                _ => panic!("{word:?} is no word of this bench"),
            }
        }
    });
}

/// Lines of the standard input, until it ends.
fn words_in() -> mpsc::UnboundedReceiver<String> {
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}
