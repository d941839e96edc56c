//! Saving: plan, ask for a slot. What is copied when is [`Staging`]'s affair; here everything at once.

use std::time::{Duration, Instant};

use prost::Message;

use super::handle::{SaveHandle, SaveStats};
use super::interrupt::Interrupt;
use super::session::{Inner, Session};
use super::staging::Staging;
use super::state::Outcome;
use crate::error::{Error, Kind, Result};
use crate::handoff::CopyIn;
use crate::handoff::default_threads;
use crate::handoff::plan::{SlotLayout, TensorSpec, layout};
use crate::ids::Step;
use crate::proto::format::{SlotIndex, Tensor};
use crate::proto::v1;

/// One dense buffer of the caller's memory.
#[derive(Clone, Debug)]
pub struct SourceTensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub pointer: *const u8,
    pub bytes: u64,
    /// Equal on all ranks.
    pub replicated: bool,
}

/// A state to save.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    pub step: Step,
    pub kind: v1::SaveKind,
    /// The nested state with tensors replaced by their numbers.
    pub tree: Vec<u8>,
    pub tensors: Vec<SourceTensor>,
    /// Ranks that save; empty: all.
    pub ranks: Vec<u32>,
    pub data: Vec<v1::DataPosition>,
    pub metrics_json: String,
    pub meta_json: String,
}

/// What a slot must hold for a state: the argument of [`Session::prepare`].
pub fn slot_bytes(tree: &[u8], tensors: &[SourceTensor]) -> u64 {
    let plan = Plan::new(tensors, true);
    plan.layout.slot_bytes(plan.index(tree.to_vec(), tensors).encoded_len() as u64)
}

/// A layout of those tensors that this rank stages.
pub(super) struct Plan {
    pub staged: Vec<bool>,
    pub layout: SlotLayout,
}

impl Plan {
    fn new(tensors: &[SourceTensor], stage_replicated: bool) -> Plan {
        let staged: Vec<bool> = tensors.iter().map(|tensor| stage_replicated || !tensor.replicated).collect();
        let spec = |(tensor, staged): (&SourceTensor, &bool)| TensorSpec {
            name: tensor.name.clone(),
            bytes: if *staged { tensor.bytes } else { 0 },
            replicated: tensor.replicated,
        };
        let specs: Vec<TensorSpec> = tensors.iter().zip(&staged).map(spec).collect();
        Plan { staged, layout: layout(&specs) }
    }

    pub fn index(&self, tree: Vec<u8>, tensors: &[SourceTensor]) -> SlotIndex {
        let place = |number: usize| Tensor {
            name: tensors[number].name.clone(),
            dtype: tensors[number].dtype.clone(),
            shape: tensors[number].shape.clone(),
            offset: self.layout.offsets[number],
            bytes: tensors[number].bytes,
            replicated: tensors[number].replicated,
            staged: self.staged[number],
        };
        SlotIndex { tree, tensors: (0..tensors.len()).map(place).collect(), ..SlotIndex::default() }
    }

    /// One for each tensor, of no bytes where another rank stages it.
    pub fn copies(&self, tensors: &[SourceTensor]) -> Vec<CopyIn> {
        let places = self.staged.iter().zip(&self.layout.offsets);
        let copy = |(tensor, (staged, offset)): (&SourceTensor, (&bool, &u64))| CopyIn {
            source: tensor.pointer,
            bytes: if *staged { tensor.bytes } else { 0 },
            offset: *offset,
        };
        tensors.iter().zip(places).map(copy).collect()
    }
}

impl Session {
    /// Copies the state into a slot and seals it: returns when the tensors may change (staged), milliseconds per GB,
    /// not when the step is durable. As [`Session::begin_save`] otherwise.
    ///
    /// # Safety
    /// Every tensor's pointer is readable for its bytes until this returns, and nothing writes there meanwhile.
    pub unsafe fn save(&self, request: SaveRequest, interrupt: &dyn Interrupt) -> Result<SaveHandle> {
        let all: Vec<usize> = (0..request.tensors.len()).collect();
        let staging = self.begin_save(request, interrupt)?;
        // SAFETY: the sources are as the caller vouches.
        let copied = unsafe { staging.copy(&all, default_threads()) };
        copied.and_then(|()| staging.seal()).or_else(|error| staging.give_up(error, interrupt))?;
        Ok(staging.handle())
    }

    /// Takes a slot for the state, which the caller then copies into it and seals. A node without a free slot skips the
    /// step: the handle says so, training goes on. Overloaded when memory is short for the arena. Collective: every rank
    /// of `ranks` calls with the same step.
    pub fn begin_save(&self, mut request: SaveRequest, interrupt: &dyn Interrupt) -> Result<Staging> {
        let doing = format!("saving step {}", request.step);
        let inner = self.own()?;
        let started = Instant::now();
        inner.hurry_mapped();
        let full = Plan::new(&request.tensors, true);
        let index = full.index(std::mem::take(&mut request.tree), &request.tensors);
        let has_replicated = request.tensors.iter().any(|tensor| tensor.replicated);
        let private = has_replicated.then(|| Plan::new(&request.tensors, false));
        let plans = [&full, private.as_ref().unwrap_or(&full)];
        let begin = begin_request(&mut request, plans, &index, has_replicated);
        let granted = self.block(
            &doing,
            self.default_timeout(),
            interrupt,
            inner.caller.call(|mut client, session| {
                let begin = v1::BeginSaveRequest { session, ..begin.clone() };
                async move { client.begin_save(begin).await }
            }),
        );
        let granted = match granted {
            Ok(granted) => granted,
            Err(error) if error.kind == Kind::Overloaded && error.retry_after.is_some() => {
                inner.state.send_modify(|state| state.settle(request.step, Outcome::Skipped(error)));
                return Ok(Staging::nothing(self.clone(), request.step, SaveStats::default()));
            }
            Err(error) => {
                // Given up here, a slot may be granted all the same, and the other ranks wait for us.
                if matches!(error.kind, Kind::Timeout | Kind::Cancelled) {
                    abandon(inner, request.step, &error);
                }
                return Err(error.while_doing(doing));
            }
        };
        let stats = SaveStats { waited: started.elapsed(), ..SaveStats::default() };
        if !granted.stage {
            inner.state.send_modify(|state| state.staged(request.step));
            return Ok(Staging::nothing(self.clone(), request.step, stats));
        }
        // The number may have been committed before and removed since: this save is another one.
        inner.state.send_if_modified(|state| {
            state.forget_committed(request.step);
            false
        });
        let (plan, index) = match private.filter(|_| !granted.stage_replicated) {
            None => (full, index),
            Some(private) => {
                let index = private.index(index.tree, &request.tensors);
                (private, index)
            }
        };
        let index = SlotIndex {
            step: request.step.0,
            rank: self.rank().0,
            world_size: self.world_size().0,
            kind: request.kind as u32,
            begun: granted.begun.clone(),
            ..index
        };
        let error = match Staging::granted(self.clone(), &granted, index, &plan, &request.tensors, stats) {
            Ok(staging) => return Ok(staging),
            Err(error) => error.while_doing(doing),
        };
        abandon(inner, request.step, &error);
        // The slot, or with it the whole file, passed on since it was granted.
        if matches!(error.kind, Kind::Conflict | Kind::NotFound) {
            self.slot_given_up(request.step, error, interrupt)?;
            return Ok(Staging::nothing(self.clone(), request.step, stats));
        }
        Err(error)
    }
}

/// Takes the texts out of `request`.
fn begin_request(
    request: &mut SaveRequest,
    [full, private]: [&Plan; 2],
    index: &SlotIndex,
    has_replicated: bool,
) -> v1::BeginSaveRequest {
    // What the sidecar adds to the index: the ranks, the data position and both texts, once more.
    let added = request.metrics_json.len() + request.meta_json.len() + 16 * request.ranks.len() + 4096;
    let index_bytes = (index.encoded_len() + added) as u64;
    v1::BeginSaveRequest {
        session: 0,
        step: request.step.0,
        kind: request.kind as i32,
        slot_bytes: full.layout.slot_bytes(index_bytes),
        slot_bytes_private: private.layout.slot_bytes(index_bytes),
        has_replicated,
        ranks: std::mem::take(&mut request.ranks),
        data: std::mem::take(&mut request.data),
        metrics_json: std::mem::take(&mut request.metrics_json),
        meta_json: std::mem::take(&mut request.meta_json),
    }
}

/// Frees the slot and abandons the step on all ranks, in the background.
pub(super) fn abandon(inner: &Inner, step: Step, error: &Error) {
    inner.saved();
    let (caller, state, reason) = (inner.caller.clone(), inner.state.clone(), error.message.clone());
    inner.spawn(async move {
        let abandon = |mut client: v1::sidecar_client::SidecarClient<_>, session| {
            let reason = reason.clone();
            async move { client.abandon_save(v1::AbandonSaveRequest { session, step: step.0, reason }).await }
        };
        if let Err(error) = caller.call(abandon).await {
            state.send_modify(|state| state.warnings.push(format!("abandoning step {step}: {error}")));
        }
    });
}

impl Inner {
    /// Runs a call that nobody waits for but `close`.
    pub fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        match super::runtime::handle() {
            Ok(runtime) => drop(runtime.spawn(self.tasks.track_future(call))),
            Err(error) => self.state.send_modify(|state| state.warnings.push(error.message)),
        }
    }
}

/// Time that a wait may take at most when the caller sets no limit and the commit's own is unknown.
pub(super) const LONGEST_COMMIT: Duration = Duration::from_secs(600);
