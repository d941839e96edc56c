//! What really happened, and what the coordinator may therefore say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::node::Meeting;
use super::store::Store;
use crate::coordinator::state::State;
use crate::error::Kind;
use crate::ids::{Generation, Rank, Step};
use crate::proto::v1::{self, node_command::Command, step_outcome::State as StepState};

#[derive(Default)]
pub struct Truth {
    /// The members of each generation, as first told: by rank.
    members: BTreeMap<Generation, BTreeMap<u32, v1::Member>>,
    worlds: BTreeMap<Generation, (u32, u32)>,
    /// The newest generation that each node was told of.
    told: BTreeMap<usize, Generation>,
    /// Attempts whose fate was told: committed or not.
    settled: BTreeMap<(Step, Generation), bool>,
    arrived: BTreeMap<Meeting, BTreeSet<Rank>>,
    /// What the ranks of a generation were told to restore.
    restored: BTreeMap<Generation, Option<u64>>,
    pub last_commit: Duration,
    /// By generation: the step that each vote decided.
    agreed: BTreeMap<(Generation, u64), Step>,
    pub last_agreed: Duration,
    /// What the first rank heard that asked there.
    passed: BTreeMap<(Generation, Step), bool>,
}

impl Truth {
    pub fn arrives(&mut self, meeting: Meeting, rank: Rank) {
        self.arrived.entry(meeting).or_default().insert(rank);
    }

    pub fn is_settled(&self, step: Step, generation: Generation) -> bool {
        self.settled.contains_key(&(step, generation))
    }

    /// The highest generation that anybody was told of.
    pub fn newest(&self) -> Generation {
        self.members.keys().next_back().copied().unwrap_or_default()
    }

    pub fn opened(&mut self, generation: &v1::Generation) {
        let number = Generation(generation.generation);
        let known = self.members.entry(number).or_default();
        for member in &generation.members {
            let first = known.entry(member.rank).or_insert_with(|| member.clone());
            assert_eq!(first, member, "generation {number} has two memberships");
        }
        let nodes: BTreeSet<&str> = generation.members.iter().map(|member| &*member.node).collect();
        let told = match &generation.place {
            Some(place) => {
                assert!(nodes.len() <= 1, "a node is told of {nodes:?}");
                assert_eq!(place.number.is_some(), nodes.len() == 1);
                (generation.world_size, place.nodes)
            }
            None => (generation.members.len() as u32, nodes.len() as u32),
        };
        let first = self.worlds.entry(number).or_insert(told);
        assert_eq!(*first, told, "generation {number} has two worlds");
    }

    pub fn restores(&mut self, generation: Generation, step: Option<u64>) {
        let first = self.restored.entry(generation).or_insert(step);
        assert_eq!(*first, step, "ranks of generation {generation} restore different steps");
    }

    /// A rank asks whether to save at a step boundary, and hears this.
    pub fn passes(&mut self, generation: Generation, boundary: Step, saves: bool) {
        let first = *self.passed.entry((generation, boundary)).or_insert(saves);
        assert_eq!(saves, first, "a rank of generation {generation} goes another way at step {boundary}");
        let mut votes = self.agreed.range((generation, 0)..=(generation, u64::MAX));
        assert!(
            saves || votes.all(|(_, step)| *step != boundary),
            "a rank passes step {boundary}, which was agreed on"
        );
    }

    /// What the coordinator tells a node, as it leaves.
    pub fn told(&mut self, node: usize, command: &v1::NodeCommand, store: &Store, now: Duration) {
        match command.command.as_ref().expect("never empty") {
            Command::GenerationOpened(generation) => {
                self.opened(generation);
                let number = Generation(generation.generation);
                let before = self.told.insert(node, number).unwrap_or_default();
                assert!(number >= before, "node {node} is told of generation {number} after {before}");
            }
            Command::Barrier(released) => {
                let meeting = (Generation(released.generation), released.round);
                let arrived = self.arrived.get(&meeting).map_or(0, BTreeSet::len);
                let expected = self.worlds[&meeting.0].0 as usize;
                assert_eq!(
                    arrived, expected,
                    "barrier {meeting:?} was released to {arrived} of {expected} ranks"
                );
            }
            Command::StepAgreed(agreed) => {
                let (generation, step) = (Generation(agreed.generation), Step(agreed.step));
                let first = self.agreed.insert((generation, agreed.vote), step);
                assert_eq!(
                    first.unwrap_or(step),
                    step,
                    "vote {} of {generation} has two outcomes",
                    agreed.vote
                );
                if first.is_none() {
                    self.last_agreed = now;
                }
            }
            Command::Step(outcome) => self.told_outcome(outcome, store, now),
            Command::Refused(refusal) => panic!("a node is refused: {refusal:?}"),
            _ => {}
        }
    }

    fn told_outcome(&mut self, outcome: &v1::StepOutcome, store: &Store, now: Duration) {
        let id = (Step(outcome.step), Generation(outcome.generation));
        let committed = match outcome.state() {
            StepState::Committed => true,
            // It was committed, and has been removed since.
            StepState::Abandoned => outcome.kind == Kind::NotFound.name(),
            _ => return,
        };
        if self.settled.insert(id, committed).is_none() && committed {
            self.last_commit = now;
        }
        if outcome.info.is_some() {
            let there = store.commit(id.0).is_some_and(|record| record.generation == id.1);
            assert!(there, "P1: step {} of generation {} is told committed and has no COMMIT", id.0, id.1);
        }
        assert_eq!(self.settled[&id], committed, "{id:?} was told otherwise before");
    }

    /// At any moment of a living coordinator.
    pub fn check(&self, state: &State, store: &Store) {
        let Some(job) = state.jobs.values().next() else { return };
        assert!(job.latest >= self.newest(), "the coordinator is back at generation {}", job.latest);
        for (step, record) in &job.steps {
            let there = store.commit(*step).filter(|there| there.generation == record.generation);
            let there = there.unwrap_or_else(|| panic!("P4: step {step}, which counts, has no COMMIT"));
            assert!(store.is_whole(there), "P4: step {step}, which counts, has lost objects");
        }
    }

    /// When faults are over and everybody had time.
    pub fn check_settled(&self, state: &State, store: &Store) {
        let job = state.jobs.values().next().expect("the job is known");
        for (step, generation) in store.attempts() {
            let counts = store.commit(step).is_some_and(|record| record.generation == generation);
            let comes = job.attempts.iter().any(|one| (one.step, one.generation) == (step, generation));
            let goes = job.removals.iter().any(|one| (one.step, one.generation) == (step, generation));
            assert!(
                counts || comes || goes,
                "nobody will remove what step {step} of generation {generation} left"
            );
        }
        for record in store.commits() {
            let counts =
                job.steps.get(&record.step).is_some_and(|known| known.generation == record.generation);
            let goes = job.removals.iter().any(|removal| removal.committed && removal.step == record.step);
            let comes = job.attempts.iter().any(|attempt| attempt.step == record.step);
            assert!(counts || goes || comes, "nobody knows of the COMMIT of step {}", record.step);
            assert!(
                goes || store.is_whole(record),
                "P1: the COMMIT of step {} names what is not there",
                record.step
            );
        }
    }
}
