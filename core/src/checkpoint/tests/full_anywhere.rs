//! P4 and P5's ground on a disk that is full at any point: every change that needs room may be the one that finds none,
//! alone or with all that follow. Needs no rights, unlike `full`, whose disks are real.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use super::fixture::*;
use crate::checkpoint::{JobStore, Takeover};
use crate::error::{Kind, Result};
use crate::format::{StepKind, paths};
use crate::ids::{ClusterId, JobUuid};
use crate::storage::{Change, Watcher, watch};
use crate::torture_tests::Campaign;

/// Counts what needs room; refuses it from the `first` one on, `until` another.
struct Full {
    met: AtomicUsize,
    first: AtomicUsize,
    until: AtomicUsize,
}

const NEVER: usize = usize::MAX;

impl Full {
    fn new(first: usize, until: usize) -> Arc<Full> {
        Arc::new(Full { met: AtomicUsize::new(0), first: first.into(), until: until.into() })
    }

    fn free(&self) {
        self.first.store(NEVER, Ordering::SeqCst);
    }
}

impl Watcher for Full {
    fn before(&self, change: Change<'_>) -> std::result::Result<(), Errno> {
        match change {
            // Gives room, or takes none.
            Change::Unlink(_) | Change::RemoveFolder(_) | Change::SyncFolder(_) => return Ok(()),
            // A file's fsync too: that is where delayed allocation finds the disk full.
            Change::MakeFolder(_)
            | Change::Create(_)
            | Change::Write(_)
            | Change::Sync(_)
            | Change::Rename(..)
            | Change::Link(..) => {}
        }
        let number = self.met.fetch_add(1, Ordering::SeqCst);
        let full = self.first.load(Ordering::SeqCst)..self.until.load(Ordering::SeqCst);
        if full.contains(&number) { Err(Errno::NOSPC) } else { Ok(()) }
    }

    fn after(&self, _: Change<'_>) {}
}

fn state(step: u64) -> Vec<Spec> {
    vec![spec("frozen", 70_000), spec("trained", 66_000).version(step), replicated("shared", 900)]
}

/// A store with one step, and what is to be done while the disk fills up.
struct Filling {
    folder: tempfile::TempDir,
    store: JobStore,
    uuid: JobUuid,
    full: Arc<Full>,
}

impl Filling {
    fn new(first: usize, until: usize) -> Filling {
        let folder = tempfile::Builder::new().prefix("strata-test-").tempdir_in("/dev/shm").unwrap();
        let store = open(folder.path());
        let uuid = run(store.attach(ClusterId::new(), Takeover::No, OWN)).unwrap().job_uuid;
        save(&store, uuid, 1, 2, one_node(2, 1, &state(1)));
        let full = Full::new(first, until);
        let watcher: Arc<dyn Watcher> = full.clone();
        watch(folder.path(), &watcher);
        Filling { folder, store, uuid, full }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn save(&self) -> Result<()> {
        let attempt = attempt(self.uuid, 2, 1);
        let mut nodes = one_node(2, 2, &state(2));
        for (rank, slot) in nodes[0].iter_mut().enumerate() {
            slot.base = Some(base_of(&super::fixture::slot(rank as u32, 2, 1, &state(1), true)));
        }
        let durable = persist(&self.store, attempt, 2, nodes)?;
        publish(&self.store, &record(attempt, 2, StepKind::Incremental, &durable))
    }

    #[track_caller]
    fn is_whole(&self, step: u64) {
        (0..2).for_each(|rank| check(&self.store, step, rank, 2, rank, &state(step)));
        verify(&self.store, step).unwrap();
    }
}

#[test]
fn a_disk_that_is_full_at_any_point_of_a_save_harms_nothing_and_the_save_succeeds_once_there_is_room() {
    let mut campaign = Campaign::new("disk-full", 1);
    let unhindered = Filling::new(NEVER, NEVER);
    unhindered.save().unwrap();
    let points = unhindered.full.met.load(Ordering::SeqCst);
    assert!(points > 12, "{points}");
    campaign.play_each(2 * points as u64, |campaign, round| {
        let first = round as usize / 2;
        let until = if round % 2 == 0 { first + 1 } else { NEVER };
        println!("full at the change {first} of {points}, until {until}");
        let filling = Filling::new(first, until);
        let outcome = filling.save();
        filling.is_whole(1);
        match outcome {
            // A second try of the same call found room.
            Ok(()) => {
                assert_ne!(until, NEVER, "a disk that stays full takes no save");
                campaign.count("made up for");
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::Overloaded, "{error}");
                assert!(error.message.contains("MiB free of") && error.hint.is_some(), "{error}");
                assert!(run(filling.store.steps()).unwrap().len() == 1, "a step that nobody was told of");
                campaign.count("told");
                filling.full.free();
                filling.save().unwrap();
            }
        }
        filling.is_whole(1);
        filling.is_whole(2);
        let left = files(filling.root());
        let temporaries = left.iter().filter(|path| path.to_str().unwrap().contains("/.writing-"));
        assert_eq!(temporaries.count(), 0, "{left:?}");
        // What a failed try could not take back goes with its step.
        run(filling.store.remove(&removal(1, 1, true, &[2]))).unwrap();
        filling.is_whole(2);
        run(filling.store.remove(&removal(2, 1, true, &[]))).unwrap();
        assert_eq!(files(filling.root()), [filling.root().join(JOB).join(paths::OWNER)]);
    });
    campaign.held();
}
