//! A file as a dataset names it: where it lies and how it is packed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Doing, Error, Result};
use crate::storage::{self, StoreUrl};

/// How a file is compressed, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    const ENDINGS: [(&str, Packing); 2] = [(".gz", Packing::Gzip), (".zst", Packing::Zstd)];

    /// The name without the packing's ending, and the packing; None: it is not packed.
    pub fn of(name: &str) -> Option<(&str, Packing)> {
        Packing::ENDINGS.iter().find_map(|(ending, packing)| Some((name.strip_suffix(ending)?, *packing)))
    }
}

#[derive(Debug)]
pub struct Origin {
    name: PathBuf,
    pub place: Place,
    pub packing: Option<Packing>,
    /// Its length as it lies there, where a listing has told.
    pub listed: Option<u64>,
    /// As it was when this process looked for it first, where that costs a request.
    pub seen: OnceLock<Key>,
}

#[derive(Debug)]
pub enum Place {
    Local(PathBuf),
    Object { bucket: StoreUrl, path: String },
}

impl Origin {
    /// Of a path, or of a URL as it was given. Invalid for a URL of nothing that can be read.
    pub fn of(name: &Path) -> Result<Origin> {
        let place = match name.to_str() {
            Some(url) if url.contains("://") => Place::of(&url.parse()?)?,
            _ => Place::Local(name.to_owned()),
        };
        let packing = Packing::of(&name.to_string_lossy()).map(|(_, packing)| packing);
        Ok(Origin { name: name.to_owned(), place, packing, listed: None, seen: OnceLock::new() })
    }

    /// As a listing has it.
    pub fn listed(name: &Path, bytes: Option<u64>) -> Result<Origin> {
        Ok(Origin { listed: bytes, ..Origin::of(name)? })
    }

    /// As the dataset has it, for messages too.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Where it can be read as it is.
    pub fn plain(&self) -> Option<&Path> {
        match &self.place {
            Place::Local(path) if self.packing.is_none() => Some(path),
            _ => None,
        }
    }
}

impl Place {
    fn of(url: &StoreUrl) -> Result<Place> {
        Ok(match (url.bucket(), url.scheme()) {
            (Some((bucket, path)), _) => Place::Object { bucket, path },
            (None, storage::Scheme::Local(path)) => Place::Local(path.clone()),
            (None, _) => return Err(Error::internal(format!("{url} is neither a bucket nor a directory"))),
        })
    }
}

/// What a cached file is found by: another one, or another version of it, has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u128);

impl Key {
    /// Of everything that tells it from others.
    pub fn of(parts: &[&str]) -> Key {
        let mut text = String::from("data-cache/v1");
        parts.iter().for_each(|part| text.push_str(&format!("\n{}:{part}", part.len())));
        Key(xxh3_128(text.as_bytes()))
    }
}

/// The bytes of a file as it lies there.
pub enum Source {
    File(File, u64),
    Object(Box<dyn storage::Reader>),
}

impl Source {
    pub fn file(file: File, name: &Path) -> Result<Source> {
        let bytes = file.metadata().doing(|| format!("reading {}", name.display()))?.len();
        Ok(Source::File(file, bytes))
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Source::File(_, bytes) => *bytes,
            Source::Object(reader) => reader.bytes(),
        }
    }

    /// How many had better be asked for at once.
    pub fn together(&self) -> u64 {
        match self {
            Source::File(..) => 0,
            Source::Object(reader) => reader.together(),
        }
    }

    /// Fails where it ends before.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        match self {
            Source::File(file, _) => file.read_exact_at(into, offset).doing(|| format!("at byte {offset}")),
            Source::Object(reader) => reader.read_at(offset, into),
        }
    }

    /// What tells this version of a file in a directory from another.
    pub fn version(file: &File) -> std::io::Result<String> {
        let about = file.metadata()?;
        let changed = (about.mtime(), about.mtime_nsec());
        Ok(format!("{}.{} {changed:?} {}", about.dev(), about.ino(), about.len()))
    }

    /// From `offset` on.
    pub fn from(&self, offset: u64) -> Onward<'_> {
        Onward { source: self, offset }
    }
}

/// Reads on from a place of a source.
pub struct Onward<'a> {
    source: &'a Source,
    offset: u64,
}

impl Read for Onward<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.source.bytes().saturating_sub(self.offset);
        let take = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.source.read_at(self.offset, &mut into[..take]).map_err(std::io::Error::other)?;
        self.offset += take as u64;
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_name_says_where_a_file_is_and_how_it_is_packed() {
        for (name, plain, packing) in [
            ("/data/a.bin", Some("/data/a.bin"), None),
            ("/data/a.bin.gz", None, Some(Packing::Gzip)),
            ("file:///data/a.tar", Some("/data/a.tar"), None),
            ("file:///data/a.tar.zst", None, Some(Packing::Zstd)),
            ("s3://b/p/a.npy", None, None),
            ("gs://b/a.jsonl.gz", None, Some(Packing::Gzip)),
        ] {
            let origin = Origin::of(Path::new(name)).unwrap();
            assert_eq!((origin.plain(), origin.packing), (plain.map(Path::new), packing), "{name}");
            assert_eq!(origin.name(), Path::new(name));
        }
        assert_eq!(Origin::of(Path::new("hdfs://n/a.bin")).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn keys_differ_where_any_part_does() {
        let keys = [&["a", "bc"][..], &["ab", "c"], &["a", "bc", ""], &["a", "bd"]].map(Key::of);
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(key), "{at}");
        }
    }
}
