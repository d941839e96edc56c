//! The parts on a disk against the protocol's own suite and against crashes, and whole sets in one process over real sockets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::entry::{Entry, LogId, Payload, Records, StorageError, Types, Vote};
use super::journal::{Change, Journal};
use super::replica::Replica;
use super::*;
use crate::clock::MachineClock;
use crate::coordinator::log::machine::Machine;
use crate::coordinator::log::{Disk, Folder};
use crate::coordinator::{Coordinator, CoordinatorSettings};
use crate::error::{Error, Kind, Result};
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::rendezvous_client::RendezvousClient;
use crate::proto::v1::replication_client::ReplicationClient;
use crate::proto::v1::write_record_request::Change as Write;
use crate::telemetry::Metrics;
use crate::torture_tests::Campaign;
use crate::transport::{Route, is_broken, is_follower};

struct OnDisk;

impl StoreBuilder<Types, Journal, Replica, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, Journal, Replica), StorageError> {
        let home = tempfile::tempdir().unwrap();
        let within = |name: &str| -> Result<Box<dyn Disk>> {
            Ok(Box::new(Folder::open(&home.path().join(name)).unwrap()))
        };
        let journal = Journal::open(|| within("log")).unwrap();
        let replica = Replica::open(within("state").unwrap()).unwrap();
        Ok((home, journal, replica))
    }
}

#[test]
fn log_and_state_do_what_the_protocol_asks_of_them() {
    Suite::test_all(OnDisk).unwrap();
}

fn at(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

/// What a journal holds, as the protocol would read it.
fn held(journal: &Journal) -> String {
    format!("{:?}", journal.held())
}

/// Votes, entries, entries taken back and entries given up, as the protocol makes them.
fn changes(random: &mut StdRng, next: &mut u64, term: &mut u64) -> Vec<Change> {
    match random.random_range(0..8) {
        0 => {
            *term += 1;
            vec![Change::Vote(Vote::new(*term, 1))]
        }
        1 if *next > 5 => {
            let from = *next - random.random_range(1..4);
            *next = from;
            vec![Change::Truncate(from)]
        }
        2 if *next > 20 => vec![Change::Purge(at(*term, *next - 10))],
        _ => {
            let records = Records::encode(&[]);
            let one = |index| {
                let payload = EntryPayload::Normal(Payload::Batch { reign: index, records: records.clone() });
                Change::Append(Entry { log_id: at(*term, index), payload })
            };
            let count = random.random_range(1..4);
            *next += count;
            (*next - count..*next).map(one).collect()
        }
    }
}

#[test]
fn p7_votes_and_entries_survive_a_crash_at_any_write() {
    let mut campaign = Campaign::new("journal of a set", 200);
    campaign.play(|campaign, random| {
        let machine = Machine::default();
        let mut possible: Option<Vec<String>> = None;
        let (mut next, mut term) = (1, 1);
        for _ in 0..8 {
            machine.fail_at(random.random_range(0..30));
            let opened = Journal::open(|| Ok(Box::new(machine.open()) as Box<dyn Disk>));
            let lived = opened.and_then(|journal| {
                let found = held(&journal);
                if let Some(possible) = &possible {
                    assert!(possible.contains(&found), "P7: another log than was durable");
                }
                (next, term) = journal.ends();
                possible = Some(vec![found]);
                for _ in 0..random.random_range(1..12) {
                    let changes = changes(random, &mut next, &mut term);
                    let written = journal.write(changes);
                    let now = held(&journal);
                    let possible = possible.as_mut().expect("it was opened");
                    possible.push(now);
                    written?;
                    possible.remove(0);
                }
                Ok(())
            });
            assert!(lived.is_ok() || machine.has_failed(), "{lived:?}");
            campaign.count(if lived.is_ok() { "lives that ended" } else { "lives that failed" });
            if random.random_ratio(3, 4) {
                machine.crash(random);
            } else {
                machine.revive();
            }
        }
    });
    campaign.held();
}

const SECRET: &str = "a secret of sixteen or more";

/// Three coordinators in this process, each stopped and started on its own home and port.
struct Three {
    homes: Vec<tempfile::TempDir>,
    urls: Vec<String>,
    running: BTreeMap<usize, (Coordinator, CancellationToken)>,
    route: Route,
    writes: u64,
}

impl Three {
    async fn start() -> Three {
        let ports: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let urls: Vec<String> =
            ports.iter().map(|port| format!("http://{}", port.local_addr().unwrap())).collect();
        drop(ports);
        let homes = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let route = Route::of(&urls.join(","));
        let mut three = Three { homes, urls, running: BTreeMap::new(), route, writes: 0 };
        for which in 0..3 {
            three.run(which).await;
        }
        three
    }

    fn settings(&self, which: usize) -> CoordinatorSettings {
        let listen = self.urls[which].trim_start_matches("http://").parse().unwrap();
        let set = SetSettings {
            peers: self.urls.clone(),
            advertise: None,
            secret: SECRET.to_owned(),
            authority: None,
        };
        CoordinatorSettings { listen, set: Some(set), ..CoordinatorSettings::new(self.homes[which].path()) }
    }

    async fn run(&mut self, which: usize) {
        let stop = CancellationToken::new();
        let settings = self.settings(which);
        let started = Coordinator::start(settings, MachineClock::shared(), Metrics::new(), stop.clone());
        self.running.insert(which, (started.await.unwrap(), stop));
    }

    async fn end(&mut self, which: usize) {
        if let Some((coordinator, stop)) = self.running.remove(&which) {
            stop.cancel();
            coordinator.stopped().await.unwrap();
        }
    }

    fn replica(&self, which: usize) -> &Replica {
        &self.running[&which].0.services.seat.as_ref().unwrap().replica
    }

    /// Adds one to a record, again and again until that is acknowledged.
    async fn add(&mut self, key: &str) {
        self.writes += 1;
        let request = v1::WriteRecordRequest {
            rendezvous: "r".into(),
            key: key.to_owned(),
            change: Some(Write::Add(1)),
            write: self.writes,
            ..Default::default()
        };
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let from = self.route.at();
            let asked = async {
                let mut client = RendezvousClient::connect(self.urls[from].clone())
                    .await
                    .map_err(|error| Status::unavailable(error.to_string()))?;
                client.write_record(request.clone()).await
            };
            let answer = tokio::time::timeout(Duration::from_secs(10), asked).await;
            let status = match answer {
                Ok(Ok(_)) => return,
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable("no answer"),
            };
            let error = Error::from(status.clone());
            assert!(is_broken(&status) || error.kind == Kind::Unavailable, "{status:?}");
            assert!(Instant::now() < patience, "nobody acknowledges: {status:?}");
            self.route.turn(from, &status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All that run have applied the same entries: the same bytes, which are not those of nothing.
    async fn agree(&self) -> Vec<u8> {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let all: Vec<_> = self.running.keys().map(|which| self.replica(*which).bytes()).collect();
            if all.iter().all(|one| one.0 == all[0].0 && one.0 > 0) {
                assert!(all.iter().all(|one| one.1 == all[0].1), "P7: replicas with other states of one log");
                return all[0].1.clone();
            }
            assert!(
                Instant::now() < patience,
                "at entries {:?}",
                all.iter().map(|one| one.0).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn end_all(&mut self) {
        for which in 0..3 {
            self.end(which).await;
        }
    }
}

fn sum(state: &[u8], key: &str) -> u64 {
    let state = crate::coordinator::state::State::decode(state).unwrap();
    let record = state.rendezvous.get("r", "", key).unwrap().expect("it was written");
    String::from_utf8(record.value.clone()).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p7_acknowledged_commands_are_on_every_replica_whoever_ends_meanwhile() {
    let seed = rand::random();
    println!("set: seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut three = Three::start().await;
    let keys = ["a", "b", "c"];
    let mut written: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 0..6 {
        for _ in 0..random.random_range(5..60) {
            let key = keys.choose(&mut random).unwrap();
            three.add(key).await;
            *written.entry(key).or_default() += 1;
        }
        let which = random.random_range(0..3);
        three.end(which).await;
        for _ in 0..random.random_range(0..20) {
            three.add("a").await;
            *written.entry("a").or_default() += 1;
        }
        // Now and then it comes back with nothing.
        if round % 3 == 2 {
            three.homes[which] = tempfile::tempdir().unwrap();
        }
        three.run(which).await;
        let state = three.agree().await;
        for (key, count) in &written {
            assert_eq!(sum(&state, key), *count, "{key}, seed {seed}");
        }
    }
    three.end_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn minority_and_follower_answer_at_once_and_say_who_leads() {
    let mut three = Three::start().await;
    three.add("a").await;
    let leader = three.route.url().to_owned();
    for which in 0..3 {
        let mut client = AdminClient::connect(three.urls[which].clone()).await.unwrap();
        let mut told = three.running[&which].0.services.seat.as_ref().unwrap().standing();
        let settled = |standing: &Standing| matches!(standing, Standing::Leads | Standing::Follows(_));
        told.wait_for(settled).await.unwrap();
        match client.get_status(v1::GetStatusRequest::default()).await {
            Ok(status) => {
                assert_eq!(three.urls[which], leader);
                let told = status.into_inner().coordinators;
                assert_eq!(told.iter().filter(|one| one.state == "leader").count(), 1, "{told:?}");
            }
            Err(status) => {
                assert!(is_follower(&status));
                assert_eq!(Error::from(status).leader.as_deref(), Some(leader.as_str()));
            }
        }
    }
    let others: Vec<usize> = (0..3).filter(|which| three.urls[*which] != leader).collect();
    for which in others {
        three.end(which).await;
    }
    let mut client = AdminClient::connect(leader).await.unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    let error = loop {
        match client.get_status(v1::GetStatusRequest::default()).await {
            Err(status) => break Error::from(status),
            Ok(_) => assert!(Instant::now() < patience, "a leader without a majority goes on answering"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    three.end_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_secret_is_heard() {
    let mut three = Three::start().await;
    three.add("a").await;
    let mut client = ReplicationClient::connect(three.urls[0].clone()).await.unwrap();
    let refused = client.greet(v1::PeerGreeting::default()).await.unwrap_err();
    assert_eq!((refused.code(), Error::from(refused).kind), (Code::PermissionDenied, Kind::Denied));
    let refused = client.tell(v1::PeerMessage::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // One that has another secret is not let in, and says why.
    three.end(2).await;
    let mut settings = three.settings(2);
    let home = tempfile::tempdir().unwrap();
    settings.home = home.path().to_owned();
    settings.set.as_mut().unwrap().secret = "another secret of sixteen".to_owned();
    let stop = CancellationToken::new();
    let wrong =
        Coordinator::start(settings, MachineClock::shared(), Metrics::new(), stop.clone()).await.unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let error = wrong.serves().await.unwrap_err();
        if error.message.contains("secret") {
            break;
        }
        assert!(Instant::now() < patience, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    wrong.stopped().await.unwrap();
    three.end_all().await;
}
