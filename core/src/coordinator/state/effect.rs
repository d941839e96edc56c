//! What a command causes outside. Effects leave the coordinator only after their command is durable.

use super::agreement::Purpose;
use super::attempts::AttemptId;
use super::job::Ended;
use crate::ids::{Generation, JobName, Rank};

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    GenerationOpened {
        job: JobName,
    },
    GenerationEnded {
        job: JobName,
        ended: Ended,
    },
    RegistrationLost {
        job: JobName,
        rank: Rank,
        incarnation: String,
        reason: String,
    },
    /// Publish the COMMIT of this attempt.
    WriteCommit {
        id: AttemptId,
    },
    StepOutcome {
        id: AttemptId,
        outcome: Outcome,
    },
    /// Delete this attempt's objects.
    Remove {
        id: AttemptId,
    },
    Removed {
        id: AttemptId,
    },
    BarrierReleased {
        job: JobName,
        generation: Generation,
        name: String,
        round: u64,
    },
    /// The step is the newest of its purpose in the job's open generation.
    Agreed {
        job: JobName,
        generation: Generation,
        purpose: Purpose,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Committed,
    Adopted,
    Abandoned { kind: String, reason: String },
}
