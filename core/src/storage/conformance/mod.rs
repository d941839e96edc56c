//! What every store promises, checked on each kind: a directory on disk and in memory, S3 over object_store's own memory,
//! GCS over a double of its XML API, and real servers of S3 and Azure where STRATA_VERSITYGW and STRATA_AZURITE name them.

mod azure;
mod azurite;
mod disk;
mod gcs;
mod gcs_double;
mod gcs_xml;
mod local;
mod mounts;
mod s3;
mod server;

pub use azurite::Azurite;
pub use gcs_double::{Fault, GcsDouble};
pub use server::TestServer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::{Created, Listed, Piece, Store, crc32c};
use crate::error::Kind;

/// Bytes of a given length that no two seeds share.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(length);
    out
}

pub fn piece(bytes: Vec<u8>) -> Piece {
    Piece { crc32c: crc32c(&bytes), bytes: bytes.into() }
}

fn listing(store: &dyn Store, folder: &str) -> Vec<Listed> {
    let mut found = store.list(folder).unwrap();
    found.sort();
    found
}

/// All of it, on an empty store.
pub fn conforms(store: &Arc<dyn Store>) {
    small_objects(&**store);
    create_only_has_one_winner(store);
    large_objects(&**store);
    listings(&**store);
    an_unfinished_object_is_none(&**store);
}

fn small_objects(store: &dyn Store) {
    assert_eq!(store.read("a/none").unwrap_err().kind, Kind::NotFound);
    assert_eq!(store.reader("a/none").err().unwrap().kind, Kind::NotFound);
    assert_eq!(store.create("a/one", Bytes::from_static(b"1")).unwrap(), Created::New);
    assert_eq!(store.create("a/one", Bytes::from_static(b"2")).unwrap(), Created::Exists);
    assert_eq!(store.read("a/one").unwrap(), b"1"[..]);
    store.replace("a/one", Bytes::from_static(b"three")).unwrap();
    assert_eq!(store.read("a/one").unwrap(), b"three"[..]);
    store.delete(&["a/one".into(), "a/none".into()]).unwrap();
    assert_eq!(store.read("a/one").unwrap_err().kind, Kind::NotFound);
    assert_eq!(store.create("a/one", Bytes::new()).unwrap(), Created::New);
    assert_eq!(store.read("a/one").unwrap(), b""[..]);
    store.delete(&["a/one".into()]).unwrap();
}

fn create_only_has_one_winner(store: &Arc<dyn Store>) {
    for round in 0..8 {
        let (path, won) = (format!("race/{round}"), AtomicUsize::new(0));
        let contents: Vec<Bytes> = (0..8).map(|seed| noise(seed, 5000).into()).collect();
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| match store.create(&path, content.clone()).unwrap() {
                    Created::New => drop(won.fetch_add(1, Ordering::SeqCst)),
                    // Who lost reads what won, whole.
                    Created::Exists => assert!(contents.contains(&store.read(&path).unwrap())),
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "{path}");
    }
}

/// Lengths around every boundary: blocks, bounce buffers, parts.
fn large_objects(store: &dyn Store) {
    let lengths = [1usize, 4095, 4096, 4097, (1 << 20) + 1, 4 << 20, (4 << 20) - 1, 0, 7 << 20, 12345];
    let pieces: Vec<Vec<u8>> =
        lengths.iter().enumerate().map(|(seed, &length)| noise(seed as u64, length)).collect();
    let at_most: u64 = lengths.iter().map(|length| length.next_multiple_of(4096) as u64).sum();
    let writer = store.writer("big/object", at_most).unwrap();
    let offsets: Vec<u64> = std::thread::scope(|scope| {
        let append = |bytes: &Vec<u8>| {
            let (writer, bytes) = (&writer, bytes.clone());
            scope.spawn(move || writer.append(piece(bytes)).unwrap())
        };
        pieces.iter().map(append).collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(listing(store, "big"), [], "nothing is seen before it is finished");
    assert_eq!(writer.finish().unwrap(), at_most);
    drop(writer);
    assert_eq!(listing(store, "big"), [Listed { path: "big/object".into(), bytes: at_most }]);

    let reader = store.reader("big/object").unwrap();
    assert_eq!(reader.bytes(), at_most);
    for (bytes, offset) in pieces.iter().zip(&offsets) {
        assert_eq!(offset % 4096, 0);
        let mut read = vec![0xee; bytes.len()];
        reader.read_at(*offset, &mut read).unwrap();
        assert!(read == *bytes, "piece of {} at {offset}", bytes.len());
        // From the middle, at no alignment.
        let mut inner = vec![0; bytes.len() / 2];
        reader.read_at(offset + bytes.len() as u64 / 3, &mut inner).unwrap();
        assert!(inner == bytes[bytes.len() / 3..][..inner.len()]);
    }
    for (offset, bytes) in [(at_most - 10, 11), (at_most + 4096, 1), (u64::MAX, 2)] {
        assert_eq!(reader.read_at(offset, &mut vec![0; bytes]).unwrap_err().kind, Kind::Corrupt);
    }
    store.delete(&["big/object".into()]).unwrap();
}

fn listings(store: &dyn Store) {
    store.create("t/keep", Bytes::from_static(b"k")).unwrap();
    assert_eq!(listing(store, "nowhere"), []);
    assert_eq!(store.folders("nowhere").unwrap(), [""; 0]);
    let paths: Vec<String> = (0..30).map(|number| format!("t/{:02}/{}", number / 3, number % 3)).collect();
    for path in &paths {
        store.create(path, Bytes::from(path.clone())).unwrap();
    }
    // A folder whose name begins like another one's.
    store.create("t/01x/y", Bytes::from_static(b"z")).unwrap();
    let found: Vec<String> = listing(store, "t/01").into_iter().map(|object| object.path).collect();
    assert_eq!(found, ["t/01/0", "t/01/1", "t/01/2"]);
    assert_eq!(listing(store, "t").len(), 32);
    let mut folders = store.folders("t").unwrap();
    folders.sort();
    assert_eq!(folders.len(), 11);
    assert_eq!(folders[..3], ["00", "01", "01x"]);
    store.delete(&paths).unwrap();
    assert_eq!(store.folders("t").unwrap(), ["01x"], "a folder without objects is none");
    store.delete(&["t/01x/y".into(), "t/keep".into()]).unwrap();
}

fn an_unfinished_object_is_none(store: &dyn Store) {
    let writer = store.writer("half/object", 64 << 20).unwrap();
    for seed in 0..3 {
        writer.append(piece(noise(seed, 6 << 20))).unwrap();
    }
    assert_eq!(listing(store, "half"), []);
    drop(writer);
    assert_eq!(listing(store, "half"), []);
    assert_eq!(store.reader("half/object").err().unwrap().kind, Kind::NotFound);
    store.sweep("half").unwrap();
}
