//! S3: over object_store's memory, and over a real server where the environment names one.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::{TestServer, conforms, noise};
use crate::error::Kind;
use crate::storage::{Store, StoreOptions, StoreUrl, open, over_object_store};

#[test]
fn s3_over_memory_conforms() {
    for prefix in ["", "some/prefix/job"] {
        let options = StoreOptions { part_bytes: Some(5 << 20), ..StoreOptions::default() };
        conforms(&over_object_store(Arc::new(InMemory::new()), prefix, &options));
    }
}

#[test]
fn a_real_s3_server_conforms() {
    let Some(server) = TestServer::start() else { return };
    conforms(&open(&server.url, &server.options, "job").unwrap());
}

/// A reader that is pinned reads one object or none, and any other the one that is there.
fn pins(store: &dyn Store) {
    let contents = [noise(1, 100_000), noise(2, 100_000)];
    store.replace("pinned", contents[0].clone().into()).unwrap();
    let (mut pinned, loose) = (store.reader("pinned").unwrap(), store.reader("pinned").unwrap());
    let tag = pinned.pin().unwrap();
    let mut read = vec![0; 1000];
    pinned.read_at(5, &mut read).unwrap();
    assert_eq!(read, contents[0][5..1005]);
    store.replace("pinned", contents[1].clone().into()).unwrap();
    assert_eq!(pinned.read_at(5, &mut read).unwrap_err().kind, Kind::Conflict);
    loose.read_at(5, &mut read).unwrap();
    assert_eq!(read, contents[1][5..1005]);
    assert_ne!(store.reader("pinned").unwrap().pin().unwrap(), tag);
}

#[test]
fn s3_over_memory_pins() {
    pins(&*over_object_store(Arc::new(InMemory::new()), "p", &StoreOptions::default()));
}

#[test]
fn a_real_s3_server_pins() {
    let Some(server) = TestServer::start() else { return };
    pins(&*open(&server.url, &server.options, "pins").unwrap());
}

#[test]
fn a_real_s3_server_says_what_is_wrong_with_credentials_and_buckets() {
    let Some(server) = TestServer::start() else { return };
    let stranger = StoreOptions { secret_access_key: Some("hunter2".into()), ..server.options.clone() };
    let error = open(&server.url, &stranger, "").unwrap().list("").unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("<Error>"), "{error}");
    let nowhere: StoreUrl = "s3://no-such-bucket-at-all/x".parse().unwrap();
    let error = open(&nowhere, &server.options, "").unwrap().create("a", "x".into()).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    assert!(error.hint.unwrap().contains("bucket"));
}

#[test]
fn a_server_that_is_not_there_is_unavailable_within_the_budget() {
    let options = StoreOptions {
        endpoint: Some("http://127.0.0.1:9".into()),
        allow_http: true,
        access_key_id: Some("a".into()),
        secret_access_key: Some("b".into()),
        retry_budget: std::time::Duration::from_millis(200),
        ..StoreOptions::default()
    };
    let url: StoreUrl = "s3://bucket/p".parse().unwrap();
    let error = open(&url, &options, "job").unwrap().read("OWNER").unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(error.message.contains("s3://bucket/p/job/OWNER"), "{error}");
}

#[test]
fn a_plain_endpoint_wants_to_be_allowed() {
    let options = StoreOptions { endpoint: Some("http://10.0.0.1:9000".into()), ..StoreOptions::default() };
    let error = open(&"s3://b".parse().unwrap(), &options, "").unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.hint.unwrap().contains("allow_http"));
}

/// It takes the connection and says nothing.
#[test]
fn a_server_that_never_answers_is_unavailable_within_the_budget() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = StoreOptions {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        allow_http: true,
        access_key_id: Some("a".into()),
        secret_access_key: Some("b".into()),
        request_timeout: std::time::Duration::from_millis(100),
        retry_budget: std::time::Duration::from_millis(200),
        ..StoreOptions::default()
    };
    let store = open(&"s3://bucket/p".parse().unwrap(), &options, "job").unwrap();
    for error in [store.read("OWNER").unwrap_err(), store.create("x", "y".into()).unwrap_err()] {
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("store.timeout")), "{error}");
    }
    drop(listener);
}
