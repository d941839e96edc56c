//! What goes into and comes out of the engine.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::format::{Attempt, CommitRecord};
use crate::ids::{Generation, JobUuid, Rank, Step, WorldSize};
use crate::proto::format::SlotIndex;
use crate::proto::v1;

use super::{NodeShare, SlotSums};

/// Whether attach may take a prefix that another cluster owns (`--take-over-store`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    No,
    Yes,
}

/// For whom a prefix is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// What the process may reach is its user's: the store's own permissions decide.
    Own { uid: u32 },
    /// A user served by a process that may reach what is not theirs: only their own prefix is given to them; root's
    /// trainers get any.
    Served { uid: u32 },
}

impl Claimant {
    pub fn uid(self) -> u32 {
        match self {
            Claimant::Own { uid } | Claimant::Served { uid } => uid,
        }
    }
}

/// What attach found under `<store>/<job>`.
#[derive(Debug)]
pub struct Attached {
    pub job_uuid: JobUuid,
    /// Highest generation named by any COMMIT or attempt folder; 0 when there is none.
    pub highest_generation: Generation,
    /// Ascending.
    pub steps: Vec<ListedStep>,
}

/// A step that has a COMMIT object. A damaged COMMIT is an error of kind Corrupt here, never an absent step.
#[derive(Clone, Debug)]
pub struct ListedStep {
    pub step: Step,
    pub commit: Result<Commit>,
}

/// A COMMIT and the hash of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub record: CommitRecord,
    pub blake3: String,
}

impl Commit {
    pub fn to_proto(&self) -> v1::StepInfo {
        self.record.to_proto(&self.blake3)
    }
}

/// All ranks of one node that take part in an attempt.
pub struct PersistRequest {
    pub attempt: Attempt,
    pub world_size: WorldSize,
    /// In any order, each rank once.
    pub ranks: Vec<RankSlot>,
    /// Which replicated tensors this node stores.
    pub replicated: NodeShare,
}

/// One rank's sealed slot.
pub struct RankSlot {
    pub rank: Rank,
    /// The slot's data, straight from the arena (`Bytes::from_owner` keeps the mapping alive). Must not change until
    /// persist returns: a change is found and reported as Corrupt.
    pub data: Bytes,
    pub index: SlotIndex,
    /// What every byte stored is compared with.
    pub sums: Arc<SlotSums>,
    /// INCREMENTAL: the committed step whose equal chunks are referred to instead of stored again, and to which others are
    /// stored as differences.
    pub base: Option<BaseSlot>,
}

impl RankSlot {
    /// A slot that nobody has summed yet, without a base. Invalid when its tensors break the layout.
    pub fn new(rank: Rank, data: Bytes, index: SlotIndex) -> Result<RankSlot> {
        let sums = Arc::new(SlotSums::untaken(&index, data.len() as u64)?);
        Ok(RankSlot { rank, data, index, sums, base: None })
    }
}

/// The base of an INCREMENTAL save.
pub struct BaseSlot {
    /// Must be committed.
    pub step: Step,
    /// Its bytes, while its slot is still there and leased; otherwise candidates are read back from the store.
    pub slot: Option<(Bytes, SlotIndex)>,
}

/// A rank's part of an attempt, durable under its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    pub rank: Rank,
    /// Below `<store>/<job>`.
    pub manifest_path: String,
    pub blake3: String,
    /// Length of the manifest object.
    pub bytes: u64,
    /// Of the rank's state.
    pub state_bytes: u64,
    /// Pack bytes newly written for this rank.
    pub stored_bytes: u64,
}

/// A step that was copied to another place.
#[derive(Clone, Debug)]
pub struct Copied {
    pub commit: Commit,
    /// Of packs that were not there yet.
    pub bytes: u64,
}

/// What a further target of a job holds.
#[derive(Debug)]
pub struct Surveyed {
    /// Ascending.
    pub steps: Vec<ListedStep>,
    /// Of which there are objects and no COMMIT: what a copy that was given up left, or packs that steps refer to.
    pub uncommitted: Vec<(Step, Generation)>,
}

/// Whether a repair writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairMode {
    /// Only says what it would.
    DryRun,
    Write,
}

/// An object that is missing or not what was written.
#[derive(Clone, Debug)]
pub struct Fault {
    /// URL of the store.
    pub place: String,
    pub object: String,
    pub problem: String,
    pub mending: Mending,
}

/// What came of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mending {
    Done,
    /// It would be, but for a dry run.
    Possible,
    /// Why not.
    Lost(String),
}

/// What a repair found in one step.
#[derive(Debug)]
pub struct Mended {
    pub faults: Vec<Fault>,
    pub read: Report,
}

/// What verify read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub objects: u64,
    pub chunks: u64,
    pub bytes: u64,
}

/// One step as `inspect` and `strata checkpoints show` tell it.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub commit: Commit,
    pub tensors: Vec<TensorInfo>,
    /// What `changed` is counted from: the step before, if there is one and it can be read.
    pub before: Option<Step>,
    pub encodings: Vec<EncodingInfo>,
}

/// A tensor of one rank; a replicated one is listed once, under the lowest rank that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub rank: Rank,
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub bytes: u64,
    pub replicated: bool,
    /// Bytes in chunks that the step before did not hold; None where there is none to compare with.
    pub changed: Option<u64>,
    /// All its bytes, in order.
    pub pieces: Vec<Piece>,
}

/// Where a part of a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// From the tensor's first byte.
    pub at: u64,
    pub bytes: u64,
    /// `raw`, `planes`, `delta` or `rounded`.
    pub encoding: &'static str,
    /// RAW: the very bytes; else the chunk that they are decoded from. None for ROUNDED: nothing is stored.
    pub stored: Option<Run>,
    /// What a delta is to.
    pub base: Option<Run>,
}

/// Bytes of an object of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub object: String,
    pub offset: u64,
    pub bytes: u64,
}

/// What one way of storing chunks holds, over all ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodingInfo {
    pub name: &'static str,
    pub state_bytes: u64,
    /// Each stored run once.
    pub stored_bytes: u64,
    /// Of `stored_bytes`, in objects of older steps.
    pub older_bytes: u64,
}

impl EncodingInfo {
    pub(super) fn new(name: &'static str) -> EncodingInfo {
        EncodingInfo { name, state_bytes: 0, stored_bytes: 0, older_bytes: 0 }
    }
}
