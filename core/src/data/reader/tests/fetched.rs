//! Files that are not read where they lie: compressed ones, and objects of buckets.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use tempfile::TempDir;

use super::*;
use crate::data::cache::tests::{
    bucket, bucket_fetcher, bucket_fetcher_with, gzip, local_fetcher, store_fetcher, zstd,
};
use crate::storage::conformance::{Azurite, GcsDouble, TestServer};
use crate::storage::{self, Store, StoreOptions, StoreUrl};

/// The files of `folder` packed and put where `put` says; and what the dataset is called there.
fn all_packed(folder: &Path, mut put: impl FnMut(&str, Vec<u8>)) {
    for (number, entry) in fs::read_dir(folder).unwrap().enumerate() {
        let path = entry.unwrap().path();
        let (name, bytes) = (path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
        match number % 3 {
            _ if name.ends_with("parquet") => put(name, bytes),
            0 => put(name, bytes),
            1 => put(&format!("{name}.gz"), gzip(&bytes)),
            _ => put(&format!("{name}.zst"), zstd(&bytes)),
        }
    }
}

/// A folder of files of each format.
fn every_format() -> Vec<(TempDir, Format)> {
    let (tokens, spec) = tokens(&[30, 20, 40]);
    let folders: Vec<TempDir> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    for file in 0..3u64 {
        let numbers = file * 30..(file + 1) * 30;
        let lines: String = numbers.clone().map(|n| format!("{{\"n\": {n}}}\n")).collect();
        fs::write(folders[0].path().join(format!("{file}.jsonl")), lines).unwrap();
        let parts: Vec<_> = numbers.clone().map(|n| (format!("{n}.txt"), format!("sample {n}"))).collect();
        archive(&folders[1].path().join(format!("{file}.tar")), &parts);
        let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (30, 2), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(numbers.clone().flat_map(|n| [n as u16, n as u16 + 500]).flat_map(u16::to_le_bytes));
        fs::write(folders[2].path().join(format!("{file}.npy")), bytes).unwrap();
        parquet(
            &folders[3].path().join(format!("{file}.parquet")),
            numbers.start as i64..numbers.end as i64,
            11,
        );
    }
    let formats = [
        Format::Jsonl,
        Format::WebDataset { parts: vec![] },
        Format::Npy { dtype: None, shape: vec![] },
        Format::Parquet { columns: vec![], schema: String::new() },
    ];
    let rest = folders.into_iter().zip(formats);
    [(tokens, spec.format)].into_iter().chain(rest).collect()
}

#[test]
fn packed_files_and_objects_are_read_like_plain_ones() {
    for (plain, format) in every_format() {
        let expected = registered(plain.path(), format.clone());
        let (packed, cached, bucket) = (TempDir::new().unwrap(), TempDir::new().unwrap(), bucket());
        all_packed(plain.path(), |name, bytes| {
            fs::write(packed.path().join(name), &bytes).unwrap();
            bucket.replace(&format!("p/{name}"), bytes.into()).unwrap();
        });
        for (path, fetcher) in [
            (packed.path(), local_fetcher(cached.path())),
            (Path::new("s3://bucket/p"), bucket_fetcher(cached.path(), &bucket)),
        ] {
            let spec = DatasetSpec { path: path.to_owned(), files: vec![], ..expected.clone() };
            let (spec, scanned) = scan::resolve_with(spec, OnDamage::Raise, &fetcher).unwrap();
            assert_eq!((scanned, &spec.format), (Scanned::Yes, &expected.format));
            assert!(spec.files.iter().all(|file| file.path.starts_with(path)), "{:?}", spec.files);
            let counts = |spec: &DatasetSpec| spec.files.iter().map(|file| file.samples).collect::<Vec<_>>();
            assert_eq!(counts(&spec), counts(&expected));
            let reader = Reader::with(&spec, fetcher).unwrap();
            for samples in orders(90) {
                let rows = Reader::new(&expected).unwrap().read(&samples).unwrap();
                assert_eq!(reader.read(&samples).unwrap(), rows, "{} of {path:?}", format.name());
            }
        }
    }
}

#[test]
fn counting_what_a_bucket_holds_fetches_no_more_than_that_takes() {
    for (plain, format) in every_format() {
        let (cached, bucket) = (TempDir::new().unwrap(), bucket());
        let mut bytes = 0;
        for entry in fs::read_dir(plain.path()).unwrap() {
            let path = entry.unwrap().path();
            let content = fs::read(&path).unwrap();
            bytes += content.len() as u64;
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            bucket.replace(&name, content.into()).unwrap();
        }
        let spec = DatasetSpec::new("d", "s3://bucket", format.clone(), 4);
        let fetcher = bucket_fetcher(cached.path(), &bucket);
        let (spec, _) = scan::resolve_with(spec, OnDamage::Raise, &fetcher).unwrap();
        assert_eq!(spec.total_samples, 90);
        let fetched = bucket.bytes.load(Ordering::SeqCst);
        match format {
            Format::Tokens { .. } => assert_eq!(fetched, 0),
            Format::Npy { .. } | Format::Parquet { .. } => {
                assert!(fetched < 2 * bytes, "{fetched} of {bytes}")
            }
            _ => assert_eq!(fetched, bytes, "each once"),
        }
        let reader = Reader::with(&spec, fetcher).unwrap();
        reader.read(&orders(90)[1]).unwrap();
        if !matches!(format, Format::Npy { .. } | Format::Parquet { .. }) {
            assert_eq!(bucket.bytes.load(Ordering::SeqCst), bytes, "{}", format.name());
        }
    }
}

#[test]
fn a_file_may_be_had_at_hand_before_it_is_read() {
    let (cached, bucket) = (TempDir::new().unwrap(), bucket());
    let (folder, spec) = tokens(&[5, 5]);
    for name in ["000.bin", "001.bin"] {
        let packed = zstd(&fs::read(folder.path().join(name)).unwrap());
        bucket.replace(&format!("{name}.zst"), packed.into()).unwrap();
    }
    let remote = DatasetSpec { path: "s3://bucket".into(), files: vec![], ..spec };
    let fetcher = bucket_fetcher(cached.path(), &bucket);
    let (spec, _) = scan::resolve_with(remote, OnDamage::Raise, &fetcher).unwrap();
    let reader = Reader::with(&spec, fetcher).unwrap();
    let (file, _) = reader.files().locate(7).unwrap();
    let path = reader.files().local(file).unwrap();
    assert!(path.starts_with(cached.path()) && fs::metadata(path).unwrap().len() == 40);
    let before = bucket.bytes.load(Ordering::SeqCst);
    assert_eq!(numbers(&reader, &[7]).unwrap(), [7]);
    assert_eq!(bucket.bytes.load(Ordering::SeqCst), before);
    // One that was evicted meanwhile is fetched again.
    fs::remove_dir_all(cached.path()).unwrap();
    assert_eq!(numbers(&reader, &[2]).unwrap(), [2]);
}

#[test]
fn a_damaged_packed_file_is_named_and_left_out_only_when_asked_to() {
    let (folder, cached) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let fetcher = local_fetcher(cached.path());
    let packed = gzip(b"{}\n{}\n");
    fs::write(folder.path().join("a.jsonl"), "{}\n").unwrap();
    fs::write(folder.path().join("b.jsonl.gz"), &packed[..packed.len() - 3]).unwrap();
    fs::write(folder.path().join("c.jsonl.zst"), "no frame").unwrap();
    let spec = DatasetSpec::new("d", folder.path(), Format::Jsonl, 4);
    let error = scan::resolve_with(spec.clone(), OnDamage::Raise, &fetcher).unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.message.contains("b.jsonl.gz"), "{error}");
    let (spec, _) = scan::resolve_with(spec, OnDamage::Quarantine, &fetcher).unwrap();
    let left_out: Vec<_> = spec.quarantined.iter().map(|file| file.path.file_name().unwrap()).collect();
    assert_eq!((spec.total_samples, left_out), (1, vec!["b.jsonl.gz".as_ref(), "c.jsonl.zst".as_ref()]));
    assert!(spec.quarantined[0].reason.contains("b.jsonl.gz"), "{:?}", spec.quarantined);
}

#[test]
fn a_bucket_that_is_away_is_no_damage() {
    for (plain, format) in every_format().into_iter().skip(1) {
        let (cached, bucket) = (TempDir::new().unwrap(), bucket());
        all_packed(plain.path(), |name, bytes| bucket.replace(name, bytes.into()).unwrap());
        let spec = DatasetSpec::new("d", "s3://bucket", format.clone(), 4);
        let fetcher = bucket_fetcher(cached.path(), &bucket);
        bucket.is_away.store(true, Ordering::SeqCst);
        let error = scan::resolve_with(spec.clone(), OnDamage::Quarantine, &fetcher).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{}: {error}", format.name());
        assert!(error.message.contains("s3://bucket/"), "{error}");
        // It stalls, and nothing is skipped.
        bucket.is_away.store(false, Ordering::SeqCst);
        let (spec, _) = scan::resolve_with(spec, OnDamage::Quarantine, &fetcher).unwrap();
        assert_eq!((spec.total_samples, spec.quarantined), (90, vec![]));
    }
}

/// What an evicted file takes of the disk is given back once it is closed.
#[test]
fn evicted_files_are_closed_before_another_is_opened() {
    let (cached, bucket) = (TempDir::new().unwrap(), bucket());
    let (folder, spec) = tokens(&[5; 6]);
    for file in 0..6 {
        let name = format!("{file:03}.bin");
        bucket.replace(&name, fs::read(folder.path().join(&name)).unwrap().into()).unwrap();
    }
    let remote = DatasetSpec { path: "s3://bucket".into(), files: vec![], ..spec };
    let (spec, _) =
        scan::resolve_with(remote, OnDamage::Raise, &bucket_fetcher(cached.path(), &bucket)).unwrap();
    let open_and_gone = || {
        let links = fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|link| fs::read_link(link.unwrap().path()).ok());
        let ours = links.filter(|link| link.starts_with(cached.path()));
        ours.filter(|link| link.to_string_lossy().ends_with("(deleted)")).count()
    };
    // Room for two.
    let reader = Reader::with(&spec, bucket_fetcher_with(cached.path(), &bucket, 2 * 4096)).unwrap();
    for round in 0..3 {
        for sample in (0..30).step_by(5) {
            assert_eq!(numbers(&reader, &[sample]).unwrap(), [sample as u32], "round {round}");
            assert!(open_and_gone() <= 1, "sample {sample} of round {round}: {}", open_and_gone());
        }
    }
}

/// Through the client of that kind of store.
fn read_from(url: &StoreUrl, options: &StoreOptions) {
    let store = storage::open(url, options, "").unwrap();
    for (plain, format) in every_format() {
        let (expected, cached) = (registered(plain.path(), format.clone()), TempDir::new().unwrap());
        let folder = format.name();
        all_packed(plain.path(), |name, bytes| {
            store.replace(&format!("{folder}/{name}"), bytes.into()).unwrap()
        });
        let path = format!("{}/{folder}", url.to_string().trim_end_matches('/')).into();
        let spec = DatasetSpec { path, files: vec![], ..expected.clone() };
        let fetcher = || store_fetcher(cached.path(), options);
        let (spec, scanned) = scan::resolve_with(spec, OnDamage::Raise, &fetcher()).unwrap();
        assert_eq!((scanned, spec.total_samples), (Scanned::Yes, 90), "{folder}");
        let (local, remote) = (Reader::new(&expected).unwrap(), Reader::with(&spec, fetcher()).unwrap());
        for samples in orders(90) {
            assert_eq!(remote.read(&samples).unwrap(), local.read(&samples).unwrap(), "{folder}");
        }
    }
}

#[test]
fn files_in_a_real_s3_bucket_are_read_like_plain_ones() {
    let Some(server) = TestServer::start() else { return };
    read_from(&server.url, &server.options);
}

#[test]
fn files_in_a_real_azure_container_are_read_like_plain_ones() {
    let Some(server) = Azurite::start() else { return };
    read_from(&server.url, &server.options);
}

#[test]
fn files_in_google_cloud_are_read_like_plain_ones() {
    let double = GcsDouble::start();
    read_from(&double.url, &double.options);
}
