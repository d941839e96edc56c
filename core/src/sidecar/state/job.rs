//! A job as this node takes part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::records::{JobRecord, NodePlace};
use super::agreements::Agreements;
use crate::checkpoint::NodeShare;
use crate::data::HeldShards;
use crate::error::Error;
use crate::format::StepKind;
use crate::ids::{Generation, JobName, JobUuid, Rank, Step, WorldSize};
use crate::proto::v1::{self, StepInfo, StepPurpose};

/// Outcomes kept for handles that ask later; older ones are asked of the coordinator.
const OUTCOMES: usize = 512;

#[derive(Default)]
pub(in super::super) struct Job {
    pub uuid: Option<JobUuid>,
    /// URL, in its canonical form.
    pub store: Option<String>,
    /// Whose trainers it has.
    pub uid: u32,
    pub config: v1::WorkerConfig,
    /// Changed at the coordinator since: over this sidecar's own settings.
    pub save_wait: Option<Duration>,
    pub commit_timeout: Option<Duration>,
    pub open: Option<v1::Generation>,
    /// The newest generation that ended.
    pub ended: Option<v1::GenerationEnded>,
    /// Of the newest generation heard of: by node, its ranks. Of this node alone where `place` is known.
    pub nodes: BTreeMap<String, Vec<Rank>>,
    /// This node's among those of that generation.
    pub place: Option<NodePlace>,
    /// By some of its ranks: this node's part of what those nodes hold alike.
    shares: BTreeMap<Vec<u32>, NodeShare>,
    pub latest: Generation,
    /// Which shards the ranks of the open generation hold, by dataset.
    pub assignments: BTreeMap<String, Arc<HeldShards>>,
    /// Committed steps that an INCREMENTAL save may refer to.
    pub committed: BTreeMap<Step, Base>,
    outcomes: BTreeMap<Step, (Generation, Outcome)>,
    pub agreements: Agreements,
    /// By purpose: questions of a generation that is not known to have opened.
    pub early: BTreeMap<StepPurpose, v1::StepQuery>,
    /// When the newest save was begun here, and how long after the one before.
    begun: Option<Duration>,
    pub interval: Option<Duration>,
    /// Why no save can be committed, such as nodes that don't see one store.
    pub problem: Option<Error>,
}

#[derive(Clone, Debug)]
pub(in super::super) struct Base {
    pub kind: StepKind,
    pub world: WorldSize,
}

/// What became of an attempt.
#[derive(Clone, Debug)]
pub(in super::super) enum Outcome {
    Committed(Box<StepInfo>),
    /// `skipped`: a rank found no free slot.
    Abandoned {
        error: Error,
        skipped: bool,
    },
}

impl Job {
    /// A save was begun.
    pub fn note_save(&mut self, now: Duration) {
        self.interval = self.begun.map(|before| now.saturating_sub(before));
        self.begun = Some(now);
    }

    /// The coordinator's configuration has changed; what is 0 of the two has not.
    pub fn configured(&mut self, config: v1::WorkerConfig) {
        let given = |milliseconds| Some(Duration::from_millis(milliseconds)).filter(|time| !time.is_zero());
        self.save_wait = given(config.save_wait_ms).or(self.save_wait);
        self.commit_timeout = given(config.commit_timeout_ms).or(self.commit_timeout);
        self.config = config;
    }

    /// The budget of a blocking call.
    pub fn timeout(&self) -> Duration {
        match self.config.timeout_ms {
            0 => Duration::from_secs(300),
            given => Duration::from_millis(given),
        }
    }

    pub fn outcome(&self, step: Step, generation: Generation) -> Option<&Outcome> {
        let (of, outcome) = self.outcomes.get(&step)?;
        // A committed number is committed, whichever attempt it was.
        (*of == generation || matches!(outcome, Outcome::Committed(_))).then_some(outcome)
    }

    /// As far as we have heard.
    pub fn committed_before(&self, step: Step, generation: Generation) -> bool {
        let outcome = self.outcomes.get(&step);
        outcome.is_some_and(|(of, outcome)| *of < generation && matches!(outcome, Outcome::Committed(_)))
    }

    /// It has been removed.
    pub fn forget(&mut self, step: Step) {
        self.outcomes.remove(&step);
        self.committed.remove(&step);
    }

    pub fn outcomes(&self) -> impl Iterator<Item = (Step, Generation, &Outcome)> {
        self.outcomes.iter().map(|(step, (generation, outcome))| (*step, *generation, outcome))
    }

    pub fn note_outcome(&mut self, step: Step, generation: Generation, outcome: Outcome) {
        let newer = self
            .outcomes
            .get(&step)
            .is_none_or(|(of, known)| *of <= generation && !matches!(known, Outcome::Committed(_)));
        if newer || matches!(outcome, Outcome::Committed(_)) {
            self.outcomes.insert(step, (generation, outcome));
        }
        while self.outcomes.len() > OUTCOMES {
            self.outcomes.pop_first();
        }
    }

    pub fn note_committed(&mut self, info: &StepInfo) {
        let kind = info.kind().into();
        self.committed.insert(Step(info.step), Base { kind, world: WorldSize(info.world_size) });
    }

    /// The step an INCREMENTAL save refers to: the newest whole one of this world.
    pub fn base(&self, world: WorldSize) -> Option<Step> {
        let fits = |base: &Base| base.kind.holds_whole_state() && base.world == world;
        self.committed.iter().rev().find(|(_, base)| fits(base)).map(|(step, _)| *step)
    }

    pub fn opened(&mut self, generation: &v1::Generation, node: &str) {
        self.nodes.clear();
        self.place = generation.place.clone().map(NodePlace::from);
        if self.place.is_some() {
            self.nodes.insert(node.to_owned(), Vec::new());
        }
        for member in &generation.members {
            self.nodes.entry(member.node.clone()).or_default().push(Rank(member.rank));
        }
        // Told again over a new line it is the same one, with what was asked in it.
        if self.open.as_ref().is_none_or(|open| open.generation != generation.generation) {
            self.agreements = Agreements::default();
            self.assignments.clear();
            self.shares.clear();
        }
        self.latest = Generation(generation.generation);
        self.open = Some(generation.clone());
    }

    /// The ranks of `expected` (empty: all) that live on `node`; None when that generation's members are not known.
    pub fn here(&self, node: &str, generation: Generation, expected: &[u32]) -> Option<BTreeSet<Rank>> {
        if self.latest != generation || self.nodes.is_empty() {
            return None;
        }
        let wanted = |rank: &&Rank| expected.is_empty() || expected.contains(&rank.0);
        Some(self.nodes.get(node).into_iter().flatten().filter(wanted).copied().collect())
    }

    /// The copy of a map that was made for this generation.
    pub fn learn_assignment(&mut self, generation: Generation, dataset: &str, map: Arc<HeldShards>) {
        if self.latest == generation {
            self.assignments.insert(dataset.to_owned(), map);
        }
    }

    /// The nodes that this one compares what it sees in the store with.
    pub fn neighbours(&self, node: &str) -> Vec<String> {
        match &self.place {
            Some(place) => place.neighbours.clone(),
            None => self.nodes.keys().filter(|other| *other != node).cloned().collect(),
        }
    }

    /// This node's part of what the nodes of `expected` (empty: all ranks) hold alike. None where the coordinator must
    /// be asked.
    pub fn share(&self, node: &str, generation: Generation, expected: &[u32]) -> Option<NodeShare> {
        if self.latest != generation {
            return Some(NodeShare::ALONE);
        }
        let Some(place) = &self.place else { return Some(self.share_of(node, expected)) };
        if expected.is_empty() {
            return Some(share_at(place));
        }
        let here = self.nodes.get(node).map_or(&[][..], Vec::as_slice);
        let are_all_here = expected.iter().all(|rank| here.contains(&Rank(*rank)));
        if are_all_here { Some(NodeShare::ALONE) } else { self.shares.get(expected).copied() }
    }

    /// The coordinator's answer.
    pub fn learn_share(&mut self, generation: Generation, expected: Vec<u32>, place: &NodePlace) {
        if self.latest == generation {
            self.shares.insert(expected, share_at(place));
        }
    }

    /// All members are known.
    fn share_of(&self, node: &str, expected: &[u32]) -> NodeShare {
        let lowest = |ranks: &Vec<Rank>| {
            ranks.iter().filter(|rank| expected.is_empty() || expected.contains(&rank.0)).min().copied()
        };
        let mut nodes: Vec<(Rank, &String)> =
            self.nodes.iter().filter_map(|(node, ranks)| Some((lowest(ranks)?, node))).collect();
        nodes.sort();
        match nodes.iter().position(|(_, other)| **other == *node) {
            Some(node) => NodeShare { node, nodes: nodes.len() },
            None => NodeShare::ALONE,
        }
    }

    pub fn record(&self, job: &JobName) -> Option<JobRecord> {
        Some(JobRecord {
            job: job.clone(),
            job_uuid: self.uuid?,
            store: self.store.clone()?,
            generation: self.latest,
            nodes: self.nodes.clone(),
            place: self.place.clone(),
        })
    }
}

fn share_at(place: &NodePlace) -> NodeShare {
    place.number.map_or(NodeShare::ALONE, |node| NodeShare { node, nodes: place.nodes })
}
