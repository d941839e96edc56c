//! What can happen to the state. Commands are logged as JSON; see `log` for the version of the records.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::agreement::Purpose;
use super::attempts::AttemptId;
use super::datasets::DatasetRecord;
use super::ledger::Ledger;
use super::rendezvous::RecordWrite;
use super::restores::Resolved;
use super::saves::StepRecord;
use crate::format::{CommitRecord, StepKind};
use crate::ids::{Generation, JobName, JobUuid, Rank, SessionId, Step, WorldSize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Register(Box<Registration>),
    Leave {
        job: JobName,
        rank: Rank,
        incarnation: String,
    },
    /// Proof of death or an expired lease, by rank and incarnation: ends the generation that any of them lives in.
    Lose {
        job: JobName,
        lost: BTreeMap<Rank, String>,
        reason: String,
    },
    /// The first a coordinator hears of an attempt; logged so that its bases stay pinned over a restart.
    Begin {
        id: AttemptId,
        kind: StepKind,
        ranks: BTreeSet<Rank>,
        bases: BTreeSet<Step>,
    },
    PinBases {
        id: AttemptId,
        bases: BTreeSet<Step>,
    },
    Abandon {
        id: AttemptId,
        kind: String,
        reason: String,
    },
    Intend {
        id: AttemptId,
        intent: Box<CommitRecord>,
    },
    Commit {
        id: AttemptId,
    },
    PinStep {
        job: JobName,
        step: Step,
        pinned: bool,
        /// Work that needs it meanwhile; None: a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<String>,
    },
    IntendRemoval {
        job: JobName,
        step: Step,
        force: bool,
    },
    Removed {
        id: AttemptId,
        /// Which of the two removals there may be of one attempt: of a step, or of what was given up. None, in logs of
        /// before: both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        committed: Option<bool>,
    },
    /// A COMMIT that nobody waited for any more was written after all, when its step had been removed or given up.
    RemoveLate {
        id: AttemptId,
    },
    /// A step that was committed and removed, or given up, is reported durable: somebody has written objects of it since.
    SweepRetired {
        id: AttemptId,
    },
    /// A further target was listed: its OWNER is there.
    TakeTarget {
        job: JobName,
        target: String,
        url: String,
    },
    /// A person removed a step that these further targets may hold.
    Doom {
        job: JobName,
        step: Step,
        targets: BTreeSet<String>,
    },
    /// That target holds nothing any more that the person meant.
    DoomEnded {
        job: JobName,
        step: Step,
        target: String,
    },
    RegisterDataset {
        job: JobName,
        spec: Box<DatasetRecord>,
    },
    Notify {
        job: JobName,
        step: Step,
        kind: StepKind,
        rank: Rank,
        path: String,
        bytes: u64,
    },
    /// Logged where workers without a sidecar take part: nobody keeps and repeats the outcome for them.
    ReleaseBarrier {
        job: JobName,
        generation: Generation,
        name: String,
        round: u64,
    },
    /// A collective restore's answer.
    Resolve {
        job: JobName,
        generation: Generation,
        resolved: Resolved,
    },
    /// The ranks have agreed on a step. Named as when stopping was all that they agreed on.
    #[serde(rename = "DecidePreemption")]
    Decide {
        job: JobName,
        generation: Generation,
        step: Step,
        #[serde(default, skip_serializing_if = "Purpose::is_stop")]
        purpose: Purpose,
    },
    WriteRecord(Box<RecordWrite>),
    /// What was settled of where the job's time has gone.
    Account {
        job: JobName,
        more: Box<Ledger>,
    },
}

impl Command {
    /// The version of its record: the lowest that knows it, so that an older build reads a log without news in it, and
    /// says which version it wants of one with.
    pub fn version(&self) -> u8 {
        match self {
            Command::PinStep { holder: Some(_), .. } => 2,
            Command::TakeTarget { .. } | Command::Doom { .. } | Command::DoomEnded { .. } => 2,
            Command::Resolve { .. } | Command::SweepRetired { .. } => 3,
            Command::WriteRecord(_) => 4,
            Command::Account { .. } => 5,
            Command::Decide { purpose: Purpose::Save, .. } => 5,
            Command::Register(new) if new.interval_steps > 0 => 5,
            Command::RegisterDataset { spec, .. } if !spec.is_of_numbers_alone() => 6,
            _ => 1,
        }
    }
}

/// One rank that joins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    pub job: JobName,
    pub rank: Rank,
    pub world: WorldSize,
    pub host: String,
    pub address: String,
    /// Its sidecar's node; none for a worker that speaks gRPC itself.
    pub node: Option<String>,
    pub session: SessionId,
    pub store: Option<String>,
    pub token: String,
    /// A retry with the same key is the same registration; empty: none.
    pub key: String,
    pub uid: Option<u32>,
    pub findings: Option<Findings>,
    /// Drawn by the coordinator: names this registration.
    pub incarnation: String,
    /// Drawn by the coordinator: the job's uuid if nothing has given it one.
    pub fresh_uuid: JobUuid,
    /// Pending attempts that every rank of their set has sealed or made durable, as attached sidecars say.
    pub adoptable: BTreeSet<AttemptId>,
    pub unix_ms: u64,
    /// As the coordinator is configured: a generation that this registration opens has it for good.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval_steps: u64,
}

pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What the store's prefix held when a sidecar claimed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    pub uuid: JobUuid,
    pub highest_generation: Generation,
    pub steps: BTreeMap<Step, StepRecord>,
}
