//! Going on without files that turn out to be damaged while a job trains: each is named, and its samples are counted wherever they
//! are left out.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::files::Located;
use super::reader::Reader;
use super::rows::Rows;
use super::scan::OnDamage;
use super::spec::Quarantined;
use crate::error::{Error, Kind, Result};

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
        loop {
            let located = self.among_damaged(reader, samples)?;
            let missing: BTreeSet<usize> = located.iter().map(|sample| sample.place).collect();
            let kept = samples.iter().enumerate().filter(|(place, _)| !missing.contains(place));
            let kept: Vec<u64> = kept.map(|(_, sample)| *sample).collect();
            match reader.read(&kept) {
                Ok(rows) => {
                    return Ok(Readable {
                        samples: kept,
                        rows,
                        missing,
                        left_out: self.told(reader, &located),
                    });
                }
                Err(error) if error.kind == Kind::Corrupt && self.on_damage == OnDamage::Quarantine => {
                    self.find(reader, &kept, error)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn among_damaged(&self, reader: &Reader, samples: &[u64]) -> Result<Vec<Located>> {
        let damaged = self.damaged.lock();
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        let located = reader.files().by_file(samples)?;
        Ok(located.into_iter().filter(|sample| damaged.contains_key(&sample.file)).collect())
    }

    /// Adds the files that are damaged among those of these samples, which could not be read together for this reason.
    ///
    /// Fails with it where each can be read alone, and with what is no damage.
    fn find(&self, reader: &Reader, samples: &[u64], reason: Error) -> Result<()> {
        let located = reader.files().by_file(samples)?;
        let mut found = BTreeMap::new();
        for of_file in located.chunk_by(|one, next| one.file == next.file) {
            let alone: Vec<u64> = of_file.iter().map(|sample| samples[sample.place]).collect();
            match reader.read(&alone) {
                Ok(_) => {}
                Err(error) if error.kind == Kind::Corrupt => {
                    found.insert(of_file[0].file, error.message);
                }
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() {
            return Err(reason);
        }
        self.damaged.lock().extend(found);
        Ok(())
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
