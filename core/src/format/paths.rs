//! Names of objects below `<store>/<job>`. Steps are written with 20 digits, so that listings sort as numbers do.

use std::fmt;

use crate::error::{Error, Result};
use crate::ids::{Generation, JobUuid, Rank, Step};

/// Create-only: who owns this prefix.
pub const OWNER: &str = "OWNER";
/// Folder of the COMMITs, one folder a step.
pub const STEPS: &str = "steps";
/// Folder of packs and manifests, one folder an attempt.
pub const DATA: &str = "data";
/// Folder of what attach writes to test the store; removed again.
pub const PROBE: &str = "probe";

const COMMIT: &str = "COMMIT";

/// One try at a step: only COMMIT is keyed by the step alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt {
    pub job_uuid: JobUuid,
    pub step: Step,
    pub generation: Generation,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of generation {}", self.step, self.generation)
    }
}

pub fn commit(step: Step) -> String {
    format!("{STEPS}/{:020}/{COMMIT}", step.0)
}

/// The step whose COMMIT this is, if it is one's path.
pub fn commit_step(path: &str) -> Option<Step> {
    let (folder, name) = path.strip_prefix(STEPS)?.strip_prefix('/')?.split_once('/')?;
    (name == COMMIT).then(|| number(folder)).flatten().map(Step)
}

/// Folder of one attempt's packs and manifests.
pub fn attempt_folder(step: Step, generation: Generation) -> String {
    format!("{DATA}/{:020}.g{}", step.0, generation.0)
}

/// Step and generation of the attempt that an object belongs to.
pub fn attempt_of(path: &str) -> Option<(Step, Generation)> {
    let (folder, _) = path.strip_prefix(DATA)?.strip_prefix('/')?.split_once('/')?;
    let (step, generation) = folder.split_once(".g")?;
    Some((Step(number(step)?), Generation(generation.parse().ok()?)))
}

/// `nonce` is drawn per persist: a restarted sidecar never overwrites an object that somebody may already have named.
pub fn manifest(attempt: &Attempt, rank: Rank, nonce: u32) -> String {
    format!("{}/rank-{}.{nonce:08x}.manifest", attempt_folder(attempt.step, attempt.generation), rank.0)
}

pub fn pack(attempt: &Attempt, lowest_rank: Rank, nonce: u32, number: u32) -> String {
    let folder = attempt_folder(attempt.step, attempt.generation);
    format!("{folder}/node-{}.{nonce:08x}.{number}.pack", lowest_rank.0)
}

/// A path read from a manifest or COMMIT must lie in an attempt's folder: nothing in a store leads a reader elsewhere.
pub fn check_data_path(path: &str, named_by: &str) -> Result<()> {
    let file = path.rsplit('/').next().unwrap_or_default();
    if attempt_of(path).is_some()
        && path.matches('/').count() == 2
        && !file.is_empty()
        && !file.starts_with('.')
    {
        return Ok(());
    }
    Err(Error::corrupt(format!("reading {named_by}: it names {path:?}, which is no object of an attempt")))
}

fn number(text: &str) -> Option<u64> {
    (text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let attempt = Attempt { job_uuid: JobUuid::new(), step: Step(120), generation: Generation(7) };
        assert_eq!(commit_step(&commit(Step(120))), Some(Step(120)));
        let manifest = manifest(&attempt, Rank(3), 0xab);
        assert_eq!(manifest, "data/00000000000000000120.g7/rank-3.000000ab.manifest");
        assert_eq!(attempt_of(&manifest), Some((Step(120), Generation(7))));
        check_data_path(&manifest, "x").unwrap();
        check_data_path(&pack(&attempt, Rank(0), 1, 2), "x").unwrap();
    }

    #[test]
    fn a_path_that_leads_out_of_the_data_folder_is_refused() {
        let long = "data/00000000000000000120.g7/../../../etc/passwd";
        for path in ["../x", "OWNER", "data/x/y", "data/00000000000000000120.g7/", long, "/etc/passwd"] {
            assert_eq!(check_data_path(path, "m").unwrap_err().kind, crate::error::Kind::Corrupt, "{path}");
        }
        assert_eq!(commit_step("steps/120/COMMIT"), None);
    }
}
