//! One engine's time: from the entry that begins it until this coordinator no longer leads, or can't tell.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::ClientWriteError;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::state::{Command, State};
use super::entry::{Outcome, Payload, Records};
use super::phase::Phase;
use super::seat::{Seat, Standing};
use super::{ALONE, LEASE};
use crate::error::{Error, Result};
use crate::ids::ClusterId;

const LOOK: Duration = Duration::from_millis(50);

/// The durable side of an engine that runs on a set's leader.
pub struct Reign {
    seat: Arc<Seat>,
    /// Index of the entry that began it.
    number: u64,
    term: u64,
}

fn ended(why: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("leading the set: {why}"))
        .hint("ask again: another coordinator leads, or will soon")
}

impl Reign {
    /// Waits until this coordinator leads, and everything decided before is in the state. None: it was stopped.
    pub async fn begin(seat: &Arc<Seat>, stop: &CancellationToken) -> Result<Option<(Reign, State)>> {
        loop {
            if let Some(term) = seat.leading_term()
                && seat.obeyed(term).is_some_and(|age| age < LEASE)
            {
                match Reign::of(seat, term).await {
                    Ok(Some(begun)) => return Ok(Some(begun)),
                    Ok(None) => {}
                    Err(error) => tracing::info!("{}", error.message),
                }
            }
            seat.look();
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn of(seat: &Arc<Seat>, term: u64) -> Result<Option<(Reign, State)>> {
        let mut reign = Reign { seat: seat.clone(), number: 0, term };
        let (number, _) = reign.write(Payload::Reign { fresh: ClusterId::new() }).await?;
        reign.number = number;
        let Some(state) = seat.replica.state_of(number) else { return Ok(None) };
        if seat.phase.get() == Some(Phase::Founding) {
            // Before anything is acknowledged: from now on an empty home is one that was lost.
            seat.phase.set(Phase::Founded)?;
        }
        Ok(Some((reign, state)))
    }

    /// Callers are let in.
    pub fn open(&self) {
        self.seat.stands(Standing::Leads);
    }

    /// Makes these commands durable on a majority, in order, all or none. Unavailable when this coordinator's reign has ended, or
    /// no majority answers: whether they are is not known then.
    pub async fn append(&self, commands: &[Command]) -> Result<()> {
        let records = Records::encode(commands);
        match self.write(Payload::Batch { reign: self.number, records }).await? {
            (_, Outcome::Applied) => Ok(()),
            (_, Outcome::Superseded) => Err(ended("another reign has begun")),
        }
    }

    async fn write(&self, payload: Payload) -> Result<(u64, Outcome)> {
        let raft = self.seat.raft.get().ok_or_else(|| ended("it has not begun"))?;
        let mut written = std::pin::pin!(raft.client_write(payload));
        loop {
            tokio::select! {
                done = &mut written => return match done {
                    Ok(done) => Ok((done.log_id.index, done.data)),
                    Err(error) => Err(ended(match error.api_error() {
                        Some(ClientWriteError::ForwardToLeader(_)) => "another one leads".to_owned(),
                        _ => error.to_string(),
                    })),
                },
                () = sleep(LOOK) => self.unless_alone()?,
            }
        }
    }

    fn unless_alone(&self) -> Result<()> {
        if !self.seat.is_leader_of(self.term) {
            return Err(ended("its term is over"));
        }
        match self.seat.obeyed(self.term) {
            Some(age) if age < ALONE => Ok(()),
            _ => Err(ended("no majority of the set answers")),
        }
    }

    /// Whether what the engine has to say may leave: nobody else can lead at this moment. Asks the others where it is not known.
    pub async fn confirm(&self, has_answers: bool) -> Result<()> {
        loop {
            self.unless_alone()?;
            if !has_answers || self.seat.obeyed(self.term).is_some_and(|age| age < LEASE) {
                return Ok(());
            }
            let raft = self.seat.raft.get().ok_or_else(|| ended("it has not begun"))?;
            if let Ok(Ok(_)) = timeout(ALONE, raft.ensure_linearizable()).await
                && self.seat.is_leader_of(self.term)
            {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }
}
