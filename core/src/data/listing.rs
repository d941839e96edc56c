//! Which files a dataset has: those of a path or of a URL, by their names.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{Fetcher, Origin, Packing, Place};
use super::format::Format;
use crate::error::{Doing, Error, Kind, Result};
use crate::storage::{StoreOptions, StoreUrl};

/// What is to be found out of a bucket that need not be readable here.
const BRIEFLY: Duration = Duration::from_secs(10);

/// And how long it is, where that was told.
type Named = (PathBuf, Option<u64>);

/// What became of looking.
pub enum Found {
    Files(Vec<Origin>),
    /// Not here: trainers' machines may have them. The reason, for the log.
    OutOfReach(String),
}

/// The file itself, or the files below a folder or a prefix that are named like this format's, also compressed, by path. Names that begin with a
/// dot or an underscore are other programs' notes (Spark's and Hive's). `is_counted`: somebody has counted the samples already, so
/// that a bucket which can't be reached is not tried for long.
///
/// Fails with Invalid where a file is there both compressed and not.
pub fn files(path: &Path, format: &Format, is_counted: bool, fetcher: &Fetcher) -> Result<Found> {
    let origin = match Origin::of(path) {
        Ok(origin) => origin,
        Err(error) => return Ok(Found::OutOfReach(error.message)),
    };
    let found = match &origin.place {
        Place::Local(folder) => match local(folder, path, format) {
            Err(error) if is_out_of_reach(&error) => {
                return Ok(Found::OutOfReach(format!("{}: {error}", path.display())));
            }
            found => found.doing(|| format!("reading {}", path.display()))?,
        },
        Place::Object { bucket, path: prefix } => {
            match objects((bucket, prefix), path, format, is_counted, fetcher) {
                Err(error) if is_counted && may_be_reached_elsewhere(error.kind) => {
                    return Ok(Found::OutOfReach(error.message));
                }
                found => found?,
            }
        }
    };
    match found {
        None => Ok(Found::Files(vec![origin])),
        Some(mut names) => {
            names.sort();
            refuse_twins(&names)?;
            let origin = |(name, bytes): &Named| Origin::listed(name, *bytes);
            names.iter().map(origin).collect::<Result<_>>().map(Found::Files)
        }
    }
}

/// Paths that don't exist or aren't ours on this machine; the trainers' machines may have them.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory
    )
}

fn may_be_reached_elsewhere(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::Denied | Kind::Unavailable | Kind::Timeout)
}

/// Names below a folder, which is called `name`; None: it is a file.
fn local(folder: &Path, name: &Path, format: &Format) -> io::Result<Option<Vec<Named>>> {
    if !fs::metadata(folder)?.is_dir() {
        fs::File::open(folder)?;
        return Ok(None);
    }
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(inside)? {
            let found = entry?.path();
            if is_note(&found) {
                continue;
            }
            if found.is_dir() {
                folders.push(found);
            } else if is_named_like(&found, format) && found.is_file() {
                let below = found.strip_prefix(folder).expect("it was found below");
                files.push((name.join(below), None));
            }
        }
    }
    Ok(Some(files))
}

/// The same of a bucket.
fn objects(
    (bucket, path): (&StoreUrl, &str),
    name: &Path,
    format: &Format,
    is_counted: bool,
    fetcher: &Fetcher,
) -> Result<Option<Vec<Named>>> {
    let store = fetcher.bucket(bucket, |options: &mut StoreOptions| {
        if is_counted {
            options.retry_budget = options.retry_budget.min(BRIEFLY);
            options.request_timeout = options.request_timeout.min(BRIEFLY);
        }
    })?;
    let is_folder = path.is_empty() || name.to_string_lossy().ends_with('/');
    if !is_folder {
        match store.reader(path) {
            Err(error) if error.kind == Kind::NotFound => {}
            found => return found.map(|_| None),
        }
    }
    let listed = store.list(path)?;
    let is_data =
        |below: &Path| !below.iter().any(|part| is_note(part.as_ref())) && is_named_like(below, format);
    let data = listed.iter().filter_map(|object| {
        let below = object.path.strip_prefix(path)?.trim_start_matches('/');
        is_data(below.as_ref()).then(|| (name.join(below), Some(object.bytes)))
    });
    Ok(Some(data.collect()))
}

fn is_note(path: &Path) -> bool {
    path.file_name().unwrap_or_default().to_string_lossy().starts_with(['.', '_'])
}

/// Parquet compresses inside.
fn is_named_like(path: &Path, format: &Format) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = match Packing::of(&name) {
        Some((plain, _)) if !matches!(format, Format::Parquet { .. }) => plain,
        _ => &name,
    };
    Path::new(plain).extension().is_some_and(|ending| format.ending().is_some_and(|own| ending == own))
}

/// Samples would come twice.
fn refuse_twins(names: &[Named]) -> Result<()> {
    let mut known: HashMap<String, &Path> = HashMap::new();
    for (name, _) in names {
        let text = name.to_string_lossy();
        let plain = Packing::of(&text).map_or(&*text, |(plain, _)| plain);
        if let Some(twin) = known.insert(plain.to_owned(), name) {
            let (twin, name) = (twin.display(), name.display());
            return Err(Error::invalid(format!("{twin} and {name} are one file, compressed and not"))
                .hint("keep one of them there"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::data::cache::tests::{bucket, bucket_fetcher};
    use crate::storage::Store;

    const NAMES: [&str; 11] = [
        "b.jsonl",
        "a.jsonl.gz",
        "sub/c.jsonl.zst",
        "sub/deep/a.jsonl",
        "notes.txt",
        "a.gz",
        "d.jsonl.xz",
        ".hidden.jsonl",
        "_temporary/e.jsonl",
        "sub/.f/g.jsonl",
        "p.parquet.gz",
    ];

    fn names(path: &Path, format: &Format, fetcher: &Fetcher) -> Result<Vec<String>> {
        let Found::Files(files) = files(path, format, false, fetcher)? else { panic!("it is here") };
        Ok(files.iter().map(|file| file.name().display().to_string()).collect())
    }

    #[test]
    fn a_folder_and_a_prefix_of_the_same_names_have_the_same_files() {
        let (folder, cached, bucket) = (TempDir::new().unwrap(), TempDir::new().unwrap(), bucket());
        let fetcher = bucket_fetcher(cached.path(), &bucket);
        for name in NAMES {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
            bucket.create(&format!("p/q/{name}"), name.into()).unwrap();
        }
        bucket.create("p/qr/x.jsonl", "beside it".into()).unwrap();
        let url = format!("file://{}", folder.path().display());
        for place in [folder.path().to_str().unwrap(), &url, "s3://bucket/p/q", "gs://bucket/p/q/"] {
            let below = |name| format!("{}/{name}", place.trim_end_matches('/'));
            let expected = ["a.jsonl.gz", "b.jsonl", "sub/c.jsonl.zst", "sub/deep/a.jsonl"].map(below);
            assert_eq!(names(Path::new(place), &Format::Jsonl, &fetcher).unwrap(), expected);
            let one = below("sub/c.jsonl.zst");
            assert_eq!(names(Path::new(&one), &Format::Jsonl, &fetcher).unwrap(), [one]);
        }
        let parquet = Format::Parquet { columns: vec![], schema: String::new() };
        assert_eq!(names(folder.path(), &parquet, &fetcher).unwrap(), [""; 0]);
    }

    #[test]
    fn a_file_that_is_there_twice_is_refused() {
        let folder = TempDir::new().unwrap();
        for name in ["a.tar", "b.tar", "b.tar-1.tar", "b.tar.zst"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let format = Format::WebDataset { parts: vec![] };
        let error = names(folder.path(), &format, &Fetcher::default()).unwrap_err();
        assert!(error.kind == Kind::Invalid && error.message.contains("b.tar.zst"), "{error}");
    }

    #[test]
    fn a_place_that_can_not_be_read_here_says_why() {
        let (cached, bucket) = (TempDir::new().unwrap(), bucket());
        let fetcher = bucket_fetcher(cached.path(), &bucket);
        for place in ["/nowhere/at/all", "hdfs://name/p", "s3:///p"] {
            let found = files(Path::new(place), &Format::Jsonl, true, &fetcher).unwrap();
            assert!(matches!(found, Found::OutOfReach(reason) if reason.contains(place)), "{place}");
        }
    }
}
