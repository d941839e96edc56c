//! A node as the coordinator meets it: a sidecar, the trainers behind it, and the slots that outlive both. Plays by the
//! rules of `sidecar` (announce everything on a new line, repeat until answered), without its memory and sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::client::asks::Asks;
use crate::error::Kind;
use crate::ids::{Generation, Rank, Step};
use crate::proto::v1::{self, node_report::Report};

pub const JOB: &str = "run";
pub const STORE: &str = "/data";
/// Of each rank.
const SLOTS: usize = 3;

pub fn name(node: usize) -> String {
    format!("node-{node}")
}

/// The sidecar of a node.
pub struct Node {
    /// Its process, counted; a task of an earlier one ends with it.
    pub life: u64,
    pub up: bool,
    /// The line it has, if any.
    pub line: Option<u64>,
    /// It does nothing until then (SIGSTOP).
    pub frozen_until: Duration,
    /// Nothing comes through until then, in either direction.
    pub apart_until: Duration,
    /// When the last report and the last command of the line arrive: each direction is in order.
    pub last: [Duration; 2],
    /// The newest generation that it knows to have ended.
    pub ended: Generation,
    pub slots: BTreeMap<Attempt, Slot>,
    pub barriers: BTreeMap<Meeting, Meets>,
    pub agreement: Agreement,
}

/// One rank's part of an attempt at a step.
pub type Attempt = (Step, Generation, Rank);
/// A generation's barrier of one name, and its round.
pub type Meeting = (Generation, u64);

pub struct Slot {
    pub state: SlotState,
    pub since: Duration,
}

#[derive(Clone, Copy, PartialEq)]
pub enum SlotState {
    Filling,
    Sealed,
    Durable,
    /// None was free: its rank does not save the step.
    Skipped,
}

/// On a step to save at, in one generation.
#[derive(Default)]
pub struct Agreement {
    pub generation: Generation,
    pub vote: u64,
    pub votes: BTreeMap<Rank, u64>,
    pub decided: Option<v1::StepAgreedEvent>,
}

impl Agreement {
    /// A generation has opened, as far as it is not known.
    pub fn begin(&mut self, generation: Generation) {
        if self.generation < generation {
            *self = Agreement { generation, ..Agreement::default() };
        }
    }

    /// Makes this the vote that is held; false: it is over.
    pub fn hold(&mut self, vote: u64) -> bool {
        if vote > self.vote {
            (self.vote, self.votes) = (vote, BTreeMap::new());
        }
        vote == self.vote && self.is_held()
    }

    pub fn is_held(&self) -> bool {
        self.decided.is_none_or(|decided| decided.vote < self.vote)
    }
}

#[derive(Default)]
pub struct Meets {
    pub arrived: BTreeSet<Rank>,
    pub released: bool,
}

impl Node {
    pub fn new() -> Node {
        Node {
            life: 0,
            up: false,
            line: None,
            frozen_until: Duration::ZERO,
            apart_until: Duration::ZERO,
            last: [Duration::ZERO; 2],
            ended: Generation(0),
            slots: BTreeMap::new(),
            barriers: BTreeMap::new(),
            agreement: Agreement::default(),
        }
    }

    /// What a new line begins with, behind its hello.
    pub fn announcement(&self) -> Vec<Report> {
        let mut slots = v1::SlotsAnnounced::default();
        for (attempt, slot) in &self.slots {
            match slot.state {
                SlotState::Filling | SlotState::Skipped => {}
                SlotState::Sealed => slots.sealed.push(sealed(*attempt)),
                SlotState::Durable => slots.durable.push(durable(*attempt)),
            }
        }
        let filling = self.slots.iter().filter(|(_, slot)| slot.state == SlotState::Filling);
        let begun = filling.map(|(attempt, _)| Report::Begun(begun(*attempt)));
        let skipped = self.slots.iter().filter(|(_, slot)| slot.state == SlotState::Skipped);
        let failed = skipped.map(|(attempt, _)| Report::Failed(failed(*attempt)));
        let meets = self.barriers.iter().map(|(meeting, meets)| Report::Arrival(arrival(*meeting, meets)));
        let held = &self.agreement;
        let votes = held.votes.iter().filter(|_| held.is_held());
        let votes =
            votes.map(|(rank, last)| Report::StepVote(vote(held.generation, *rank, held.vote, *last)));
        [Report::Slots(slots)].into_iter().chain(begun).chain(failed).chain(meets).chain(votes).collect()
    }

    /// Whether the rank has a slot for another step.
    pub fn has_room(&self, rank: Rank) -> bool {
        let taken = |((.., of), slot): &(&Attempt, &Slot)| *of == rank && slot.state != SlotState::Skipped;
        self.slots.iter().filter(taken).count() < SLOTS
    }
}

pub fn caller(generation: Generation, rank: Rank) -> v1::Caller {
    v1::Caller { job: JOB.into(), generation: generation.0, rank: rank.0, token: String::new() }
}

pub fn begun((step, generation, rank): Attempt) -> v1::SaveBegun {
    v1::SaveBegun { caller: Some(caller(generation, rank)), step: step.0, ..v1::SaveBegun::default() }
}

pub fn sealed(attempt: Attempt) -> v1::SealedReport {
    let begun = begun(attempt);
    v1::SealedReport { caller: begun.caller.clone(), step: begun.step, bytes: 1, begun: Some(begun) }
}

pub fn durable(attempt: Attempt) -> v1::DurableReport {
    let (step, generation, rank) = attempt;
    let begun = begun(attempt);
    v1::DurableReport {
        caller: begun.caller.clone(),
        step: step.0,
        manifest_path: format!("{step}-{generation}/{rank}.manifest"),
        manifest_blake3: "0".repeat(64),
        manifest_bytes: 1,
        state_bytes: 1,
        stored_bytes: 1,
        begun: Some(begun),
    }
}

pub fn failed((step, generation, rank): Attempt) -> v1::SaveFailed {
    let (kind, reason) = (Kind::Overloaded.name().to_owned(), "no slot is free".to_owned());
    v1::SaveFailed { caller: Some(caller(generation, rank)), step: step.0, skipped: true, kind, reason }
}

pub fn arrival((generation, round): Meeting, meets: &Meets) -> v1::BarrierArrival {
    v1::BarrierArrival {
        job: JOB.into(),
        generation: generation.0,
        name: "step".into(),
        round,
        ranks: meets.arrived.iter().map(|rank| rank.0).collect(),
        released: meets.released,
    }
}

pub fn vote(generation: Generation, rank: Rank, vote: u64, last_step: u64) -> v1::StepVote {
    let (job, purpose) = (JOB.into(), v1::StepPurpose::Save.into());
    v1::StepVote { job, generation: generation.0, rank: rank.0, last_step, purpose, vote }
}

/// A rank's process.
pub struct Trainer {
    pub rank: Rank,
    pub node: usize,
    /// Its process, counted; 0: it has not been started.
    pub life: u64,
    pub alive: bool,
    pub session: u64,
    pub place: Place,
    /// The call that it waits for, and since when.
    pub call: Option<(u64, Duration)>,
    /// Of the coordinator's answers.
    pub incarnation: String,
    /// The highest generation it was ever told of.
    pub told: Generation,
    pub step: u64,
    pub round: u64,
    /// Of its step: where it asks whether to save.
    pub boundary: u64,
    pub asks: Asks,
}

/// Where a trainer is in its work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Joining,
    Forming,
    Restoring(Generation),
    Saving(Generation),
    Meeting(Generation),
}

impl Place {
    pub fn generation(self) -> Generation {
        match self {
            Place::Joining | Place::Forming => Generation(0),
            Place::Restoring(generation) | Place::Saving(generation) | Place::Meeting(generation) => {
                generation
            }
        }
    }
}

impl Trainer {
    pub fn new(rank: Rank, node: usize) -> Trainer {
        Trainer {
            rank,
            node,
            life: 0,
            alive: false,
            session: 0,
            place: Place::Joining,
            call: None,
            incarnation: String::new(),
            told: Generation(0),
            step: 0,
            round: 0,
            boundary: 0,
            asks: Asks::default(),
        }
    }

    /// A retry of the same registration has the same key.
    pub fn key(&self) -> String {
        format!("{}-{}", self.rank, self.session)
    }

    pub fn is_known(&self) -> bool {
        self.alive && !self.incarnation.is_empty()
    }
}
