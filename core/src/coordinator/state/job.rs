//! One job: who belongs to it, what it has saved, and the questions that every call asks first (token, fence).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::agreement::Agreed;
use super::attempts::{Abandoned, Attempt, Retired};
use super::command::is_zero;
use super::datasets::DatasetRecord;
use super::ledger::Ledger;
use super::restores::Resolved;
use super::retention::Removal;
use super::saves::StepRecord;
use crate::error::{Error, Result};
use crate::format::StepKind;
use crate::ids::{Generation, JobName, JobUuid, Rank, SessionId, Step, WorldSize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// As OWNER in its store says; drawn by the coordinator for a job without one.
    pub uuid: Option<JobUuid>,
    pub world: WorldSize,
    pub store: Option<String>,
    pub token: Option<String>,
    /// The highest number ever used, here or in the store.
    pub latest: Generation,
    /// Registered for the generation that opens next.
    pub forming: BTreeMap<Rank, Member>,
    pub open: Option<Open>,
    pub last_ended: Option<Ended>,
    /// Committed, and not being removed.
    pub steps: BTreeMap<Step, StepRecord>,
    pub attempts: Vec<Attempt>,
    /// Of the latest generation; an older attempt that is not pending is abandoned by its number alone.
    pub abandoned: Vec<Abandoned>,
    pub removals: Vec<Removal>,
    /// Committed, and removed since: late reports of these begin nothing anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Retired>,
    /// Further targets that were listed before, by name, and where each was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taken: BTreeMap<String, String>,
    /// By target: steps that a person removed, until nothing that was meant is left there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dooms: BTreeMap<String, BTreeSet<Step>>,
    pub datasets: BTreeMap<String, DatasetRecord>,
    pub notices: BTreeMap<Step, Notice>,
    /// Where its time has gone.
    #[serde(default, skip_serializing_if = "Ledger::is_empty")]
    pub ledger: Ledger,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub host: String,
    pub address: String,
    pub node: Option<String>,
    pub session: SessionId,
    pub incarnation: String,
    pub key: String,
    pub uid: Option<u32>,
    /// Said goodbye: ends nothing for the others.
    pub left: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Open {
    pub generation: Generation,
    pub world: WorldSize,
    pub members: BTreeMap<Rank, Member>,
    pub opened_unix_ms: u64,
    pub preempt_at: Option<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save_at: Option<Agreed>,
    /// Its ranks save at every multiple of it; 0: at none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval_steps: u64,
    /// Highest released round by barrier name, where workers without a sidecar take part.
    pub released: BTreeMap<String, u64>,
    /// What its ranks restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restores: Vec<Resolved>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub generation: Generation,
    pub lost: Vec<LostMember>,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LostMember {
    pub rank: Rank,
    pub node: Option<String>,
    pub host: String,
}

/// A checkpoint made elsewhere, told for look-up: by rank, its path and bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub kind: StepKind,
    pub parts: BTreeMap<Rank, (String, u64)>,
}

/// Notices kept per job; the oldest steps go first.
const NOTICES_KEPT: usize = 1000;

impl Open {
    /// Members that have not said goodbye, ascending.
    pub fn living(&self) -> impl Iterator<Item = (Rank, &Member)> {
        self.members.iter().filter(|(_, member)| !member.left).map(|(rank, member)| (*rank, member))
    }
}

impl Job {
    /// Refuses callers of any other generation than the open one (P6), naming who was lost.
    pub fn fence(&self, job: &JobName, generation: Generation) -> Result<&Open> {
        match &self.open {
            Some(open) if open.generation == generation => Ok(open),
            _ => Err(self.fenced(job, generation)),
        }
    }

    pub fn fenced(&self, job: &JobName, generation: Generation) -> Error {
        let why = match &self.last_ended {
            Some(ended) if ended.generation == generation => format!("it has ended: {}", ended.reason),
            _ if generation.0 == 0 => "the caller belongs to none yet".to_owned(),
            _ if generation > self.latest => "it has never been opened".to_owned(),
            _ => "it has ended".to_owned(),
        };
        Error::fenced(format!("calling as a member of generation {generation} of job {job}: {why}"))
            .hint("restart this rank, or join again (in Python: call strata.connect again)")
    }

    /// Refuses a caller without the job's token, where it has one.
    pub fn check_token(&self, job: &JobName, token: &str) -> Result<()> {
        match &self.token {
            Some(expected) if expected != token => {
                Err(Error::denied(format!("calling as a member of job {job}: the token is not the job's"))
                    .hint("set STRATA_TOKEN to the token that the job was first registered with, or use another job name"))
            }
            _ => Ok(()),
        }
    }

    /// The member of the open generation or the registration for the next one that carries this incarnation.
    pub fn by_incarnation(&self, rank: Rank, incarnation: &str) -> Option<&Member> {
        let open = self.open.as_ref().and_then(|open| open.members.get(&rank));
        [open, self.forming.get(&rank)].into_iter().flatten().find(|member| member.incarnation == incarnation)
    }

    /// Of the open generation and of the next one.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.open.iter().flat_map(|open| open.members.values()).chain(self.forming.values())
    }

    /// An earlier registration with the same idempotency key.
    pub fn by_key(&self, rank: Rank, key: &str) -> Option<&Member> {
        let open = self.open.as_ref().and_then(|open| open.members.get(&rank)).filter(|member| !member.left);
        [open, self.forming.get(&rank)]
            .into_iter()
            .flatten()
            .find(|member| !key.is_empty() && member.key == key)
    }

    /// Ranks that the next generation waits for.
    pub fn missing(&self) -> Vec<Rank> {
        (0..self.world.0).map(Rank).filter(|rank| !self.forming.contains_key(rank)).collect()
    }

    /// The newest committed step that holds the whole state.
    pub fn newest_whole(&self) -> Option<Step> {
        self.steps.iter().rev().find(|(_, step)| step.kind.holds_whole_state()).map(|(number, _)| *number)
    }

    pub(super) fn notify(&mut self, step: Step, kind: StepKind, rank: Rank, path: &str, bytes: u64) {
        let notice = self.notices.entry(step).or_insert_with(|| Notice { kind, parts: BTreeMap::new() });
        notice.kind = kind;
        notice.parts.insert(rank, (path.to_owned(), bytes));
        while self.notices.len() > NOTICES_KEPT {
            self.notices.pop_first();
        }
    }
}
