//! P2: whatever is flipped, cut, missing or swapped in a store is found before a tensor sees it.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fixture::*;
use crate::error::{Error, Kind};
use crate::ids::Step;

/// Two ranks, one tensor of several chunks, one replicated; small enough to be damaged a hundred times.
fn state(version: u64) -> Vec<Spec> {
    vec![
        spec("big", (4 << 20) + 9000).version(version),
        replicated("shared", 100 << 10).version(version),
        spec("small", 33).version(version),
    ]
}

fn saved() -> (LocalJob, Vec<PathBuf>) {
    let job = local();
    save(&job.store, job.uuid, 3, 2, one_node(2, 3, &state(1)));
    let files = files(job.folder.path());
    assert_eq!(files.len(), 4, "a COMMIT, two manifests, a pack");
    (job, files)
}

/// The step may not be restored, nor verified, and the error says which step or object.
#[track_caller]
fn is_found(job: &LocalJob, what: &str) {
    let errors = [restore_all(&job.store, 3, 2).err(), verify(&job.store, 3).err()];
    for error in errors {
        let error: Error = error.unwrap_or_else(|| panic!("{what} was not found"));
        assert_eq!(error.kind, Kind::Corrupt, "{what}: {error}");
        assert!(error.message.contains("step 3"), "{what}: {error}");
        assert!(error.message.contains("data/") || error.message.contains("steps/"), "{what}: {error}");
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (job, files) = saved();
    for path in &files {
        let whole = fs::read(path).unwrap();
        for round in 0..12 {
            let mut bytes = whole.clone();
            let at = match round {
                0 => 0,
                1 => bytes.len() - 1,
                _ => random.random_range(0..bytes.len()),
            };
            bytes[at] ^= 1 << random.random_range(0..8);
            fs::write(path, &bytes).unwrap();
            let padding = is_padding(path, at as u64, &job);
            match padding {
                // Between chunks lies what no tensor is made of.
                true => restore_all(&job.store, 3, 2).unwrap(),
                false => is_found(&job, &format!("bit of byte {at} of {}", path.display())),
            }
        }
        fs::write(path, &whole).unwrap();
    }
    restore_all(&job.store, 3, 2).unwrap();
}

/// Whether byte `at` of a pack belongs to no chunk.
fn is_padding(path: &Path, at: u64, job: &LocalJob) -> bool {
    if path.extension().is_none_or(|extension| extension != "pack") {
        return false;
    }
    let manifests = files(job.folder.path()).into_iter();
    let manifests = manifests.filter(|path| path.extension().is_some_and(|ext| ext == "manifest"));
    let mut chunks = manifests
        .flat_map(|path| crate::format::manifest::decode(&fs::read(path).unwrap(), "m").unwrap().chunks);
    !chunks.any(|chunk| (chunk.pack_offset..chunk.pack_offset + chunk.bytes).contains(&at))
}

#[test]
fn a_cut_or_lengthened_object_is_found() {
    let (job, files) = saved();
    for path in &files {
        let whole = fs::read(path).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(path, &whole[..length]).unwrap();
            is_found(&job, &format!("{} cut to {length}", path.display()));
        }
        fs::write(path, [&whole[..], &[0; 100]].concat()).unwrap();
        is_found(&job, &format!("{} lengthened", path.display()));
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn a_missing_object_is_found() {
    let (job, files) = saved();
    for path in files.iter().filter(|path| !path.ends_with("COMMIT")) {
        let whole = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        is_found(&job, &format!("{} missing", path.display()));
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn swapped_objects_are_found() {
    let job = local();
    for step in [3, 4] {
        save(&job.store, job.uuid, step, 2, one_node(2, step, &state(step)));
    }
    let all = files(job.folder.path());
    for extension in ["manifest", "pack", ""] {
        let same: Vec<&PathBuf> = all
            .iter()
            .filter(|path| path.extension().unwrap_or_default().to_string_lossy() == extension)
            .collect();
        assert!(same.len() >= 2);
        let (a, b) = (same[0], same[same.len() - 1]);
        let (in_a, in_b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
        fs::write(a, &in_b).unwrap();
        fs::write(b, &in_a).unwrap();
        is_found(&job, &format!("{} and {} swapped", a.display(), b.display()));
        fs::write(a, &in_a).unwrap();
        fs::write(b, &in_b).unwrap();
    }
    restore_all(&job.store, 3, 2).unwrap();
}

#[test]
fn a_damaged_commit_is_listed_as_damaged_never_as_absent() {
    let job = local();
    for step in [1, 2, 3] {
        save(&job.store, job.uuid, step, 1, one_node(1, step, &state(0)));
    }
    let commit = job.folder.path().join(format!("{JOB}/steps/{:020}/COMMIT", 2));
    let whole = fs::read(&commit).unwrap();
    for damage in [&b""[..], &whole[..whole.len() - 2], &whole[1..]] {
        fs::write(&commit, damage).unwrap();
        let steps = run(job.store.steps()).unwrap();
        assert_eq!(steps.iter().map(|listed| listed.step.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(steps[1].commit.as_ref().unwrap_err().kind, Kind::Corrupt);
        assert!(steps[0].commit.is_ok() && steps[2].commit.is_ok());
        assert_eq!(run(job.store.commit(Step(2))).unwrap_err().kind, Kind::Corrupt);
    }
}
