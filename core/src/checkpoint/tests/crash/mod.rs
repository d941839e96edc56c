//! P1 and P4 over a crash at every write, fsync and rename: whatever the disk kept of what nobody had synced, a step
//! exists if and only if its COMMIT does, restores bit for bit, and the job goes on.

mod attach;
mod disk;
mod remove;
mod save;

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use self::disk::{Disk, Done, Recorder, Unsynced};
use super::fixture::*;
use crate::checkpoint::{JobStore, RankSlot, Takeover};
use crate::storage::{StoreOptions, StoreUrl, Watcher, watch};
use crate::torture_tests::Campaign;

fn memory() -> TempDir {
    tempfile::Builder::new().prefix("strata-test-").tempdir_in("/dev/shm").unwrap()
}

/// The job's place below a store that may not be there yet.
fn job_in(root: &Path) -> JobStore {
    JobStore::open(&StoreUrl::local(root).unwrap(), &StoreOptions::default(), &job()).unwrap()
}

/// A directory after a crash.
struct Crashed<'a> {
    root: &'a Path,
    /// What the caller had been told by then.
    told: &'a [&'static str],
}

impl Crashed<'_> {
    fn was_told(&self, what: &str) -> bool {
        self.told.contains(&what)
    }

    fn store(&self) -> JobStore {
        job_in(self.root)
    }
}

/// Records what `work` does with what `prepare` left, crashes before and after each change of it in every manner, and
/// lets `check` look; the campaign's rounds are crashes at random beyond that.
fn crash_everywhere<P>(
    name: &'static str,
    prepare: impl Fn(&JobStore) -> P,
    work: impl Fn(&JobStore, &P, &Recorder),
    check: impl Fn(&Crashed<'_>, &P),
) {
    let mut campaign = Campaign::new(name, 60);
    let folder = memory();
    let store = job_in(folder.path());
    let prepared = prepare(&store);
    let before = Disk::of(folder.path());
    let recorder = Arc::new(Recorder::default());
    let watcher: Arc<dyn Watcher> = recorder.clone();
    watch(folder.path(), &watcher);
    work(&store, &prepared, &recorder);
    let log = recorder.take();
    assert!(log.len() > 8, "{log:?}");
    let images = images(before, &log, campaign.rounds());
    campaign.play_each(images.len() as u64, |campaign, number| {
        let (disk, point, unsynced) = &images[number as usize];
        let told: Vec<_> = log[..*point].iter().filter_map(Done::told).collect();
        println!("after {point} of {} changes ({told:?}), unsynced: {unsynced:?}", log.len());
        let image = memory();
        disk.crash(*unsynced, &mut campaign.random(number), image.path());
        check(&Crashed { root: image.path(), told: &told }, &prepared);
        campaign.count(unsynced.name());
        if *unsynced == Unsynced::Lost {
            campaign.count("points");
        }
    });
    campaign.held();
}

/// Every point with all manners that need no luck, and `random` ones spread over the points.
fn images(mut disk: Disk, log: &[Done], random: u64) -> Vec<(Disk, usize, Unsynced)> {
    let mut images = Vec::new();
    let each = random.div_ceil(log.len() as u64 + 1);
    for point in 0..=log.len() {
        if point > 0 {
            disk.apply(&log[point - 1]);
        }
        let random = (0..each).map(|_| Unsynced::AtRandom);
        let manners = [Unsynced::Lost, Unsynced::NamesAlone, Unsynced::Kept].into_iter().chain(random);
        images.extend(manners.map(|unsynced| (disk.clone(), point, unsynced)));
    }
    images
}
