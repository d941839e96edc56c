//! P4 against a real coordinator, sidecar and store: whatever the order of saves that refer to each other, pins, removals,
//! restores and restarts, every committed step that nobody removed restores whole, and what nobody names is gone in the end.

mod sidecar;
#[path = "../src/torture_tests.rs"]
mod torture_tests;

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::StdRng;
use sidecar::trainer::{committed, contents};
use sidecar::{Cluster, PATIENCE, State, Trainer, Tune, eventually, files};
use strata_core::client::{RestoreOptions, RestoredSlot, SaveHandle, Uninterrupted};
use strata_core::coordinator::KeepRules;
use strata_core::error::Kind;
use strata_core::format::{CommitRecord, manifest};
use strata_core::ids::Step;
use strata_core::proto::v1::SaveKind;
use torture_tests::Campaign;

/// Of one round.
const DEEDS: usize = 30;

#[test]
fn p4_no_order_of_saves_pins_removals_restores_and_restarts_harms_a_step_or_leaves_garbage() {
    let mut campaign = Campaign::new("collector", 3);
    campaign.play(|campaign, random| {
        let mut story = Story::new(random);
        for _ in 0..DEEDS {
            let deed = story.go_on(random);
            campaign.count(deed);
        }
        campaign.count(if story.has_late_writer { "late writers" } else { "looked for garbage" });
        story.ends();
    });
    campaign.held();
}

struct Story {
    cluster: Cluster,
    trainer: Trainer,
    next: u64,
    /// What was saved, whether it still is there or not.
    saved: BTreeMap<u64, State>,
    open: Vec<(u64, SaveHandle)>,
    pinned: BTreeSet<u64>,
    /// Removed by us: may never come back.
    removed: BTreeSet<u64>,
    views: Vec<(u64, RestoredSlot)>,
    /// A sidecar was stopped in the middle of a persist. Its thread lives on in this process, as no killed one's does, and may
    /// write after the last removal has looked.
    has_late_writer: bool,
}

fn step_of(step: u64) -> RestoreOptions {
    RestoreOptions { step: Some(Step(step)), ..RestoreOptions::default() }
}

impl Story {
    fn new(random: &mut StdRng) -> Story {
        let tune: [fn(&mut _); 3] = [
            |settings: &mut strata_core::coordinator::CoordinatorSettings| settings.keep = KeepRules::last(2),
            |settings| settings.keep = KeepRules { every_steps: 5, ..KeepRules::last(3) },
            |settings| settings.keep = KeepRules::default(),
        ];
        let cluster = Cluster::tuned(Tune {
            coordinator: tune[random.random_range(0..tune.len())],
            sidecar: |settings| settings.slots = 4,
        });
        let trainer = Trainer::world(&cluster, "j", 1).pop().unwrap();
        Story {
            cluster,
            trainer,
            next: 1,
            saved: BTreeMap::new(),
            open: Vec::new(),
            pinned: BTreeSet::new(),
            removed: BTreeSet::new(),
            views: Vec::new(),
            has_late_writer: false,
        }
    }

    fn go_on(&mut self, random: &mut StdRng) -> &'static str {
        let deed = random.random_range(0..20);
        println!("deed {deed}, next step {}", self.next);
        match deed {
            0..=8 => self.save(random),
            9 => self.pin(random),
            10 => self.unpin(random),
            11..=13 => self.remove(random),
            14..=15 => self.view(random),
            16 => self.drop_views(),
            17 => {
                self.has_late_writer |= !self.open.is_empty();
                self.cluster.stop_sidecar();
                self.cluster.start_sidecar();
                "sidecar restarts"
            }
            18 => {
                self.cluster.stop_coordinator();
                self.cluster.start_coordinator();
                "coordinator restarts"
            }
            _ => {
                self.all_is_whole();
                "looks at every step"
            }
        }
    }

    /// The large tensor changes now and then, the small one always. Not waited for: what comes next goes beside it.
    fn save(&mut self, random: &mut StdRng) -> &'static str {
        let step = self.next;
        let mut state = State::of(0, step, false);
        if let (Some((_, before)), true) = (self.saved.last_key_value(), random.random_ratio(2, 3)) {
            state.tensors[0] = before.tensors[0].clone();
        }
        let kind = if random.random_ratio(3, 4) { SaveKind::Incremental } else { SaveKind::Full };
        let handle = self.trainer.save_as(step, &state, kind, &[]).unwrap();
        self.next += 1;
        self.saved.insert(step, state);
        self.open.push((step, handle));
        if random.random() { self.settle() } else { "saves not waited for" }
    }

    /// A save that found no free slot in time is skipped, and is no step (P5).
    fn settle(&mut self) -> &'static str {
        for (step, handle) in self.open.drain(..) {
            match committed(&handle) {
                Ok(info) => assert_eq!(info.step, step),
                Err(error) => {
                    // Or what it would have referred to was removed while it was begun.
                    let base_is_gone = error.kind == Kind::Conflict && error.message.contains("its base");
                    assert!(base_is_gone || error.kind == Kind::Overloaded, "step {step}: {error}");
                    println!("step {step} is given up: {error}");
                    self.saved.remove(&step);
                }
            }
        }
        "saves waited for"
    }

    fn listed(&self) -> BTreeSet<u64> {
        let steps = self.trainer.session.all_steps(Some(PATIENCE), &Uninterrupted).unwrap();
        steps.iter().map(|step| step.step).collect()
    }

    fn any_step(&self, random: &mut StdRng) -> Option<u64> {
        let steps: Vec<u64> = self.listed().into_iter().collect();
        (!steps.is_empty()).then(|| steps[random.random_range(0..steps.len())])
    }

    fn pin(&mut self, random: &mut StdRng) -> &'static str {
        let Some(step) = self.any_step(random) else { return "nothing to pin" };
        match self.trainer.session.pin(Step(step), Some(PATIENCE), &Uninterrupted) {
            Ok(_) => drop(self.pinned.insert(step)),
            // A rule gave it up since it was listed.
            Err(error) => assert_eq!(error.kind, Kind::NotFound, "{error}"),
        }
        "pins"
    }

    fn unpin(&mut self, random: &mut StdRng) -> &'static str {
        let pinned: Vec<u64> = self.pinned.iter().copied().collect();
        if pinned.is_empty() {
            return "nothing to unpin";
        }
        let step = pinned[random.random_range(0..pinned.len())];
        self.trainer.session.unpin(Step(step), Some(PATIENCE), &Uninterrupted).unwrap();
        self.pinned.remove(&step);
        "unpins"
    }

    /// Refused for a pinned step, the newest, one that a save refers to or a restore reads.
    fn remove(&mut self, random: &mut StdRng) -> &'static str {
        let Some(step) = self.any_step(random) else { return "nothing to remove" };
        match self.trainer.session.delete(Step(step), false, Some(PATIENCE), &Uninterrupted) {
            Ok(_) => {
                assert!(!self.pinned.contains(&step), "a pinned step was removed");
                self.removed.insert(step);
                "removals"
            }
            Err(error) => {
                let right = matches!(error.kind, Kind::Conflict | Kind::NotFound | Kind::Unavailable);
                assert!(right, "{error}");
                "removals refused"
            }
        }
    }

    /// Held while other things happen.
    fn view(&mut self, random: &mut StdRng) -> &'static str {
        // A slot for a save must be left.
        self.views.truncate(1);
        let Some(step) = self.any_step(random) else { return "nothing to restore" };
        if let Some(view) = self.restore(step) {
            self.views.push((step, view));
        }
        "restores held"
    }

    fn drop_views(&mut self) -> &'static str {
        for (step, view) in self.views.drain(..) {
            assert_eq!(contents(&view), self.saved[&step], "a view of step {step} changed");
        }
        "views dropped"
    }

    /// None: a rule gave it up since it was listed.
    fn restore(&self, step: u64) -> Option<RestoredSlot> {
        match self.trainer.restore(step_of(step)) {
            Ok(view) => {
                let view = view.expect("a step that was named");
                assert_eq!(contents(&view), self.saved[&step], "step {step} came back otherwise");
                Some(view)
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::NotFound, "step {step}: {error}");
                assert!(!self.pinned.contains(&step), "step {step} is pinned and gone");
                assert!(!self.listed().contains(&step), "step {step} is listed and can't be restored");
                None
            }
        }
    }

    fn all_is_whole(&mut self) {
        self.settle();
        let listed = self.listed();
        assert!(self.pinned.is_subset(&listed), "pinned {:?}, there are {listed:?}", self.pinned);
        assert!(self.removed.is_disjoint(&listed), "removed {:?}, there are {listed:?}", self.removed);
        let newest = self.saved.keys().next_back();
        assert!(newest.is_none_or(|step| listed.contains(step)), "the newest step is gone: {listed:?}");
        self.drop_views();
        listed.iter().for_each(|step| drop(self.restore(*step)));
    }

    /// What a restarted sidecar wrote in vain goes with the next removal, which is made here.
    fn ends(mut self) {
        self.all_is_whole();
        for step in [self.next, self.next + 1] {
            let state = State::of(0, step, false);
            committed(&self.trainer.save(step, &state).unwrap()).unwrap();
            self.saved.insert(step, state);
        }
        let older = Step(self.next);
        self.trainer.session.delete(older, false, Some(PATIENCE), &Uninterrupted).unwrap();
        self.removed.insert(older.0);
        self.all_is_whole();
        if self.has_late_writer {
            return;
        }
        let job = self.cluster.store().join("j");
        let (mut garbage, mut surplus): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        let gone = catch(|| {
            eventually("what nobody names is gone", || {
                let commits = files_named(&job.join("steps"), "COMMIT");
                let Ok(commits) = commits.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>() else {
                    return false;
                };
                let (mut steps, mut named) = (BTreeSet::new(), BTreeSet::new());
                for commit in commits {
                    let record = CommitRecord::decode(&commit).unwrap();
                    steps.insert(record.step.0);
                    for rank in record.ranks {
                        let Ok(bytes) = std::fs::read(job.join(&rank.path)) else { return false };
                        let packs = manifest::decode(&bytes, "a manifest").unwrap().packs;
                        named.extend(packs.into_iter().map(|pack| job.join(pack.path)));
                        named.insert(job.join(rank.path));
                    }
                }
                let data = job.join("data");
                let there: BTreeSet<_> =
                    files(&data, "pack").into_iter().chain(files(&data, "manifest")).collect();
                garbage = there.difference(&named).cloned().collect();
                let listed = self.listed();
                surplus = steps.symmetric_difference(&listed).copied().collect();
                garbage.is_empty() && surplus.is_empty()
            })
        });
        assert!(gone.is_ok(), "left over: {garbage:?}; in the store or in the list alone: {surplus:?}");
        self.all_is_whole();
    }
}

fn catch(work: impl FnOnce()) -> std::thread::Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
}

fn files_named(folder: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten();
    folders.map(|entry| entry.path().join(name)).filter(|path| path.exists()).collect()
}
