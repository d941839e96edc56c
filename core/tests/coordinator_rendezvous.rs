//! Records of rendezvous over real sockets: compare-and-set, waiting, restarts on the same home.

mod coordinator;

use std::time::Duration;

use coordinator::Cluster;
use strata_core::error::{Error, Kind};
use strata_core::proto::v1::rendezvous_client::RendezvousClient;
use strata_core::proto::v1::{self, write_record_request::Change};
use tonic::transport::Channel;

async fn client(cluster: &Cluster) -> RendezvousClient<Channel> {
    RendezvousClient::connect(cluster.url()).await.unwrap()
}

fn set(key: &str, value: &str, version: Option<u64>, write: u64) -> v1::WriteRecordRequest {
    v1::WriteRecordRequest {
        rendezvous: "r".into(),
        key: key.into(),
        change: Some(Change::Set(v1::SetValue { value: value.into(), version })),
        write,
        token: String::new(),
    }
}

fn get(keys: &[&str], wait: Duration) -> v1::GetRecordsRequest {
    v1::GetRecordsRequest {
        rendezvous: "r".into(),
        keys: keys.iter().map(|&key| key.to_owned()).collect(),
        wait_ms: wait.as_millis() as u64,
        token: String::new(),
    }
}

#[tokio::test]
async fn p7_acknowledged_record_survives_a_restart_and_its_version_goes_on() {
    let mut cluster = Cluster::start().await;
    let first =
        client(&cluster).await.write_record(set("state", "a", Some(0), 1)).await.unwrap().into_inner();
    let version = first.record.unwrap().version;
    assert!(first.written && version > 0);
    cluster.restart().await;
    let mut client = client(&cluster).await;
    let found =
        client.get_records(get(&["state", "none"], Duration::ZERO)).await.unwrap().into_inner().records;
    assert_eq!((found.len(), found[0].version, found[0].value.as_slice()), (1, version, b"a".as_slice()));
    let late = client.write_record(set("state", "b", Some(0), 2)).await.unwrap().into_inner();
    assert!(!late.written && late.record.unwrap().value == b"a", "the loser is told what there is");
    let retried = client.write_record(set("state", "a", Some(0), 1)).await.unwrap().into_inner();
    assert!(retried.written && retried.record.unwrap().version == version, "a retry is the same change");
    let next = client.write_record(set("state", "c", Some(version), 3)).await.unwrap().into_inner();
    assert!(next.written && next.record.unwrap().version > version);
}

#[tokio::test]
async fn who_waits_for_keys_is_told_once_all_are_there() {
    let cluster = Cluster::start().await;
    let (mut waiter, mut writer) = (client(&cluster).await, client(&cluster).await);
    let waiting =
        tokio::spawn(async move { waiter.get_records(get(&["a", "b"], Duration::from_secs(60))).await });
    for (key, write) in [("b", 1), ("other", 2), ("a", 3)] {
        assert!(!waiting.is_finished(), "not all keys are there");
        writer.write_record(set(key, key, None, write)).await.unwrap();
    }
    let found = waiting.await.unwrap().unwrap().into_inner().records;
    assert_eq!(found.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let some =
        writer.get_records(get(&["a", "c"], Duration::from_millis(50))).await.unwrap().into_inner().records;
    assert_eq!(some.len(), 1, "when the time has passed it is what there is");
}

#[tokio::test]
async fn changes_that_can_not_be_are_named() {
    let cluster = Cluster::start().await;
    let mut client = client(&cluster).await;
    let mut refused = async |request| Error::from(client.write_record(request).await.unwrap_err());
    let large = "x".repeat((1 << 20) + 1);
    let error = refused(set("state", &large, None, 1)).await;
    assert!(error.kind == Kind::Invalid && error.message.contains("1048577 bytes"), "{error}");
    let nothing = v1::WriteRecordRequest { change: None, ..set("state", "", None, 2) };
    assert_eq!(refused(nothing).await.kind, Kind::Invalid);
}
