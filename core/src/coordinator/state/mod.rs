//! The replicated part of the coordinator: jobs, datasets, members, generations, commit intents and outcomes, pins,
//! removals, records of rendezvous. `apply(command)` is the only way to change it.
//!
//! Pure: no clock, no IO, no randomness; times, uuids and who is attached come in the command. A command that is
//! refused changes nothing, and only accepted commands are logged, so replay gives the same state byte for byte (P7).

mod agreement;
mod attempts;
mod command;
mod datasets;
mod effect;
mod job;
mod ledger;
mod membership;
mod rendezvous;
mod restores;
mod retention;
mod saves;
mod targets;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

pub use agreement::{Agreed, Purpose};
pub use attempts::{Abandoned, Attempt, AttemptId, Standing};
pub use command::{Command, Findings, Registration};
pub use datasets::{DatasetFile, DatasetRecord, QuarantinedFile};
pub use effect::{Effect, Outcome};
pub use job::{Ended, Job, LostMember, Member, Notice, Open};
pub use ledger::{Ledger, Use};
pub use rendezvous::{Change, Record, RecordWrite, Rendezvous};
pub use restores::{Asked, Resolved};
pub use retention::Removal;
pub use saves::StepRecord;

use crate::error::{Error, Result};
use crate::ids::{ClusterId, JobName};

/// Everything the coordinator must not forget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub cluster: ClusterId,
    pub jobs: BTreeMap<JobName, Job>,
    /// Of launchers' agents; no part of any job.
    #[serde(default, skip_serializing_if = "Rendezvous::is_empty")]
    pub rendezvous: Rendezvous,
}

impl State {
    pub fn new(cluster: ClusterId) -> State {
        State { cluster, jobs: BTreeMap::new(), rendezvous: Rendezvous::default() }
    }

    /// The state as snapshots hold it; equal states encode to equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps have string-like keys and numbers are integers")
    }

    /// The same bytes, as they are made.
    pub fn encode_into(&self, to: impl io::Write) -> io::Result<()> {
        serde_json::to_writer(to, self).map_err(io::Error::from)
    }

    /// Fails with Corrupt when the bytes are no state.
    pub fn decode(bytes: &[u8]) -> Result<State> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("reading the coordinator's snapshot: {error}")))
    }

    /// Applies one command. An error means that nothing changed and that the command must not be logged.
    pub fn apply(&mut self, command: &Command) -> Result<Vec<Effect>> {
        match command {
            Command::Register(registration) => self.register(registration),
            Command::Leave { job, rank, incarnation } => self.job_mut(job)?.leave(job, *rank, incarnation),
            Command::Lose { job, lost, reason } => self.job_mut(job)?.lose(job, lost, reason),
            Command::Begin { id, kind, ranks, bases } => {
                self.job_mut(&id.job)?.begin(id, *kind, ranks, bases)
            }
            Command::PinBases { id, bases } => self.job_mut(&id.job)?.pin_bases(id, bases),
            Command::Abandon { id, kind, reason } => self.job_mut(&id.job)?.abandon(id, kind, reason),
            Command::Intend { id, intent } => self.job_mut(&id.job)?.intend(id, intent),
            Command::Commit { id } => self.job_mut(&id.job)?.commit(id),
            Command::PinStep { job, step, pinned, holder } => {
                self.job_mut(job)?.pin_step(job, *step, *pinned, holder.as_deref())
            }
            Command::IntendRemoval { job, step, force } => {
                self.job_mut(job)?.intend_removal(job, *step, *force)
            }
            Command::Removed { id, committed } => self.job_mut(&id.job)?.removed(id, *committed),
            Command::RemoveLate { id } => Ok(self.job_mut(&id.job)?.remove_late(id)),
            Command::SweepRetired { id } => Ok(self.job_mut(&id.job)?.sweep_late(id)),
            Command::Doom { job, step, targets } => Ok(self.job_mut(job)?.doom(*step, targets)),
            Command::DoomEnded { job, step, target } => Ok(self.job_mut(job)?.end_doom(*step, target)),
            Command::TakeTarget { job, target, url } => Ok(self.job_mut(job)?.take_target(target, url)),
            Command::RegisterDataset { job, spec } => {
                spec.check()?;
                self.jobs.entry(job.clone()).or_default().register_dataset(job, spec)
            }
            Command::Notify { job, step, kind, rank, path, bytes } => {
                self.jobs.entry(job.clone()).or_default().notify(*step, *kind, *rank, path, *bytes);
                Ok(Vec::new())
            }
            Command::ReleaseBarrier { job, generation, name, round } => {
                self.job_mut(job)?.release_barrier(job, *generation, name, *round)
            }
            Command::Resolve { job, generation, resolved } => {
                self.job_mut(job)?.resolve(job, *generation, resolved)
            }
            Command::Decide { job, generation, step, purpose } => {
                self.job_mut(job)?.decide(job, *generation, *purpose, *step)
            }
            Command::Account { job, more } => {
                self.job_mut(job)?.account(more);
                Ok(Vec::new())
            }
            Command::WriteRecord(write) => self.rendezvous.write(write).map(|()| Vec::new()),
        }
    }

    /// Fails with NotFound naming the job.
    pub fn job(&self, name: &JobName) -> Result<&Job> {
        self.jobs.get(name).ok_or_else(|| unknown_job(name, self.jobs.keys()))
    }

    fn job_mut(&mut self, name: &JobName) -> Result<&mut Job> {
        if !self.jobs.contains_key(name) {
            return Err(unknown_job(name, self.jobs.keys()));
        }
        Ok(self.jobs.get_mut(name).expect("looked up above"))
    }
}

fn unknown_job<'a>(name: &JobName, known: impl Iterator<Item = &'a JobName>) -> Error {
    let known: Vec<&str> = known.take(8).map(JobName::as_str).collect();
    let hint = match known.is_empty() {
        true => "no job has been registered with this coordinator yet".to_owned(),
        false => format!("known jobs: {}", known.join(", ")),
    };
    Error::not_found(format!("looking up job {name}: this coordinator does not know it")).hint(hint)
}
