//! Whether a dataset that is registered already is the one that is asked for, without counting its samples again.

use std::collections::HashSet;
use std::path::Path;

use super::cache::{Fetcher, Origin};
use super::format::Format;
use super::formats;
use super::listing::{self, Found};
use super::scan::OnDamage;
use super::spec::DatasetSpec;

impl DatasetSpec {
    /// Whether `asked`, as it is before anybody has looked at its files, was registered as this spec: then all ranks but the first
    /// need not scan, but only list the files. Never true where registering it would be refused for what is asked.
    pub fn answers(&self, asked: &DatasetSpec, on_damage: OnDamage) -> bool {
        let DatasetSpec { id, path, format: _, total_samples, shard_size, shuffle, seed, .. } = asked;
        let same = (&self.id, &self.path, self.shard_size, self.shuffle, self.seed)
            == (id, path, *shard_size, *shuffle, *seed);
        let is_counted_so = *total_samples == 0 || self.total_samples == *total_samples;
        let is_whole = self.quarantined.is_empty() || on_damage == OnDamage::Quarantine;
        // From metadata alone: who can read the files has more to say.
        let was_scanned = !self.files.is_empty();
        same && is_counted_so
            && is_whole
            && was_scanned
            && self.has_format_of(&asked.format)
            && !self.lacks_files()
    }

    /// Whether files have come since. Where they can't be listed there are none: reading names those that are missing.
    fn lacks_files(&self) -> bool {
        match listing::files(&self.path, &self.format, true, &Fetcher::default()) {
            Ok(Found::OutOfReach(_)) => false,
            Ok(Found::Files(listed)) => {
                let left_out = self.quarantined.iter().map(|file| file.path.as_path());
                let known: HashSet<&Path> =
                    self.files.iter().map(|file| file.path.as_path()).chain(left_out).collect();
                listed.iter().any(|file| !known.contains(file.name()))
            }
            // Whoever scans says what is wrong.
            Err(_) => true,
        }
    }

    fn has_format_of(&self, asked: &Format) -> bool {
        match (&self.format, asked) {
            (Format::Npy { dtype, .. }, Format::Npy { dtype: wanted, .. }) => {
                wanted.is_none() || wanted == dtype
            }
            (Format::Parquet { columns, .. }, Format::Parquet { columns: wanted, .. }) => columns == wanted,
            (Format::WebDataset { parts }, Format::WebDataset { parts: wanted }) if wanted.is_empty() => {
                self.files.first().is_some_and(|file| !has_others(&file.path, &self.format, parts))
            }
            (registered, asked) => registered == asked,
        }
    }
}

/// Whether samples of this file have parts that were not chosen; a file that can't be read may have.
fn has_others(path: &Path, format: &Format, chosen: &[String]) -> bool {
    let held = Origin::of(path).and_then(|origin| formats::scan(format, &origin, &Fetcher::default()));
    match held.map(|held| held.format) {
        Ok(Format::WebDataset { parts }) => !parts.iter().all(|part| chosen.contains(part)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::data::dtype::Dtype;
    use crate::data::{Quarantined, resolve};

    type Change = fn(&mut DatasetSpec);

    fn asked(folder: &Path) -> DatasetSpec {
        let format = Format::Tokens { dtype: Dtype::Uint8, sample_len: 2 };
        DatasetSpec { shuffle: true, seed: 3, ..DatasetSpec::new("d", folder, format, 4) }
    }

    #[test]
    fn the_same_arguments_need_no_second_scan_and_others_do() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a.bin"), [7; 20]).unwrap();
        let (known, _) = resolve(asked(folder.path()), OnDamage::Raise).unwrap();
        let newcomer = folder.path().join("b.bin");
        fs::write(&newcomer, [7; 2]).unwrap();
        assert!(!known.answers(&asked(folder.path()), OnDamage::Raise), "it has another file by now");
        fs::remove_file(newcomer).unwrap();
        // What samples there are is not looked at.
        fs::remove_dir_all(folder.path()).unwrap();
        for total_samples in [0, 10] {
            let again = DatasetSpec { total_samples, ..asked(folder.path()) };
            assert!(known.answers(&again, OnDamage::Raise), "{total_samples}");
        }
        let changes: [Change; 7] = [
            |spec| spec.id.push('x'),
            |spec| spec.path.push("x"),
            |spec| spec.total_samples = 9,
            |spec| spec.shard_size = 5,
            |spec| spec.shuffle = false,
            |spec| spec.seed = 4,
            |spec| spec.format = Format::Tokens { dtype: Dtype::Uint8, sample_len: 4 },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = asked(folder.path());
            change(&mut other);
            assert!(!known.answers(&other, OnDamage::Raise), "change {number}");
        }
    }

    #[test]
    fn a_dataset_without_its_damaged_files_answers_who_would_have_left_them_out() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a.bin"), [7; 20]).unwrap();
        let (known, _) = resolve(asked(folder.path()), OnDamage::Raise).unwrap();
        let quarantined = vec![Quarantined { path: "b.bin".into(), reason: "it ends early".into() }];
        let known = DatasetSpec { quarantined, ..known };
        assert!(known.answers(&asked(folder.path()), OnDamage::Quarantine));
        assert!(!known.answers(&asked(folder.path()), OnDamage::Raise));
        let bare = DatasetSpec { files: vec![], quarantined: vec![], ..known };
        assert!(!bare.answers(&asked(folder.path()), OnDamage::Raise), "nobody has counted");
    }

    #[test]
    fn columns_are_compared_as_they_were_chosen() {
        let folder = TempDir::new().unwrap();
        let mut archive = tar::Builder::new(fs::File::create(folder.path().join("a.tar")).unwrap());
        for name in ["1.txt", "1.cls"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            archive.append_data(&mut header, name, &b"x"[..]).unwrap();
        }
        archive.finish().unwrap();
        let spec = |parts: &[&str]| {
            let parts = parts.iter().map(|part| (*part).to_owned()).collect();
            DatasetSpec { format: Format::WebDataset { parts }, ..asked(folder.path()) }
        };
        let registered = |parts: &[&str]| resolve(spec(parts), OnDamage::Raise).unwrap().0;
        assert!(registered(&[]).answers(&spec(&[]), OnDamage::Raise));
        assert!(registered(&["txt"]).answers(&spec(&["txt"]), OnDamage::Raise));
        assert!(!registered(&["txt"]).answers(&spec(&[]), OnDamage::Raise), "it lacks what is asked for");
        assert!(!registered(&[]).answers(&spec(&["txt"]), OnDamage::Raise));
    }
}
