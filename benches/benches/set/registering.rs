//! Registrations of new workers, durable when they are answered: at whom they are made, and how soon they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join_all, select_all};
use strata_core::proto::v1;
use strata_core::proto::v1::coordinator_client::CoordinatorClient;
use strata_core::transport::Route;
use tonic::Status;
use tonic::transport::Channel;

use crate::coordinators::Coordinators;
use crate::load::{self, Load};

/// Ranks of a job.
const WORLD: u32 = 100;
/// Before somebody is asked again who does not lead.
const AGAIN: Duration = Duration::from_millis(2);
/// What a call may take at one that may be about to lose its leadership; then it is made again.
const LIMIT: Duration = Duration::from_secs(1);
/// How long a set may be without a leader before this is no bench any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// From when all have caught up to the next kill.
const REST: Duration = Duration::from_secs(1);

/// Names what is registered, over the whole run.
static NEXT: AtomicU32 = AtomicU32::new(0);

type Client = CoordinatorClient<Channel>;

/// `callers` with a connection each to whoever leads, for `time`.
pub async fn by(urls: Vec<String>, callers: usize, time: Duration) -> Load {
    let leader = first_to_answer(&urls).await;
    let lines: Vec<Client> = (0..callers).map(|_| client(&urls[leader])).collect();
    // Connections are made by their first calls.
    join_all(lines.iter().map(register)).await.into_iter().for_each(|made| made.expect("it leads"));
    let lines = Arc::new(lines);
    load::run(callers, time, move |caller| {
        let lines = lines.clone();
        async move {
            register(&lines[caller]).await.expect("it leads");
            1
        }
    })
    .await
}

/// From the kill of the leader to the first registration that another one acknowledges. The killed one follows again
/// when this returns.
pub async fn takeover(coordinators: &mut Coordinators) -> Duration {
    let urls = coordinators.urls();
    let leader = first_to_answer(&urls).await;
    let others: Vec<String> = urls.iter().filter(|url| **url != urls[leader]).cloned().collect();
    let killed = Instant::now();
    coordinators.kill(leader);
    first_to_answer(&others).await;
    let took = killed.elapsed();
    coordinators.restart(leader);
    until_it_follows(&urls, leader).await;
    tokio::time::sleep(REST).await;
    took
}

/// All are asked, again and again, until one has acknowledged; its number.
async fn first_to_answer(urls: &[String]) -> usize {
    let asked = urls.iter().map(|url| Box::pin(until_it_answers(client(url))));
    let first = tokio::time::timeout(PATIENCE, select_all(asked)).await;
    first.expect("a majority is there, so one of them leads before long").1
}

async fn until_it_answers(client: Client) {
    while !matches!(tokio::time::timeout(LIMIT, register(&client)).await, Ok(Ok(()))) {
        tokio::time::sleep(AGAIN).await;
    }
}

/// One that knows a leader names it when it is asked for what it may not do itself.
async fn until_it_follows(urls: &[String], which: usize) {
    let (client, route) = (client(&urls[which]), Route::of(&urls.join(",")));
    let began = Instant::now();
    while let Err(status) = register(&client).await
        && !route.turn(which, &status)
    {
        assert!(began.elapsed() < PATIENCE, "{} follows nobody: {status}", urls[which]);
        tokio::time::sleep(AGAIN).await;
    }
}

fn client(url: &str) -> Client {
    let endpoint = Channel::from_shared(url.to_owned()).expect("an address is a URI");
    CoordinatorClient::new(endpoint.tcp_nodelay(true).connect_lazy())
}

async fn register(client: &Client) -> Result<(), Status> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let request = v1::RegisterWorkerRequest {
        job: format!("job-{}", number / WORLD),
        rank: number % WORLD,
        world_size: WORLD,
        host: format!("host-{}", number / 8),
        ip: "127.0.0.1".into(),
        port: 29_500,
        worker_id: format!("worker-{number}"),
        idempotency_key: number.to_string(),
        ..Default::default()
    };
    client.clone().register_worker(request).await.map(drop)
}
