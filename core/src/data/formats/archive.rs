//! WebDataset: a tar file in which the files that share a name up to its first dot are the parts of one sample.
//!
//! Source: the WebDataset format's description (webdataset 1.0, "The WebDataset Format"): parts of a sample stand one after the
//! other; names that begin with two underscores, and such without an ending, are no samples.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use tar::{Archive, EntryType};

use super::{Extent, Held};
use crate::data::format::Format;
use crate::error::{Doing, Error, Result};

/// One sample of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its parts' common name.
    pub key: String,
    /// Ending (of small letters) and place of each part.
    pub parts: Vec<(String, Extent)>,
}

pub fn scan(path: &Path, file: &File) -> Result<Held> {
    let (mut samples, mut parts) = (0, BTreeSet::new());
    walk(path, file, |sample| {
        samples += 1;
        parts.extend(sample.parts.into_iter().map(|(ending, _)| ending));
    })?;
    Ok(Held { samples, format: Format::WebDataset { parts: parts.into_iter().collect() } })
}

pub fn index(path: &Path, file: &File) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    walk(path, file, |sample| samples.push(sample))?;
    Ok(samples)
}

/// Goes from header to header: what the parts hold is not read.
fn walk(path: &Path, file: &File, mut found: impl FnMut(Sample)) -> Result<()> {
    let doing = || format!("reading {}", path.display());
    let length = file.metadata().doing(doing)?.len();
    let mut archive = Archive::new(BufReader::new(file));
    let mut sample: Option<Sample> = None;
    for entry in archive.entries_with_seek().doing(doing)? {
        let entry = entry.map_err(|error| no_archive(path, &error))?;
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, ending)) = parted(&name) else { continue };
        let extent = extent(path, &name, entry.raw_file_position(), entry.size(), length)?;
        if sample.as_ref().is_none_or(|sample| sample.key != key) {
            sample
                .replace(Sample { key: key.to_owned(), parts: Vec::new() })
                .into_iter()
                .for_each(&mut found);
        }
        let parts = &mut sample.as_mut().expect("it was just put there").parts;
        let ending = ending.to_lowercase();
        if parts.iter().any(|(known, _)| *known == ending) {
            return Err(Error::corrupt(format!("{}: it holds {name:?} twice", doing()))
                .hint("each sample needs a name of its own"));
        }
        parts.push((ending, extent));
    }
    sample.into_iter().for_each(found);
    Ok(())
}

/// The crate tells what is wrong in an error of the system's kind.
fn no_archive(path: &Path, error: &std::io::Error) -> Error {
    Error::corrupt(format!("reading {}: it is no whole tar archive: {error}", path.display()))
        .hint("it was cut off, or is compressed under another name")
}

fn extent(path: &Path, name: &str, offset: u64, bytes: u64, length: u64) -> Result<Extent> {
    if offset.saturating_add(bytes) > length {
        return Err(Error::corrupt(format!(
            "reading {}: it ends at byte {length}, within {name:?}",
            path.display()
        ))
        .hint("the file was cut off"));
    }
    let bytes = u32::try_from(bytes).map_err(|_| {
        Error::invalid(format!("reading {}: {name:?} has {bytes} bytes", path.display()))
            .hint("a part of a sample has less than 4 GiB")
    })?;
    Ok(Extent { offset, bytes })
}

/// `images/0001.seg.png` is the part `seg.png` of `images/0001`.
fn parted(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    let is_sample = dot > base && dot + 1 < name.len() && !name[base..].starts_with("__");
    is_sample.then(|| (&name[..dot], &name[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::error::Kind;

    fn archive(files: &[(&str, &[u8])]) -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.tar");
        let mut archive = tar::Builder::new(File::create(&path).unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, *bytes).unwrap();
        }
        archive.finish().unwrap();
        (folder, path)
    }

    fn opened(path: &Path) -> File {
        File::open(path).unwrap()
    }

    #[test]
    fn parts_with_one_name_are_one_sample() {
        let long = format!("{}/0003.jpg", "folder".repeat(30));
        let files: [(&str, &[u8]); 6] = [
            ("a/0001.jpg", b"one"),
            ("a/0001.seg.PNG", b"second"),
            ("README", b"no sample"),
            ("a/0002.jpg", b""),
            (&long, b"far"),
            ("__meta__.json", b"{}"),
        ];
        let (_folder, path) = archive(&files);
        let samples = index(&path, &opened(&path)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let text = |extent: &Extent| {
            String::from_utf8_lossy(&bytes[extent.offset as usize..][..extent.bytes as usize]).into_owned()
        };
        let found: Vec<(String, Vec<(String, String)>)> = samples
            .iter()
            .map(|sample| {
                let parts = sample.parts.iter().map(|(ending, extent)| (ending.clone(), text(extent)));
                (sample.key.clone(), parts.collect())
            })
            .collect();
        let part = |ending: &str, text: &str| (ending.to_owned(), text.to_owned());
        assert_eq!(
            found,
            [
                ("a/0001".to_owned(), vec![part("jpg", "one"), part("seg.png", "second")]),
                ("a/0002".to_owned(), vec![part("jpg", "")]),
                (long.trim_end_matches(".jpg").to_owned(), vec![part("jpg", "far")]),
            ]
        );
        let held = scan(&path, &opened(&path)).unwrap();
        let parts = vec!["jpg".to_owned(), "seg.png".to_owned()];
        assert_eq!(held, Held { samples: 3, format: Format::WebDataset { parts } });
    }

    #[test]
    fn a_damaged_archive_is_corrupt_and_named() {
        let (_folder, path) = archive(&[("1.txt", &[1; 2000]), ("2.txt", &[2; 2000])]);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[100] ^= 1;
        for damaged in [&whole[..3000], &whole[..4000], &flipped[..], &[7; 1024][..]] {
            std::fs::write(&path, damaged).unwrap();
            let error = scan(&path, &opened(&path)).unwrap_err();
            assert!(error.kind == Kind::Corrupt && error.message.contains("a.tar"), "{error}");
        }
        let (_folder, path) = archive(&[("1.txt", b"a"), ("1.TXT", b"b")]);
        assert!(scan(&path, &opened(&path)).unwrap_err().message.contains("twice"));
    }
}
