//! Restoring: the sidecar brings the rank's part of a step into a slot, verified, and leases it to us.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::interrupt::Interrupt;
use super::lease::Lease;
use super::session::{Inner, Session, milliseconds};
use crate::error::{Error, Kind, Result};
use crate::handoff::{CopyOut, PrivateMapping, SlotReader, default_threads};
use crate::ids::Step;
use crate::proto::format::{SlotIndex, Tensor};
use crate::proto::v1::{self, RankPhase, RestoreReply, RestoreSource, StepInfo};

/// Which step to restore, and what of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreOptions {
    /// None: the newest that holds the whole state, the same on all ranks.
    pub step: Option<Step>,
    pub source: RestoreSource,
    /// Fall back to the step before a damaged one, all ranks alike.
    pub fall_back: bool,
    /// Glob over tensor names; empty: all.
    pub only: String,
    pub timeout: Option<Duration>,
}

impl Default for RestoreOptions {
    fn default() -> RestoreOptions {
        RestoreOptions {
            step: None,
            source: RestoreSource::Committed,
            fall_back: false,
            only: String::new(),
            timeout: None,
        }
    }
}

/// A rank's part of a step, in a leased slot: verified bytes, that stay until this is dropped.
pub struct RestoredSlot {
    _lease: Lease,
    /// Views may outlive the session, and keep it from being given up if they held it.
    session: Weak<Inner>,
    reply: RestoreReply,
    step: Step,
    reader: SlotReader,
    index: SlotIndex,
}

impl Session {
    /// None when the job has no such step yet. Collective: every rank calls. NotFound for a named step that does not
    /// exist; Corrupt, naming the object, when bytes are damaged and `fall_back` is off.
    pub fn restore(
        &self,
        options: &RestoreOptions,
        interrupt: &dyn Interrupt,
    ) -> Result<Option<RestoredSlot>> {
        let inner = self.own()?;
        inner.hurry_mapped();
        let timeout = options.timeout.unwrap_or_else(|| self.default_timeout());
        let asked = RestoreOptions { timeout: None, ..options.clone() };
        let gave_up = inner.state.borrow().restoring.as_ref().is_some_and(|last| *last != asked);
        if gave_up {
            // The others are past that one, or give it up too: to repeat its round would bring what it asked for.
            inner.restore_rounds.fetch_add(1, Ordering::Relaxed);
        }
        let round = inner.restore_rounds.load(Ordering::Relaxed);
        let request = v1::RestoreRequest {
            session: 0,
            round,
            step: options.step.map(|step| step.0),
            source: options.source as i32,
            fall_back: options.fall_back,
            only: options.only.clone(),
            timeout_ms: milliseconds(timeout),
        };
        inner.at(None, RankPhase::Restoring);
        let outcome = self.block(
            "restoring",
            timeout,
            interrupt,
            inner.caller.call(|mut client, session| {
                let request = v1::RestoreRequest { session, ..request.clone() };
                async move { client.restore(request).await }
            }),
        );
        let restored = outcome.as_ref().ok().and_then(|reply| reply.step).map(Step);
        inner.at(restored, RankPhase::Training);
        // Only a call that may simply be made again repeats its round.
        let again = outcome.as_ref().is_err_and(|error| {
            matches!(error.kind, Kind::Timeout | Kind::Unavailable | Kind::Overloaded | Kind::Cancelled)
        });
        if !again {
            inner.restore_rounds.store(round + 1, Ordering::Relaxed);
        }
        inner.state.send_if_modified(|state| {
            state.restoring = again.then_some(asked);
            false
        });
        let reply = outcome.map_err(with_a_way_out)?;
        let Some(step) = reply.step else { return Ok(None) };
        let lease = Lease::new(inner, reply.lease);
        let opened = inner.arenas.use_file(Path::new(&reply.arena)).and_then(|view| {
            // The sidecar may have made the arena for this very step: the first save wants its other slots.
            view.populate_in_background();
            let reader = view.reader(reply.slot)?;
            let index = reader.index()?;
            Ok((reader, index))
        });
        match opened {
            Ok((reader, index)) => {
                let session = Arc::downgrade(inner);
                Ok(Some(RestoredSlot { _lease: lease, session, reply, step: Step(step), reader, index }))
            }
            Err(error) => Err(error.while_doing(format!("restoring step {step}"))),
        }
    }
}

/// What found the damage can't know what its caller may do about it.
fn with_a_way_out(error: Error) -> Error {
    match error.kind {
        Kind::Corrupt if error.hint.is_none() => error.hint(
            "on_damage=\"previous\" falls back to the step before; \"strata checkpoints verify\" reads them all",
        ),
        _ => error,
    }
}

impl RestoredSlot {
    pub fn step(&self) -> Step {
        self.step
    }

    /// False for a step that is only staged, on all ranks.
    pub fn committed(&self) -> bool {
        self.reply.committed
    }

    /// `arena` or `store`.
    pub fn source(&self) -> &str {
        &self.reply.source
    }

    pub fn info(&self) -> Option<&StepInfo> {
        self.reply.info.as_ref()
    }

    /// That this very step was read from a further target, and why.
    pub fn notes(&self) -> &[String] {
        &self.reply.notes
    }

    /// What was found damaged before falling back.
    pub fn damaged(&self) -> &[String] {
        &self.reply.damaged
    }

    /// The nested state, tensors replaced by their numbers.
    pub fn tree(&self) -> &[u8] {
        &self.index.tree
    }

    pub fn tensors(&self) -> &[Tensor] {
        &self.index.tensors
    }

    /// A tensor's bytes where they lie. Invalid for one that is not in the slot.
    pub fn bytes(&self, number: usize) -> Result<&[u8]> {
        let missing = || Error::invalid(format!("reading restored tensor {number}: it is not in the slot"));
        let tensor = self.index.tensors.get(number).filter(|tensor| tensor.staged).ok_or_else(missing)?;
        let end = tensor.offset.checked_add(tensor.bytes).ok_or_else(missing)?;
        self.reader.data().get(tensor.offset as usize..end as usize).ok_or_else(missing)
    }

    pub(super) fn session(&self) -> Option<Arc<Inner>> {
        self.session.upgrade()
    }

    pub(super) fn map_private(&self, used: &[Range<u64>]) -> Result<PrivateMapping> {
        self.reader.map_private(used)
    }

    /// Copies tensors, each a number and where its bytes go, with several threads. Invalid, before a byte is written,
    /// for a tensor that is not in the slot.
    ///
    /// # Safety
    /// Every target is writable for its tensor's bytes until this returns, and targets overlap nothing.
    pub unsafe fn copy_out(&self, targets: &[(usize, *mut u8)], threads: Option<usize>) -> Result<()> {
        let copy = |(number, target): &(usize, *mut u8)| {
            let bytes = self.bytes(*number)?.len() as u64;
            Ok(CopyOut { target: *target, bytes, offset: self.index.tensors[*number].offset })
        };
        let copies = targets.iter().map(copy).collect::<Result<Vec<CopyOut>>>()?;
        // SAFETY: as the caller vouches.
        unsafe { self.reader.copy_out(&copies, threads.unwrap_or_else(default_threads)) }
    }
}
