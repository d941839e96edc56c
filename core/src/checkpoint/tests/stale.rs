//! A store whose listings lag: what was written is not listed yet, what was deleted still is. Reads by name are as they
//! should be. Nothing wrong loads, nothing committed is lost, whoever lists: attach, a restore's look-up, the collector.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::fixture::*;
use crate::checkpoint::{JobStore, Takeover};
use crate::error::{Kind, Result};
use crate::format::paths;
use crate::ids::{ClusterId, JobUuid, Step};
use crate::storage::{Created, Listed, Reader, Store, StoreOptions, StoreUrl, Writer, open as open_store};
use crate::torture_tests::Campaign;

/// What a listing does with an object that it should know of, or should have forgotten.
#[derive(Debug)]
struct Lagging {
    inner: Arc<dyn Store>,
    random: Mutex<StdRng>,
    /// Deleted, and listed still, now and then.
    deleted: Mutex<BTreeMap<String, u64>>,
    /// Of ten entries so many are left out: of COMMITs, and of everything else.
    omits: (u32, u32),
}

impl Lagging {
    fn over(root: &Path, random: &mut StdRng, omits: (u32, u32)) -> Arc<Lagging> {
        let inner = open_store(&StoreUrl::local(root).unwrap(), &StoreOptions::default(), JOB).unwrap();
        let random = Mutex::new(StdRng::seed_from_u64(random.random()));
        Arc::new(Lagging { inner, random, deleted: Mutex::default(), omits })
    }

    fn shows(&self, path: &str) -> bool {
        let omits = if path.starts_with(paths::STEPS) { self.omits.0 } else { self.omits.1 };
        self.random.lock().random_range(0..10) >= omits
    }
}

impl Store for Lagging {
    passes_on!(name_of, make_place, place_uid, read, reader, writer, rewriter, sweep);
    fn create(&self, path: &str, content: Bytes) -> Result<Created> {
        self.deleted.lock().remove(path);
        self.inner.create(path, content)
    }
    fn replace(&self, path: &str, content: Bytes) -> Result<()> {
        self.deleted.lock().remove(path);
        self.inner.replace(path, content)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let mut found = self.inner.list(folder)?;
        let gone = self.deleted.lock().clone();
        let inside = gone.into_iter().filter(|(path, _)| path.starts_with(&format!("{folder}/")));
        found.extend(inside.map(|(path, bytes)| Listed { path, bytes }));
        found.retain(|object| self.shows(&object.path));
        Ok(found)
    }
    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let mut found: BTreeSet<String> = self.inner.folders(folder)?.into_iter().collect();
        let gone = self.deleted.lock().clone();
        found.extend(gone.keys().filter_map(|path| {
            let (name, _) = path.strip_prefix(&format!("{folder}/"))?.split_once('/')?;
            Some(name.to_owned())
        }));
        found.retain(|name| self.shows(&format!("{folder}/{name}")));
        Ok(found.into_iter().collect())
    }
    fn delete(&self, paths: &[String]) -> Result<()> {
        self.deleted.lock().extend(paths.iter().map(|path| (path.clone(), 4096)));
        self.inner.delete(paths)
    }
}

fn state(step: u64) -> Vec<Spec> {
    vec![spec("frozen", 70 << 10), spec("trained", 20 << 10).version(step)]
}

/// Saves that refer to each other and removals in any order, as a coordinator with a whole log orders them.
fn story(random: &mut StdRng, omits: (u32, u32), campaign: &mut Campaign) {
    let folder = tempfile::tempdir().unwrap();
    let plain = open(folder.path());
    let lagging = over(Lagging::over(folder.path(), random, omits));
    let uuid = JobUuid::new();
    let mut there: BTreeSet<u64> = BTreeSet::new();
    let mut before: Option<u64> = None;
    for step in 1..=14u64 {
        let mut now = slot(0, 1, step, &state(step), true);
        let base = before.filter(|base| there.contains(base) && random.random_ratio(3, 4));
        now.base = base.map(|base| base_of(&slot(0, 1, base, &state(base), true)));
        save(&lagging, uuid, step, 1, vec![vec![now]]);
        (before, _) = (Some(step), there.insert(step));
        while there.len() > 1 && random.random_ratio(1, 2) {
            let all: Vec<u64> = there.iter().copied().collect();
            let goes = all[random.random_range(0..all.len() - 1)];
            there.remove(&goes);
            let remaining: Vec<u64> = there.iter().copied().collect();
            run(lagging.remove(&removal(goes, 1, true, &remaining))).unwrap();
            campaign.count("removals");
        }
        // P4, and P2: whatever the listing says, what is committed is whole, and what was removed is not there.
        for step in 1..=step {
            match there.contains(&step) {
                true => check(&plain, step, 0, 1, 0, &state(step)),
                false => assert_eq!(run(lagging.commit(Step(step))).unwrap_err().kind, Kind::NotFound),
            }
        }
        let listed = run(lagging.steps()).unwrap();
        assert!(
            listed.iter().all(|found| there.contains(&found.step.0)),
            "a removed step is listed: {listed:?}"
        );
        campaign.count(if listed.len() == there.len() { "whole lists" } else { "lists that lack a step" });
    }
}

#[test]
fn p4_a_collector_whose_listings_lag_harms_no_step_and_lists_no_removed_one() {
    let mut campaign = Campaign::new("stale-listings", 12);
    campaign.play(|campaign, random| {
        let omits = (random.random_range(0..=10), random.random_range(0..=10));
        story(random, omits, campaign);
    });
    campaign.held();
}

/// A lost coordinator learns from the store alone what is committed.
#[test]
fn a_listing_that_leaves_out_commits_hides_no_step_whose_folder_it_shows() {
    let mut campaign = Campaign::new("stale-attach", 10);
    campaign.play(|campaign, random| {
        let folder = tempfile::tempdir().unwrap();
        let plain = open(folder.path());
        let cluster = ClusterId::new();
        let uuid = run(plain.attach(cluster, Takeover::No, OWN)).unwrap().job_uuid;
        for step in 1..=6 {
            save(&plain, uuid, step, 1, one_node(1, step, &state(step)));
        }
        let omits = (random.random_range(1..=10), 0);
        let lagging: JobStore = over(Lagging::over(folder.path(), random, omits));
        let attached = run(lagging.attach(cluster, Takeover::No, OWN)).unwrap();
        let steps: Vec<u64> = attached.steps.iter().map(|listed| listed.step.0).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
        campaign.count("attaches");
    });
    campaign.held();
}
