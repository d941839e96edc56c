//! One trainer's session: its record, its process, its event stream.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::Status;

use super::super::records::SessionRecord;
use crate::error::Error;
use crate::handoff::life::LifeWatch;
use crate::ids::Generation;
use crate::proto::lost_names;
use crate::proto::v1::{self, session_event::Event};

/// Events queued for a trainer that does not read; beyond that its stream is cut and it takes the session up anew.
pub(in super::super) const EVENTS: usize = 1024;

pub(in super::super) struct Session {
    pub record: SessionRecord,
    pub token: String,
    /// Proves the death of its process; None: nothing can.
    pub pidfd: Option<Arc<OwnedFd>>,
    /// Tells that its process is ending, long before the pidfd does where there is much memory to free.
    pub life: Option<LifeWatch>,
    /// It has told so.
    pub dying: bool,
    pub events: Option<Events>,
    /// It answers when it is asked what it is doing.
    pub takes_stacks: bool,
    /// Its generation has ended.
    pub fenced: Option<Error>,
    ended: Option<v1::Fenced>,
}

/// An open stream. `id` tells a newer one from the one it replaced.
pub(in super::super) struct Events {
    pub id: u64,
    pub send: mpsc::Sender<Result<v1::SessionEvent, Status>>,
}

impl Session {
    pub fn new(record: SessionRecord, token: String, pidfd: Option<Arc<OwnedFd>>) -> Session {
        Session {
            record,
            token,
            pidfd,
            life: None,
            dying: false,
            events: None,
            takes_stacks: false,
            fenced: None,
            ended: None,
        }
    }

    /// Whether we say at the coordinator that it lives: nothing but its process's death ends what we can watch; without
    /// that only its open stream speaks for it.
    pub fn is_vouched_for(&self) -> bool {
        self.is_member() && !self.dying && (self.pidfd.is_some() || self.events.is_some())
    }

    /// It belongs to a generation that has not ended, or to the next one.
    pub fn is_member(&self) -> bool {
        !self.record.closed && self.fenced.is_none()
    }

    /// What its rank says of itself; None before it has said anything.
    pub fn progress(&self) -> Option<v1::Progress> {
        let life = self.life.as_ref()?;
        let (line, spent) = (life.progress()?, life.spent());
        Some(v1::Progress {
            rank: self.record.rank.0,
            step: line.step.0,
            phase: line.phase.into(),
            age_ms: line.age.as_millis() as u64,
            saving_ms: spent.saving.as_millis() as u64,
            restoring_ms: spent.restoring.as_millis() as u64,
        })
    }

    /// It belongs to a generation that has ended, and its process is still there.
    pub fn is_ending(&self) -> bool {
        self.fenced.is_some() && !self.record.closed && !self.dying && self.pidfd.is_some()
    }

    /// As calls at the coordinator name it.
    pub fn caller(&self) -> v1::Caller {
        v1::Caller {
            job: self.record.job.to_string(),
            generation: self.generation().0,
            rank: self.record.rank.0,
            token: self.token.clone(),
        }
    }

    /// That it has joined; 0 before that.
    pub fn generation(&self) -> Generation {
        self.record.generation.unwrap_or_default()
    }

    pub fn push(&mut self, event: Event) {
        let Some(events) = &self.events else { return };
        let event = v1::SessionEvent { event: Some(event) };
        if events.send.try_send(Ok(event)).is_err() {
            self.events = None;
        }
    }

    pub fn fence(&mut self, ended: v1::GenerationEnded) {
        if self.fenced.is_some() {
            return;
        }
        let v1::GenerationEnded { generation, lost, reason, lost_count, .. } = ended;
        let who = lost_names(&lost, lost_count);
        let job = &self.record.job;
        self.fenced = Some(
            Error::fenced(format!(
                "working in generation {generation} of job {job}: it has ended, lost: {who} ({reason})"
            ))
            .hint(
                "call strata.connect again to join the next generation, or end this process for its launcher to restart",
            ),
        );
        let fenced = v1::Fenced { generation, lost, reason, lost_count };
        self.ended = Some(fenced.clone());
        self.push(Event::Fenced(fenced));
    }

    /// What a stream that was taken up again may have missed, the steps apart.
    pub fn push_again(&mut self) {
        if let Some(ended) = self.ended.clone() {
            self.push(Event::Fenced(ended));
        }
    }
}
