//! Counting what the files hold, where they can be read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cache::{Fetcher, Origin};
use super::dtype::Dtype;
use super::format::Format;
use super::formats::{self, Held};
use super::listing::{self, Found};
use super::quarantine;
use super::spec::{DataFile, DatasetSpec, Quarantined};
use crate::error::{Doing, Error, Kind, Result};

/// Files looked at at once: they may lie on a slow disk, where several are waited for together.
const AT_ONCE: usize = 8;

/// Whether a dataset's files were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    Yes,
    /// Registered from its metadata alone; the reason, for the log.
    No(String),
}

/// What becomes of a file that is damaged when it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// The dataset is not registered.
    Raise,
    /// It is left out, and named in the spec.
    Quarantine,
}

/// Scans the files of `spec` where they can be read, fills in `files`, `quarantined`, what of the format was left open,
/// `total_samples` where it is 0, and `version`, and validates. A declared count that differs from the files is Invalid.
pub fn resolve(spec: DatasetSpec, on_damage: OnDamage) -> Result<(DatasetSpec, Scanned)> {
    resolve_with(spec, on_damage, &Fetcher::default())
}

/// With files that `fetcher` brings.
pub fn resolve_with(
    mut spec: DatasetSpec,
    on_damage: OnDamage,
    fetcher: &Fetcher,
) -> Result<(DatasetSpec, Scanned)> {
    let doing = || format!("registering dataset {:?}", spec.id);
    let scanned = match spec.format.ending() {
        None => Scanned::No(format!("this build doesn't open {} files", spec.format.name())),
        Some(_) => {
            let is_counted = spec.total_samples > 0;
            match listing::files(&spec.path, &spec.format, is_counted, fetcher).doing(doing)? {
                Found::OutOfReach(reason) => Scanned::No(reason),
                Found::Files(files) => {
                    let doing = doing();
                    count(&mut spec, files, on_damage, fetcher).doing(|| doing)?;
                    Scanned::Yes
                }
            }
        }
    };
    if spec.total_samples == 0 {
        spec.total_samples = spec.files.iter().map(|file| file.samples).sum();
    }
    if let (0, Scanned::No(reason)) = (spec.total_samples, &scanned) {
        return Err(Error::invalid(format!(
            "registering dataset {:?}: can't count its samples: {reason}",
            spec.id
        ))
        .hint("give total_samples=, or make the path readable here"));
    }
    spec.version = spec.content_version();
    spec.validate()?;
    Ok((spec, scanned))
}

fn count(spec: &mut DatasetSpec, files: Vec<Origin>, on_damage: OnDamage, fetcher: &Fetcher) -> Result<()> {
    let mut agreed: Option<(Format, PathBuf)> = None;
    for (origin, held) in held(&spec.format, files, fetcher) {
        let path = origin.name().to_owned();
        let held = match held {
            Err(error) if on_damage == OnDamage::Quarantine && error.kind == Kind::Corrupt => {
                let again = || formats::scan(&spec.format, &origin, fetcher);
                match quarantine::confirmed(&path, || fetcher.open(&origin), again)? {
                    Ok(held) => Ok(held),
                    Err(reason) => Err(Error::corrupt(reason)),
                }
            }
            held => held,
        };
        let found = held.and_then(|held| {
            let format = match &agreed {
                None => held.format,
                Some((format, first)) => {
                    let differs = || differs(format, first, &held.format, &path);
                    format.with(&held.format).ok_or_else(differs)?
                }
            };
            Ok((format, held.samples))
        });
        match found {
            Ok((format, samples)) => {
                let first = agreed.map_or_else(|| path.clone(), |(_, first)| first);
                agreed = Some((format, first));
                spec.files.push(DataFile { path, samples });
            }
            Err(error) if on_damage == OnDamage::Quarantine && error.kind == Kind::Corrupt => {
                spec.quarantined.push(Quarantined { path, reason: error.message });
            }
            Err(error) => return Err(error),
        }
    }
    if spec.files.iter().all(|file| file.samples == 0) {
        return Err(nothing(spec));
    }
    if let Some((found, _)) = agreed {
        spec.format = spec.format.filled(found)?;
    }
    Ok(())
}

/// What each file holds, in their order.
fn held(format: &Format, files: Vec<Origin>, fetcher: &Fetcher) -> Vec<(Origin, Result<Held>)> {
    let next = AtomicUsize::new(0);
    let look = || {
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(number) else { return found };
            found.push((number, formats::scan(format, file, fetcher)));
        }
    };
    let mut found: Vec<(usize, Result<Held>)> = std::thread::scope(|scope| {
        let lookers: Vec<_> = (0..AT_ONCE.min(files.len())).map(|_| scope.spawn(look)).collect();
        lookers.into_iter().flat_map(|looker| looker.join().expect("scanning never panics")).collect()
    });
    found.sort_unstable_by_key(|(number, _)| *number);
    files.into_iter().zip(found).map(|(file, (_, held))| (file, held)).collect()
}

fn differs(format: &Format, first: &Path, other: &Format, path: &Path) -> Error {
    let told = |format: &Format| match format {
        Format::Npy { dtype, shape } => {
            format!("{} of shape {shape:?}", dtype.map_or("nothing", Dtype::name))
        }
        Format::Parquet { schema, .. } => format!("({schema})"),
        other => other.name().to_owned(),
    };
    let (held, path, first) = (told(other), path.display(), first.display());
    Error::invalid(format!("reading {path}: it holds {held}, and {first} {}", told(format)))
        .hint("all files of a dataset hold the same kind of samples")
}

fn nothing(spec: &DatasetSpec) -> Error {
    let ending = spec.format.ending().unwrap_or_default();
    let left_out = match spec.quarantined.as_slice() {
        [] => String::new(),
        [first, ..] => format!(", {} damaged files left out ({})", spec.quarantined.len(), first.reason),
    };
    Error::invalid(format!("{} holds no whole sample{left_out}", spec.path.display())).hint(format!(
        "path= is one file, a directory or a prefix of .{ending} files; check that format= and its arguments are what they were written with"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::error::Kind;

    fn spec(path: &Path, total_samples: u64) -> DatasetSpec {
        let format = Format::Tokens { dtype: Dtype::Uint16, sample_len: 4 };
        DatasetSpec { total_samples, ..DatasetSpec::new("corpus", path, format, 3) }
    }

    fn registered(spec: DatasetSpec) -> Result<(DatasetSpec, Scanned)> {
        resolve(spec, OnDamage::Raise)
    }

    fn directory(files: &[(&str, usize)]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), vec![0; *bytes]).unwrap();
        }
        folder
    }

    #[test]
    fn files_are_counted_in_the_order_of_their_names() {
        // 8 bytes a sample; the odd 2 of b.bin are unused; notes.txt is not data.
        let folder = directory(&[("b.bin", 18), ("a.bin", 24), ("notes.txt", 80)]);
        let (found, scanned) = registered(spec(folder.path(), 0)).unwrap();
        assert_eq!(scanned, Scanned::Yes);
        let files: Vec<_> =
            found.files.iter().map(|file| (file.path.file_name().unwrap(), file.samples)).collect();
        assert_eq!(files, [("a.bin".as_ref(), 3), ("b.bin".as_ref(), 2)]);
        assert_eq!((found.total_samples, found.version), (5, found.content_version()));
        registered(spec(folder.path(), 5)).unwrap();
    }

    #[test]
    fn a_wrong_count_is_an_error_with_both_numbers() {
        let folder = directory(&[("a.bin", 24)]);
        for declared in [2, 4] {
            let error = registered(spec(folder.path(), declared)).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid);
            assert!(
                error.message.contains(&format!("{declared} samples declared, its files hold 3")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_path_that_can_not_be_read_is_taken_at_its_word() {
        let (found, scanned) = registered(spec(Path::new("/nowhere/corpus"), 100)).unwrap();
        assert!(matches!(scanned, Scanned::No(reason) if reason.contains("/nowhere/corpus")));
        assert!(found.files.is_empty() && found.total_samples == 100);
        assert_eq!(registered(spec(Path::new("/nowhere/corpus"), 0)).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn a_file_cut_off_within_an_item_is_corrupt_and_named() {
        let folder = directory(&[("a.bin", 24), ("b.bin", 23)]);
        let error = registered(spec(folder.path(), 0)).unwrap_err();
        assert!(error.kind == Kind::Corrupt && error.message.contains("b.bin"), "{error}");
    }

    #[test]
    fn a_directory_without_samples_is_refused() {
        let folder = directory(&[("notes.txt", 80), ("a.bin", 6)]);
        assert_eq!(registered(spec(folder.path(), 0)).unwrap_err().kind, Kind::Invalid);
    }
}
