//! Further targets of a job's steps: what each holds, which step it gets or gives up next, and what the first store keeps
//! for it. Called by the engine. Never in the way of a save: it acts on what is committed. What a target
//! holds is not logged: its own COMMITs are the truth, and are listed again after every restart. That it was there, and what
//! a person removed from it, is.

mod backoff;
mod orders;
mod plan;
mod reports;
mod views;

pub use views::{Restorable, Unlisted};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::keep::{KeepBest, KeepRules};
use super::super::state::{Job, StepRecord};
use super::{Engine, Reply};
use crate::config::Extreme;
use crate::ids::{Generation, JobName, Step};
use crate::proto::v1;
use backoff::Backoff;

#[derive(Default)]
pub struct Targets {
    by_job: BTreeMap<JobName, BTreeMap<String, Target>>,
    /// Jobs whose rules wait for a copy: asked again when it is done.
    held_back: BTreeSet<JobName>,
    /// Removals that end when no target has the step any more.
    waiters: Vec<(JobName, Step, Reply<u64>)>,
    /// Each step given up without a copy is worth one warning.
    told: BTreeSet<(JobName, String, Step)>,
}

/// One target of one job.
pub struct Target {
    pub name: String,
    pub url: String,
    keep: KeepRules,
    hold: u32,
    /// Committed there; None: nobody has listed it yet.
    pub steps: Option<BTreeMap<Step, StepRecord>>,
    /// Objects without a COMMIT, to be looked through once.
    leftovers: Vec<(Step, Generation)>,
    /// At most one order at a time.
    busy: Option<Busy>,
    /// Of what it gets: listings and copies.
    filling: Backoff,
    /// Of what it gives up. One that can't be removed must not hold up what is to be copied, nor the other way round.
    removing: Backoff,
    /// The removal that failed last: another one goes before it, for it may be what this one waits for.
    stuck: Option<Order>,
    /// What can't be copied, until its node attaches anew.
    refused: BTreeSet<Step>,
}

struct Busy {
    node: String,
    what: Order,
    /// Since when.
    since: Duration,
    /// Of a listing: what has come so far, and in how many pages.
    listed: Listing,
    pages: u32,
}

/// What lies in a target.
#[derive(Default)]
struct Listing {
    steps: BTreeMap<Step, StepRecord>,
    leftovers: Vec<(Step, Generation)>,
}

impl Busy {
    fn new(node: &str, what: Order, since: Duration) -> Busy {
        Busy { node: node.to_owned(), what, since, listed: Listing::default(), pages: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    List,
    Copy(Step),
    Remove { step: Step, generation: Generation, committed: bool },
}

impl Order {
    fn is_removal(self) -> bool {
        matches!(self, Order::Remove { .. })
    }
}

impl Target {
    fn new(told: &v1::Target) -> Target {
        Target {
            name: told.name.clone(),
            url: told.url.clone(),
            keep: rules(told.keep.as_ref()),
            hold: told.hold,
            steps: None,
            leftovers: Vec::new(),
            busy: None,
            filling: Backoff::default(),
            removing: Backoff::default(),
            stuck: None,
            refused: BTreeSet::new(),
        }
    }

    /// Why the last try at it failed.
    fn problem(&self) -> Option<&String> {
        self.filling.problem.as_ref().or(self.removing.problem.as_ref())
    }

    fn backoff(&mut self, of: Order) -> &mut Backoff {
        if of.is_removal() { &mut self.removing } else { &mut self.filling }
    }

    fn try_again_now(&mut self) {
        self.filling.try_again_now();
        self.removing.try_again_now();
    }

    /// Any attempt of it.
    fn has(&self, step: Step) -> bool {
        self.steps.as_ref().is_some_and(|steps| steps.contains_key(&step))
    }

    /// The attempt that the record is of.
    fn has_attempt(&self, step: Step, record: &StepRecord) -> bool {
        let held = self.steps.as_ref().and_then(|steps| steps.get(&step));
        held.is_some_and(|held| is_same_attempt(held, record))
    }

    /// Removals by hand that are done here. A doom ends with what it was spoken over: else it would meet the next attempt
    /// of that number.
    fn ended_dooms(&self, known: &Job) -> Vec<Step> {
        let Some(steps) = &self.steps else { return Vec::new() };
        let has_ended = |step: &&Step| {
            let is_current =
                |held| known.steps.get(*step).is_some_and(|record| is_same_attempt(held, record));
            let comes = plan::is_being_removed(known, **step) || self.copying() == Some(**step);
            !comes && steps.get(*step).is_none_or(is_current)
        };
        known.dooms.get(&self.name).into_iter().flatten().filter(has_ended).copied().collect()
    }

    fn copying(&self) -> Option<Step> {
        self.busy.as_ref().and_then(|busy| match busy.what {
            Order::Copy(step) => Some(step),
            _ => None,
        })
    }
}

/// A COMMIT that could not be read, of generation 0, is taken for the one that is known: nothing speaks against it.
fn is_same_attempt(held: &StepRecord, record: &StepRecord) -> bool {
    match held.commit_blake3.is_empty() || record.commit_blake3.is_empty() {
        true => held.generation == record.generation || held.generation.0 == 0 || record.generation.0 == 0,
        false => held.commit_blake3 == record.commit_blake3,
    }
}

fn rules(told: Option<&v1::KeepRules>) -> KeepRules {
    let Some(told) = told else { return KeepRules::default() };
    KeepRules {
        last: told.last,
        every_steps: told.every_steps,
        every: (told.every_ms > 0).then(|| Duration::from_millis(told.every_ms)),
        best: (told.best > 0).then(|| KeepBest {
            count: told.best,
            metric: told.metric.clone(),
            is: if told.highest { Extreme::Max } else { Extreme::Min },
        }),
    }
}

impl Engine {
    /// The node whose sidecar does a job's copies: that of the lowest living rank, else any of the job, else any. A
    /// node that has had no rank of the job is told where its store is.
    fn copier(&self, job: &JobName) -> Option<String> {
        let known = self.state.job(job).ok()?;
        let open = known.open.iter().flat_map(|open| open.living());
        let mut living = open.filter_map(|(_, member)| member.node.clone());
        living.find(|node| self.is_attached(node)).or_else(|| self.remover(job))
    }

    /// As the copier's configuration has them, with what is known of each.
    fn take_targets(&mut self, job: &JobName) -> Option<String> {
        let node = self.copier(job)?;
        let configured = self.nodes.by_name[&node].targets.clone();
        if configured.is_empty() {
            self.targets.by_job.remove(job);
            return None;
        }
        let known = self.targets.by_job.entry(job.clone()).or_default();
        known.retain(|name, target| {
            configured.iter().any(|told| told.name == *name && told.url == target.url)
        });
        for told in &configured {
            let target = known.entry(told.name.clone()).or_insert_with(|| Target::new(told));
            (target.keep, target.hold) = (rules(told.keep.as_ref()), told.hold);
        }
        Some(node)
    }

    pub(super) fn targets_of(&self, job: &JobName) -> impl Iterator<Item = (&String, &Target)> {
        self.targets.by_job.get(job).into_iter().flatten()
    }
}
