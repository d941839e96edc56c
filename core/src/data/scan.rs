//! Counting what the files hold, where they can be read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::spec::{DataFile, DatasetSpec, Format};
use crate::error::{Doing, Error, Result};

/// Whether a dataset's files were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanned {
    Yes,
    /// Registered from its metadata alone; the reason, for the log.
    No(String),
}

/// Scans the files of `spec` where they can be read, fills in `files`, `total_samples` where it is 0, and `version`,
/// and validates. A declared count that differs from the files is Invalid.
pub fn resolve(mut spec: DatasetSpec) -> Result<(DatasetSpec, Scanned)> {
    let scanned = match &spec.format {
        Format::Named(name) => Scanned::No(format!("this build doesn't open {name} files")),
        Format::Tokens { dtype, .. } => {
            let sample_bytes = spec.format.sample_bytes().filter(|bytes| *bytes > 0).ok_or_else(|| {
                Error::invalid(format!("registering dataset {:?}: a sample of 0 tokens", spec.id))
                    .hint("sample_len= says how many tokens make a sample")
            })?;
            match token_files(&spec.path) {
                Ok(paths) => {
                    spec.files = count(&paths, dtype.bytes(), sample_bytes)
                        .doing(|| format!("registering dataset {:?}", spec.id))?;
                    refuse_empty(&spec)?;
                    Scanned::Yes
                }
                Err(error) if is_out_of_reach(&error) => {
                    Scanned::No(format!("{}: {error}", spec.path.display()))
                }
                Err(error) => {
                    return Err(Error::io(
                        format!("registering dataset {:?}: reading {}", spec.id, spec.path.display()),
                        &error,
                    ));
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

/// Paths that don't exist or aren't ours on this machine; the trainers' machines may have them.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory
    )
}

/// The file itself, or a directory's `.bin` files by name.
fn token_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        fs::File::open(path)?;
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "bin") && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Whole samples of each file; a file that ends within an item was cut off, which is Corrupt.
fn count(paths: &[PathBuf], item: u64, sample: u64) -> Result<Vec<DataFile>> {
    let count = |path: &PathBuf| {
        let bytes = fs::metadata(path).doing(|| format!("reading {}", path.display()))?.len();
        if !bytes.is_multiple_of(item) {
            return Err(Error::corrupt(format!(
                "reading {}: {bytes} bytes are not a whole number of {item}-byte items",
                path.display()
            ))
            .hint("the file was cut off, or dtype= is not what it was written with"));
        }
        Ok(DataFile { path: path.clone(), samples: bytes / sample })
    };
    paths.iter().map(count).collect()
}

fn refuse_empty(spec: &DatasetSpec) -> Result<()> {
    if spec.files.iter().all(|file| file.samples == 0) {
        return Err(Error::invalid(format!(
            "registering dataset {:?}: {} holds no whole sample",
            spec.id,
            spec.path.display()
        ))
        .hint("path= is one file of tokens or a directory of .bin files; check sample_len= and dtype= too"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::error::Kind;

    fn spec(path: &Path, total_samples: u64) -> DatasetSpec {
        DatasetSpec {
            id: "corpus".into(),
            path: path.into(),
            format: Format::parse("tokens", "uint16", 4).unwrap(),
            total_samples,
            shard_size: 3,
            shuffle: false,
            seed: 0,
            version: 0,
            files: vec![],
        }
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
        let (found, scanned) = resolve(spec(folder.path(), 0)).unwrap();
        assert_eq!(scanned, Scanned::Yes);
        let files: Vec<_> =
            found.files.iter().map(|file| (file.path.file_name().unwrap(), file.samples)).collect();
        assert_eq!(files, [("a.bin".as_ref(), 3), ("b.bin".as_ref(), 2)]);
        assert_eq!((found.total_samples, found.version), (5, found.content_version()));
        resolve(spec(folder.path(), 5)).unwrap();
    }

    #[test]
    fn a_wrong_count_is_an_error_with_both_numbers() {
        let folder = directory(&[("a.bin", 24)]);
        for declared in [2, 4] {
            let error = resolve(spec(folder.path(), declared)).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid);
            assert!(
                error.message.contains(&format!("{declared} samples declared, its files hold 3")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_path_that_can_not_be_read_is_taken_at_its_word() {
        let (found, scanned) = resolve(spec(Path::new("/nowhere/corpus"), 100)).unwrap();
        assert!(matches!(scanned, Scanned::No(reason) if reason.contains("/nowhere/corpus")));
        assert!(found.files.is_empty() && found.total_samples == 100);
        assert_eq!(resolve(spec(Path::new("/nowhere/corpus"), 0)).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn a_file_cut_off_within_an_item_is_corrupt_and_named() {
        let folder = directory(&[("a.bin", 24), ("b.bin", 23)]);
        let error = resolve(spec(folder.path(), 0)).unwrap_err();
        assert!(error.kind == Kind::Corrupt && error.message.contains("b.bin"), "{error}");
    }

    #[test]
    fn a_directory_without_samples_is_refused() {
        let folder = directory(&[("notes.txt", 80), ("a.bin", 6)]);
        assert_eq!(resolve(spec(folder.path(), 0)).unwrap_err().kind, Kind::Invalid);
    }
}
