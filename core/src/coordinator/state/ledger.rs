//! Where a job's time has gone, as far as it is settled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::ids::Step;

/// What a second of a job was spent on. A job's ranks train in step, so it is the job's second, not a rank's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Steps that nobody had made before.
    Productive,
    /// From the first rank that joins to the first step.
    Start,
    /// A rank was lost, and nobody knew.
    Detection,
    /// The others were told, and have yet to end.
    Fencing,
    /// Processes start, and get ready for their first step.
    Restart,
    /// From the first rank that joins after a loss until all have.
    Reassignment,
    Restore,
    /// Steps that had been made before, and were lost.
    Replay,
    /// Training held by `save`, by a fence, or by waiting for a commit.
    Save,
    /// A step took many times as long as is usual.
    Stall,
}

impl Use {
    pub const ALL: [Use; 10] = [
        Use::Productive,
        Use::Start,
        Use::Detection,
        Use::Fencing,
        Use::Restart,
        Use::Reassignment,
        Use::Restore,
        Use::Replay,
        Use::Save,
        Use::Stall,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Use::Productive => "productive",
            Use::Start => "start",
            Use::Detection => "detection",
            Use::Fencing => "fencing",
            Use::Restart => "restart",
            Use::Reassignment => "reassignment",
            Use::Restore => "restore",
            Use::Replay => "replay",
            Use::Save => "save",
            Use::Stall => "stall",
        }
    }
}

/// Sums over a job's life, in milliseconds. Time in which no generation was open, and none was lost, is in none of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    pub since_unix_ms: u64,
    pub until_unix_ms: u64,
    pub spent: BTreeMap<Use, u64>,
    /// Generations that ended because a rank was lost.
    pub losses: u64,
    /// Steps that were committed.
    pub saves: u64,
    /// The highest step that any rank had reached when it was lost: what is made again below it is replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Step>,
}

impl Ledger {
    pub fn is_empty(&self) -> bool {
        *self == Ledger::default()
    }
}

impl Job {
    /// Adds what was settled since.
    pub(super) fn account(&mut self, more: &Ledger) {
        let ledger = &mut self.ledger;
        if ledger.is_empty() {
            ledger.since_unix_ms = more.since_unix_ms;
        }
        ledger.until_unix_ms = more.until_unix_ms;
        for (what, milliseconds) in &more.spent {
            *ledger.spent.entry(*what).or_default() += milliseconds;
        }
        ledger.losses += more.losses;
        ledger.saves += more.saves;
        ledger.reached = ledger.reached.max(more.reached);
    }
}
