//! What trainers are asked to tell of themselves, and have told. Only what was asked for is kept, until it is fetched.

use std::collections::BTreeMap;

use super::super::process::ProcessId;
use super::State;
use crate::ids::{JobName, Rank, SessionId};
use crate::proto::v1::{self, session_event::Event};

/// The stack, or why there is none.
pub(in super::super) type Answer = Result<String, String>;

#[derive(Default)]
pub(in super::super) struct Stacks(BTreeMap<(SessionId, u64), Option<Answer>>);

/// Where a rank's session is.
pub(in super::super) struct Found {
    pub session: SessionId,
    pub process: Option<ProcessId>,
}

impl State {
    /// The session of a rank that is a member; the newest, where an older one has yet to be given up.
    pub fn session_of(&self, job: &str, rank: u32) -> Option<Found> {
        let job: JobName = job.parse().ok()?;
        let of_rank = self.sessions.values().filter(|session| {
            session.record.job == job && session.record.rank == Rank(rank) && session.is_member()
        });
        let newest = of_rank.max_by_key(|session| session.record.joining)?;
        Some(Found { session: newest.record.id, process: newest.record.process })
    }

    /// Asks a trainer; Err says why it can't be.
    pub fn ask_stack(&mut self, id: SessionId, request: u64) -> Result<(), String> {
        let session = self.sessions.get_mut(&id).ok_or("its session has ended")?;
        if session.dying {
            return Err("its process is ending".to_owned());
        }
        if session.events.is_none() {
            return Err("it is not connected to its sidecar".to_owned());
        }
        if !session.takes_stacks {
            return Err("its client can't take one: it is older, or no Python".to_owned());
        }
        session.push(Event::TakeStack(v1::TakeStackEvent { request }));
        self.stacks.0.insert((id, request), None);
        Ok(())
    }

    /// An answer that nobody waits for is dropped.
    pub fn stack_answered(&mut self, id: SessionId, request: u64, answer: Answer) {
        if let Some(open) = self.stacks.0.get_mut(&(id, request)) {
            *open = Some(answer);
        }
    }

    pub fn take_stack(&mut self, id: SessionId, request: u64) -> Option<Answer> {
        let answer = self.stacks.0.get_mut(&(id, request))?.take()?;
        self.stacks.0.remove(&(id, request));
        Some(answer)
    }

    /// It has not answered in time.
    pub fn give_up_stack(&mut self, id: SessionId, request: u64) {
        self.stacks.0.remove(&(id, request));
    }
}
