//! Going on without files that turn out to be damaged while a job trains: each is named, and its samples are counted wherever they
//! are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;

use parking_lot::Mutex;

use super::files::Located;
use super::reader::Reader;
use super::rows::Rows;
use super::scan::OnDamage;
use super::spec::Quarantined;
use crate::error::{Doing, Kind, Result};

/// Samples that could not be read together, though each file's could alone, are given up after so many.
const TRIES: u32 = 3;

/// The damaged files that this process has met. Threads may share it.
pub struct Quarantine {
    on_damage: OnDamage,
    /// What is wrong with each, by its number.
    damaged: Mutex<BTreeMap<usize, String>>,
}

/// A damaged file, and how many of the samples that were asked for lie in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub file: Quarantined,
    pub samples: u64,
}

/// What could be read of samples that were asked for.
pub struct Readable {
    pub samples: Vec<u64>,
    pub rows: Rows,
    /// Where the others stood.
    pub missing: BTreeSet<usize>,
    pub left_out: Vec<LeftOut>,
}

impl Quarantine {
    pub fn new(on_damage: OnDamage) -> Quarantine {
        Quarantine { on_damage, damaged: Mutex::default() }
    }

    /// These samples in this order, without those of damaged files where that was asked for.
    ///
    /// Fails as the reader does, with Corrupt only where damaged files are not left out: a file that is not there, or a bucket that
    /// does not answer, is no damage.
    pub fn read(&self, reader: &Reader, samples: &[u64]) -> Result<Readable> {
        let mut tries = 0;
        loop {
            let located = self.among_damaged(reader, samples)?;
            let missing: BTreeSet<usize> = located.iter().map(|sample| sample.place).collect();
            let kept = samples.iter().enumerate().filter(|(place, _)| !missing.contains(place));
            let kept: Vec<u64> = kept.map(|(_, sample)| *sample).collect();
            match reader.read(&kept) {
                Ok(rows) => {
                    let left_out = self.told(reader, &located);
                    return Ok(Readable { samples: kept, rows, missing, left_out });
                }
                Err(error) if error.kind == Kind::Corrupt && self.on_damage == OnDamage::Quarantine => {
                    tries += 1;
                    if !self.find(reader, &kept)? && tries == TRIES {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn has(&self, file: usize) -> bool {
        self.damaged.lock().contains_key(&file)
    }

    fn among_damaged(&self, reader: &Reader, samples: &[u64]) -> Result<Vec<Located>> {
        let damaged = self.damaged.lock();
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let located = reader.files().by_file(samples)?;
        Ok(located.into_iter().filter(|sample| damaged.contains_key(&sample.file)).collect())
    }

    /// Adds the files that are damaged among those of these samples; false if there is none.
    ///
    /// Fails with what is no damage.
    fn find(&self, reader: &Reader, samples: &[u64]) -> Result<bool> {
        let files = reader.files();
        let mut found = BTreeMap::new();
        for of_file in files.by_file(samples)?.chunk_by(|one, next| one.file == next.file) {
            let (file, path) = (of_file[0].file, files.path(of_file[0].file));
            let alone: Vec<u64> = of_file.iter().map(|sample| samples[sample.place]).collect();
            let read = || reader.read(&alone);
            match read() {
                Ok(_) => {}
                Err(error) if error.kind == Kind::Corrupt => {
                    if let Err(reason) = confirmed(path, || files.open(file), read)? {
                        found.insert(file, reason);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let any = !found.is_empty();
        self.damaged.lock().extend(found);
        Ok(any)
    }

    fn told(&self, reader: &Reader, located: &[Located]) -> Vec<LeftOut> {
        let damaged = self.damaged.lock();
        let of_one = |samples: &[Located]| {
            let file = samples[0].file;
            let path = reader.files().path(file).to_owned();
            LeftOut {
                file: Quarantined { path, reason: damaged[&file].clone() },
                samples: samples.len() as u64,
            }
        };
        located.chunk_by(|one, next| one.file == next.file).map(of_one).collect()
    }
}

/// What is wrong with a file that was taken for damaged, or what reading it again gives after all. Formats take for damage what the
/// system could not read: so all of it is read once.
///
/// Fails with what is no damage.
pub fn confirmed<T>(
    path: &Path,
    open: impl FnOnce() -> Result<File>,
    again: impl FnOnce() -> Result<T>,
) -> Result<std::result::Result<T, String>> {
    let read_through = |mut file: File| {
        io::copy(&mut file, &mut io::sink()).doing(|| format!("reading {}", path.display())).map(|_| ())
    };
    match open().and_then(read_through).and_then(|()| again()) {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind == Kind::Corrupt => Ok(Err(error.message)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::error::Error;

    #[test]
    fn only_what_is_read_whole_and_wrong_twice_is_damaged() {
        let folder = TempDir::new().unwrap();
        let (path, unreadable) = (folder.path().join("a"), folder.path());
        std::fs::write(&path, "a").unwrap();
        let open = |path: &Path| File::open(path).doing(|| "opening it");
        let corrupt = |()| Err::<(), _>(Error::corrupt("it ends early"));
        let told = confirmed(&path, || open(&path), || corrupt(())).unwrap();
        assert_eq!(told, Err("it ends early".to_owned()));
        assert_eq!(
            confirmed(&path, || open(&path), || Ok(7)).unwrap(),
            Ok(7),
            "the second time it was right"
        );
        // A folder can be opened and not read.
        let error = confirmed(unreadable, || open(unreadable), || corrupt(())).unwrap_err();
        assert!(
            error.kind != Kind::Corrupt && error.message.contains(&*unreadable.to_string_lossy()),
            "{error}"
        );
        let away = confirmed(&path, || open(&path), || Err::<(), _>(Error::unavailable("away"))).unwrap_err();
        assert_eq!(away.kind, Kind::Unavailable);
    }
}
