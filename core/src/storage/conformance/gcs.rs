//! GCS: over a double of its XML API, and every way in which an answer can fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::gcs_double::{Fault, GcsDouble};
use super::{conforms, listing, noise, piece};
use crate::error::Kind;
use crate::storage::{Created, Store, StoreOptions, StoreUrl, open};

/// Tries fail for good while a test waits.
fn impatient(options: &StoreOptions) -> StoreOptions {
    StoreOptions { retry_budget: Duration::from_millis(300), ..options.clone() }
}

fn job(double: &GcsDouble) -> Arc<dyn Store> {
    open(&double.url, &impatient(&double.options), "job").unwrap()
}

#[test]
fn gcs_conforms() {
    let double = GcsDouble::start();
    conforms(&open(&double.url, &double.options, "job").unwrap());
    assert_eq!(double.open_uploads(), 0, "an unfinished upload is aborted");
}

#[test]
fn gcs_says_what_is_wrong_with_credentials_and_buckets() {
    let double = GcsDouble::start();
    let nowhere: StoreUrl = "gs://elsewhere/x".parse().unwrap();
    let error = open(&nowhere, &double.options, "").unwrap().create("a", "x".into()).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    assert!(error.message.contains("gs://elsewhere/x/a") && error.hint.unwrap().contains("bucket"));
    for (status, kind, hint) in [
        (401, Kind::Denied, "GOOGLE_APPLICATION_CREDENTIALS"),
        (403, Kind::Denied, "GOOGLE_APPLICATION_CREDENTIALS"),
        (429, Kind::Unavailable, ""),
        (503, Kind::Unavailable, ""),
        (507, Kind::Overloaded, "free space"),
    ] {
        double.fail(move |_, _| Some(Fault::Refused(status)));
        let store = job(&double);
        for error in [
            store.read("x").unwrap_err(),
            store.create("x", "y".into()).unwrap_err(),
            store.list("").unwrap_err(),
        ] {
            assert_eq!(error.kind, kind, "{status}: {error}");
            assert!(error.hint.unwrap_or_default().contains(hint), "{status}");
        }
    }
}

/// A throttled or restarting store: what is refused a few times is done all the same.
#[test]
fn a_store_that_refuses_now_and_then_is_asked_again() {
    for status in [429, 500, 502, 503] {
        let double = GcsDouble::start();
        let asked = AtomicUsize::new(0);
        double.fail(move |_, _| {
            let refuses = asked.fetch_add(1, Ordering::SeqCst) % 3 != 2;
            refuses.then_some(Fault::Refused(status))
        });
        let store = open(&double.url, &double.options, "job").unwrap();
        assert_eq!(store.create("a", "1".into()).unwrap(), Created::New, "{status}");
        assert_eq!(store.read("a").unwrap(), b"1"[..]);
        let writer = store.writer("big", 12 << 20).unwrap();
        for seed in 0..3 {
            writer.append(piece(noise(seed, 4 << 20))).unwrap();
        }
        assert_eq!(writer.finish().unwrap(), 12 << 20);
        assert_eq!(listing(&*store, "").len(), 2);
    }
}

/// What it refuses is written and read whole all the same, by fewer requests at once.
#[test]
fn a_store_that_asks_to_slow_down_is_asked_less() {
    let double = GcsDouble::start();
    let store = open(&double.url, &double.options, "job").unwrap();
    let lanes = double.lanes();
    let (sends, brings) = (lanes.send.width(), lanes.bring.width());
    let (parts, ranges) = (AtomicUsize::new(0), AtomicUsize::new(0));
    double.fail(move |method, target| {
        let asked = match method.as_str() {
            "PUT" if target.contains("partNumber") => parts.fetch_add(1, Ordering::SeqCst),
            "GET" if target.contains("big") => ranges.fetch_add(1, Ordering::SeqCst),
            _ => return None,
        };
        (asked < 5).then_some(Fault::Refused(503))
    });
    let writer = store.writer("big", 120 << 20).unwrap();
    let pieces: Vec<Vec<u8>> = (0..20).map(|seed| noise(seed, 6 << 20)).collect();
    for content in &pieces {
        writer.append(piece(content.clone())).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 120 << 20);
    let sends_now = lanes.send.width();
    assert!(sends_now < sends, "{sends_now} at once after {sends}");
    let mut target = vec![0; 120 << 20];
    let reader = store.reader("big").unwrap();
    for (number, half) in target.chunks_mut(60 << 20).enumerate() {
        reader.read_at(number as u64 * (60 << 20), half).unwrap();
    }
    let brings_now = lanes.bring.width();
    assert!(brings_now < brings, "{brings_now} at once after {brings}");
    assert!(target.chunks(6 << 20).zip(&pieces).all(|(found, written)| found == written));
}

/// An unknown outcome is never taken for either one: the object is there whole, or is not, and who asks again is told.
#[test]
fn a_create_whose_answer_is_lost_is_unavailable_and_may_exist() {
    let double = GcsDouble::start();
    double.fail(|method, _| (method == "PUT").then_some(Fault::LostAnswer));
    let store = job(&double);
    let error = store.create("COMMIT", "1".into()).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    double.fail(|_, _| None);
    assert_eq!(store.create("COMMIT", "2".into()).unwrap(), Created::Exists);
    assert_eq!(store.read("COMMIT").unwrap(), b"1"[..]);
}

#[test]
fn an_answer_that_is_cut_short_is_never_taken_for_whole() {
    let double = GcsDouble::start();
    let store = job(&double);
    let content = noise(1, 100_000);
    store.replace("a", content.clone().into()).unwrap();
    let reader = store.reader("a").unwrap();
    double.fail(|method, target| (method == "GET" && target.contains("%2F")).then_some(Fault::CutShort));
    let mut target = vec![0; content.len()];
    for error in [store.read("a").unwrap_err(), reader.read_at(0, &mut target).unwrap_err()] {
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
    }
    double
        .fail(|method, target| (method == "GET" && target.contains("list-type")).then_some(Fault::CutShort));
    assert!(store.list("").is_err(), "half a listing is none");
    double.fail(|_, _| None);
    reader.read_at(0, &mut target).unwrap();
    assert!(target == content);
}

/// TLS guards the way to the service's door only, and a proxy may end it before.
#[test]
fn a_bit_that_flips_on_its_way_is_refused_by_the_store() {
    let double = GcsDouble::start();
    let store = job(&double);
    for what in ["COMMIT", "partNumber=2"] {
        double
            .fail(move |method, target| (method == "PUT" && target.contains(what)).then_some(Fault::Flipped));
        let small = store.create("COMMIT", "what was meant".into()).map(drop);
        let writer = store.writer("big", 18 << 20).unwrap();
        let large = (0..3).try_for_each(|seed| writer.append(piece(noise(seed, 6 << 20))).map(drop));
        let large = large.and_then(|()| writer.finish());
        let (refused, taken) =
            if what == "COMMIT" { (small, large.map(drop)) } else { (large.map(drop), small) };
        let error = refused.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(error.message.contains("BadDigest"), "{error}");
        taken.unwrap();
        double.fail(|_, _| None);
        assert_eq!(listing(&*store, "").len(), if what == "COMMIT" { 1 } else { 2 });
    }
}

#[test]
fn a_large_object_whose_upload_fails_leaves_nothing_and_can_be_written_again() {
    for broken in ["uploads", "partNumber", "uploadId"] {
        let double = GcsDouble::start();
        let store = job(&double);
        double.fail(move |method, target| {
            (method != "DELETE" && target.contains(broken)).then_some(Fault::Refused(503))
        });
        let write = || {
            let writer = store.writer("big", 18 << 20).unwrap();
            (0..3).try_for_each(|seed| writer.append(piece(noise(seed, 6 << 20))).map(drop))?;
            writer.finish()
        };
        let error = write().unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{broken}: {error}");
        assert_eq!(double.open_uploads(), 0, "{broken}");
        double.fail(|_, _| None);
        assert_eq!(listing(&*store, ""), []);
        assert_eq!(write().unwrap(), 18 << 20);
    }
}

#[test]
fn an_upload_whose_completion_is_not_answered_is_found_complete() {
    let double = GcsDouble::start();
    let store = job(&double);
    let completions = AtomicUsize::new(0);
    double.fail(move |method, target| {
        let completes = method == "POST" && target.contains("uploadId");
        (completes && completions.fetch_add(1, Ordering::SeqCst) == 0).then_some(Fault::LostAnswer)
    });
    let writer = store.writer("big", 18 << 20).unwrap();
    for seed in 0..3 {
        writer.append(piece(noise(seed, 6 << 20))).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 18 << 20);
    assert_eq!(listing(&*store, "").len(), 1);
}
