//! Saving: plan, ask for a slot, copy, seal. From the seal on the trainer may die.

use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;

use super::handle::{SaveHandle, SaveStats};
use super::interrupt::Interrupt;
use super::session::{Inner, Session};
use super::state::{Outcome, State};
use crate::error::{Doing, Error, Kind, Result};
use crate::handoff::plan::{SlotLayout, TensorSpec, layout};
use crate::handoff::{ArenaView, CopyIn, SlotWriter, default_threads};
use crate::ids::Step;
use crate::proto::format::{SlotIndex, Tensor};
use crate::proto::v1::{self, RankPhase};

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
    /// Copying threads; None: two, or fewer cores.
    pub threads: Option<usize>,
}

/// What a slot must hold for a state: the argument of [`Session::prepare`].
pub fn slot_bytes(tree: &[u8], tensors: &[SourceTensor]) -> u64 {
    let plan = Plan::new(tensors, true);
    plan.layout.slot_bytes(plan.index(tree.to_vec(), tensors).encoded_len() as u64)
}

/// A layout of those tensors that this rank stages.
struct Plan {
    staged: Vec<bool>,
    layout: SlotLayout,
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

    fn index(&self, tree: Vec<u8>, tensors: &[SourceTensor]) -> SlotIndex {
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

    fn copies(&self, tensors: &[SourceTensor]) -> Vec<CopyIn> {
        let staged =
            tensors.iter().zip(&self.staged).zip(&self.layout.offsets).filter(|((_, staged), _)| **staged);
        staged
            .map(|((tensor, _), offset)| CopyIn {
                source: tensor.pointer,
                bytes: tensor.bytes,
                offset: *offset,
            })
            .collect()
    }
}

impl Session {
    /// Copies the state into a slot and seals it: returns when the tensors may change (staged), milliseconds per GB,
    /// not when the step is durable. A node without a free slot skips the step: the handle says so, training goes on.
    /// Overloaded when memory is short for the arena. Collective: every rank of `ranks` calls with the same step.
    ///
    /// # Safety
    /// Every tensor's pointer is readable for its bytes until this returns, and nothing writes there meanwhile.
    pub unsafe fn save(&self, request: SaveRequest, interrupt: &dyn Interrupt) -> Result<SaveHandle> {
        let doing = format!("saving step {}", request.step);
        let inner = self.own()?;
        let started = Instant::now();
        let full = Plan::new(&request.tensors, true);
        let mut index = full.index(request.tree, &request.tensors);
        let has_replicated = request.tensors.iter().any(|tensor| tensor.replicated);
        // What the sidecar adds to the index: the ranks, the data position and both texts, once more.
        let added =
            (request.metrics_json.len() + request.meta_json.len() + 16 * request.ranks.len() + 4096) as u64;
        let index_bytes = index.encoded_len() as u64 + added;
        let private_bytes = Plan::new(&request.tensors, !has_replicated).layout.slot_bytes(index_bytes);
        let begin = v1::BeginSaveRequest {
            session: 0,
            step: request.step.0,
            kind: request.kind as i32,
            slot_bytes: full.layout.slot_bytes(index_bytes),
            slot_bytes_private: private_bytes,
            has_replicated,
            ranks: request.ranks,
            data: request.data,
            metrics_json: request.metrics_json,
            meta_json: request.meta_json,
        };
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
                return Ok(SaveHandle::new(self.clone(), request.step, SaveStats::default()));
            }
            Err(error) => {
                // Given up here, a slot may be granted all the same, and the other ranks wait for us.
                if matches!(error.kind, Kind::Timeout | Kind::Cancelled) {
                    abandon(inner, request.step, &error);
                }
                return Err(error.while_doing(doing));
            }
        };
        let mut stats = SaveStats { waited: started.elapsed(), ..SaveStats::default() };
        if granted.stage {
            // The number was committed before and has been removed since: this save is another one.
            inner.state.send_if_modified(|state| {
                state.forget_committed(request.step);
                false
            });
            let plan =
                if granted.stage_replicated { full } else { Plan::new(&request.tensors, !has_replicated) };
            index = SlotIndex {
                step: request.step.0,
                rank: self.rank().0,
                world_size: self.world_size().0,
                kind: request.kind as u32,
                begun: granted.begun.clone(),
                ..plan.index(std::mem::take(&mut index.tree), &request.tensors)
            };
            // SAFETY: the sources are as the caller vouches.
            let outcome = unsafe {
                stage(inner, &granted, &plan, &index, &request.tensors, request.threads, &mut stats)
            };
            if let Err(error) = outcome {
                abandon(inner, request.step, &error);
                if error.kind == Kind::Conflict {
                    self.slot_given_up(request.step, error, interrupt)?;
                    return Ok(SaveHandle::new(self.clone(), request.step, stats));
                }
                return Err(error.while_doing(doing));
            }
            announce_seal(inner, request.step, &granted);
        }
        inner.state.send_modify(|state| {
            state.steps.entry(request.step.0).or_insert(Outcome::Staged);
        });
        stats.total = started.elapsed();
        Ok(SaveHandle::new(self.clone(), request.step, stats))
    }

    /// The slot passed on while it was copied to: this generation has ended (Fenced), or another rank could not save
    /// the step (its outcome is noted, training goes on). The sidecar's word for it may still be on its way; without
    /// one `error` stands.
    fn slot_given_up(&self, step: Step, error: Error, interrupt: &dyn Interrupt) -> Result<()> {
        let doing = format!("saving step {step}");
        let mut changes = self.own()?.state.subscribe();
        let is_lost = |state: &State| {
            matches!(state.steps.get(&step.0), Some(Outcome::Failed(_) | Outcome::Skipped(_)))
        };
        let told = async {
            let known = changes.wait_for(|state| state.ended().is_some() || is_lost(state)).await;
            known.expect("the session holds the sender").ended().map_or(Ok(()), Err)
        };
        let word = async { tokio::time::timeout(WORD, told).await.unwrap_or(Err(error)) };
        self.block(&doing, WORD, interrupt, word).doing(|| doing.clone())
    }
}

/// Copies and seals.
///
/// # Safety
/// As for [`Session::save`].
unsafe fn stage(
    inner: &Inner,
    granted: &v1::BeginSaveReply,
    plan: &Plan,
    index: &SlotIndex,
    tensors: &[SourceTensor],
    threads: Option<usize>,
    stats: &mut SaveStats,
) -> Result<()> {
    let view: ArenaView = inner.arenas.use_file(Path::new(&granted.arena))?;
    view.set_progress(Step(index.step), RankPhase::Checkpointing);
    stats.cold = !view.is_populated(granted.slot);
    let writer: SlotWriter = view.writer(granted.slot, granted.fill)?;
    let (begun, data_bytes) = (Instant::now(), plan.layout.data_bytes);
    let threads = threads.unwrap_or_else(default_threads);
    // SAFETY: the sources are as the caller vouches; the slot is ours until it is sealed.
    unsafe { writer.fill(&plan.copies(tensors), data_bytes, threads)? };
    stats.copy = begun.elapsed();
    stats.bytes = plan.copies(tensors).iter().map(|copy| copy.bytes).sum();
    let begun = Instant::now();
    writer.seal(index, data_bytes).doing(|| format!("arena {}", granted.arena))?;
    stats.seal = begun.elapsed();
    view.set_progress(Step(index.step), RankPhase::Training);
    if stats.cold {
        // All that is not yet touched, so that the next save is not cold as well.
        view.populate_in_background()?;
    }
    Ok(())
}

/// Tells the sidecar what the header already says; the trainer does not wait for it.
fn announce_seal(inner: &Inner, step: Step, granted: &v1::BeginSaveReply) {
    let (caller, state) = (inner.caller.clone(), inner.state.clone());
    let (slot, fill) = (granted.slot, granted.fill);
    inner.spawn(async move {
        let seal = |mut client: v1::sidecar_client::SidecarClient<_>, session| async move {
            client.seal_save(v1::SealSaveRequest { session, step: step.0, slot, fill }).await
        };
        if let Err(error) = caller.call(seal).await {
            let error = error.while_doing(format!("saving step {step}"));
            state.send_modify(|state| state.settle(step, Outcome::Failed(error)));
        }
    });
}

/// Frees the slot and abandons the step on all ranks, in the background.
fn abandon(inner: &Inner, step: Step, error: &Error) {
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

/// How long the sidecar's word about a slot that it took back is waited for: it was sent before, on another stream.
const WORD: Duration = Duration::from_secs(2);

/// Time that a wait may take at most when the caller sets no limit and the commit's own is unknown.
pub(super) const LONGEST_COMMIT: Duration = Duration::from_secs(600);
