//! One change of a store: a bit, a length, a page, an object.

use std::fmt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Expected;
use super::saved::{CLASSES, Saved, StepSaved, class};

/// What disks and file systems lose or mix up at once.
const PAGE: usize = 4096;

pub struct Mutation {
    what: String,
    kind: &'static str,
    class: &'static str,
    /// The new content of each object; None: gone. With the old one.
    changes: Vec<(PathBuf, Option<Vec<u8>>, Vec<u8>)>,
}

impl Mutation {
    /// Never one that leaves everything as it is. Every class of objects is as likely as the others.
    pub fn draw(saved: &Saved, random: &mut StdRng) -> Mutation {
        loop {
            let mutation = Mutation::try_draw(saved, random);
            if mutation.changes.iter().any(|(_, new, old)| new.as_ref() != Some(old)) {
                return mutation;
            }
        }
    }

    fn try_draw(saved: &Saved, random: &mut StdRng) -> Mutation {
        let own = saved.folder.path().join(super::super::fixture::JOB);
        let of = CLASSES[random.random_range(0..CLASSES.len())];
        let all = &saved.objects[of];
        let ours: Vec<_> = all.iter().filter(|(path, _)| path.starts_with(&own)).collect();
        let (path, old) = ours[random.random_range(0..ours.len())];
        let mut new = old.clone();
        let one = |kind, what: String, new: Option<Vec<u8>>| Mutation {
            what: format!("{what} of {}", path.display()),
            kind,
            class: of,
            changes: vec![(path.clone(), new, old.clone())],
        };
        match random.random_range(0..8) {
            0..=2 => {
                let (at, bit) = (random.random_range(0..new.len()), random.random_range(0..8));
                new[at] ^= 1 << bit;
                one("flips", format!("bit {bit} of byte {at}"), Some(new))
            }
            3 => {
                let length = random.random_range(0..new.len());
                new.truncate(length);
                one("truncations", format!("all but {length} bytes"), Some(new))
            }
            4 => {
                let more = random.random_range(1..9000);
                new.resize(old.len() + more, random.random());
                one("lengthenings", format!("{more} bytes after the end"), Some(new))
            }
            5 => one("deletions", "all".to_owned(), None),
            6 => {
                // Any object of any job, most often one of its own kind.
                let from = if random.random_ratio(3, 4) {
                    of
                } else {
                    CLASSES[random.random_range(0..CLASSES.len())]
                };
                let others = &saved.objects[from];
                let (other, content) = &others[random.random_range(0..others.len())];
                let changes = vec![
                    (path.clone(), Some(content.clone()), old.clone()),
                    (other.clone(), Some(old.clone()), content.clone()),
                ];
                let what = format!("{} and {} swapped", path.display(), other.display());
                Mutation { what, kind: "swaps", class: of, changes }
            }
            _ => {
                let pages = old.len().div_ceil(PAGE);
                let [to, from] = [0, 1].map(|_| random.random_range(0..pages) * PAGE);
                let bytes = PAGE.min(old.len() - to).min(old.len() - from);
                match random.random() {
                    true => new[to..to + bytes].fill(0),
                    false => new[to..to + bytes].copy_from_slice(&old[from..from + bytes]),
                }
                one("pages", format!("the page at {to} (zeros, or that at {from})"), Some(new))
            }
        }
    }

    pub fn kind(&self) -> &'static str {
        self.kind
    }

    pub fn class(&self) -> &'static str {
        self.class
    }

    pub fn apply(&self) {
        for (path, new, _) in &self.changes {
            match new {
                Some(new) => std::fs::write(path, new).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
        }
    }

    pub fn undo(&self, saved: &Saved) {
        for (path, ..) in &self.changes {
            std::fs::write(path, saved.content(path)).unwrap();
        }
    }

    /// None: as it was.
    pub fn content(&self, path: &Path) -> Option<Option<&[u8]>> {
        let (_, new, old) = self.changes.iter().find(|(changed, ..)| changed == path)?;
        (new.as_ref() != Some(old)).then_some(new.as_deref())
    }

    pub fn effect_on(&self, step: &StepSaved) -> Expected {
        if self.content(&step.commit) == Some(None) {
            return Expected::Absent;
        }
        let hit = self.changes.iter().any(|(path, new, old)| {
            let Some(ranges) = step.made_of.get(path) else { return false };
            let Some(new) = new.as_ref().filter(|new| new.len() == old.len()) else { return true };
            let differs = |range: &std::ops::Range<u64>| {
                let range = range.start as usize..range.end as usize;
                new[range.clone()] != old[range]
            };
            // A pack is held to its bytes where something lies; between chunks is what no tensor is made of.
            if class(path) == "pack" { ranges.iter().any(differs) } else { new != old }
        });
        if hit { Expected::Damaged } else { Expected::Whole }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.what)
    }
}
