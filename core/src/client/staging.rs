//! A save between its begin and its seal: the caller decides which tensors are copied when.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::handle::{SaveHandle, SaveStats, Stage};
use super::interrupt::Interrupt;
use super::save::{Plan, SourceTensor, abandon};
use super::session::{Inner, Session};
use super::state::{Outcome, State};
use crate::error::{Doing, Error, Kind, Result};
use crate::handoff::{ArenaView, FillPlan, ForkedCopy, Samples, SlotWriter};
use crate::ids::Step;
use crate::proto::format::SlotIndex;
use crate::proto::v1::{self, RankPhase};

/// How long the sidecar's word about a slot that it took back is waited for: it was sent before, on another stream.
const WORD: Duration = Duration::from_secs(2);

/// The right to copy one step's state into a slot. Dropped before it was sealed, the step is abandoned on all ranks.
/// Its calls may come from another thread than the one that began the save.
pub struct Staging {
    session: Session,
    step: Step,
    /// None: there is nothing to copy, because other ranks save this step, or it was skipped.
    fill: Option<Fill>,
    stage: Arc<watch::Sender<Stage>>,
    over: AtomicBool,
}

struct Fill {
    view: ArenaView,
    writer: SlotWriter,
    plan: FillPlan,
    data_bytes: u64,
    index: SlotIndex,
    slot: u32,
    number: u64,
}

/// An arena in this process's memory, whole pages; mapped as long as this lives.
pub struct ArenaMemory {
    pub address: *mut u8,
    pub bytes: u64,
    view: ArenaView,
}

// SAFETY: an address and a length; nothing is read or written through them here.
unsafe impl Send for ArenaMemory {}
// SAFETY: as above.
unsafe impl Sync for ArenaMemory {}

impl ArenaMemory {
    /// Whether nothing else in this process has it: its file was replaced, or its session has ended.
    pub fn is_abandoned(&self) -> bool {
        self.view.is_alone()
    }
}

impl Staging {
    pub(super) fn nothing(session: Session, step: Step, stats: SaveStats) -> Staging {
        let stage = watch::Sender::new(Stage { stats, end: Some(Ok(())) });
        Staging { session, step, fill: None, stage: Arc::new(stage), over: AtomicBool::new(true) }
    }

    pub(super) fn granted(
        session: Session,
        granted: &v1::BeginSaveReply,
        index: SlotIndex,
        layout: &Plan,
        tensors: &[SourceTensor],
        mut stats: SaveStats,
    ) -> Result<Staging> {
        let step = Step(index.step);
        let inner = session.own()?;
        let view = inner.arenas.use_file(Path::new(&granted.arena))?;
        inner.at(Some(step), RankPhase::Checkpointing);
        stats.cold = !view.is_populated(granted.slot);
        let writer = view.writer(granted.slot, granted.fill)?;
        let data_bytes = layout.layout.data_bytes;
        let plan = writer.plan(&layout.copies(tensors), data_bytes)?;
        let (slot, number) = (granted.slot, granted.fill);
        let fill = Fill { view, writer, plan, data_bytes, index, slot, number };
        let stage = Arc::new(watch::Sender::new(Stage { stats, end: None }));
        Ok(Staging { session, step, fill: Some(fill), stage, over: AtomicBool::new(false) })
    }

    /// Says that a fence has held training until this was copied.
    pub fn held(&self, time: Duration) {
        self.session.saving_held(time);
    }

    pub fn handle(&self) -> SaveHandle {
        SaveHandle::new(self.session.clone(), self.step, self.stage.clone())
    }

    /// Whether nothing is left to do: sealed, given up, or none of this rank's bytes are wanted. Calls then do nothing.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn open(&self) -> Option<&Fill> {
        self.fill.as_ref().filter(|_| !self.is_over())
    }

    /// Copies tensors, by their numbers in the request, with at most `threads` threads; returns when these may change.
    /// Conflict when the slot was given up meanwhile, because another rank was lost or could not save the step.
    ///
    /// # Safety
    /// Their pointers are readable for their bytes until this returns, and nothing writes there meanwhile.
    pub unsafe fn copy(&self, which: &[usize], threads: usize) -> Result<()> {
        let Some(fill) = self.open() else { return Ok(()) };
        let begun = Instant::now();
        // SAFETY: the sources are as the caller vouches; the slot is ours until it is sealed.
        unsafe { fill.writer.copy(&fill.plan, which, threads)? };
        self.copied(fill.plan.bytes(which), begun.elapsed());
        Ok(())
    }

    /// Forks a child that copies these tensors as they are at this moment; [`Staging::join`] waits for it. They may
    /// change once this returns. The child ends with the calling thread, which therefore is the one to wait.
    ///
    /// # Safety
    /// Their pointers are readable for their bytes.
    pub unsafe fn fork(&self, which: &[usize]) -> Result<Option<ForkedCopy>> {
        let Some(fill) = self.open() else { return Ok(None) };
        // SAFETY: as the caller vouches.
        unsafe { fill.writer.copy_in_child(&fill.plan, which) }.map(Some)
    }

    /// Waits until a child of [`Staging::fork`] has copied everything. Invalid, naming the tensor, when one lies in memory
    /// that a child does not see as it was.
    pub fn join(&self, child: ForkedCopy, which: &[usize]) -> Result<()> {
        let Some(fill) = self.open() else { return Ok(()) };
        if let Some((number, why)) = fill.plan.first_unfit_to_fork(&child, which)? {
            let name = &fill.index.tensors[number].name;
            return Err(Error::invalid(format!("copying {name} in a forked child: it lies in {why}"))
                .hint("save with mode=\"copy\""));
        }
        let taken = child.wait()?;
        if let Err(error) = fill.plan.rejoin_in_background(which) {
            tracing::warn!("the next fork takes longer: {error}");
        }
        fill.writer.check()?;
        self.copied(fill.plan.bytes(which), taken);
        Ok(())
    }

    /// The arena's memory, once it has all of it: for a device that copies tensors by itself, to [`Staging::targets`].
    /// None where there is nothing to copy. Conflict when the slot was given up meanwhile, Overloaded when memory ran out.
    pub fn memory(&self) -> Result<Option<ArenaMemory>> {
        let Some(fill) = self.open() else { return Ok(None) };
        let (address, bytes) = fill.view.memory()?;
        fill.writer.check()?;
        Ok(Some(ArenaMemory { address, bytes, view: fill.view.clone() }))
    }

    /// Where tensors go, by their numbers; none where there is nothing to copy.
    pub fn targets(&self, which: &[usize]) -> Vec<*mut u8> {
        self.open()
            .map_or_else(Vec::new, |fill| which.iter().map(|&number| fill.plan.target(number)).collect())
    }

    /// A device has copied these tensors to their [`Staging::targets`], in the time `taken`. Conflict when the slot was
    /// given up meanwhile.
    pub fn arrived(&self, which: &[usize], taken: Duration) -> Result<()> {
        let Some(fill) = self.open() else { return Ok(()) };
        fill.writer.check()?;
        self.copied(fill.plan.bytes(which), taken);
        Ok(())
    }

    fn copied(&self, bytes: u64, taken: Duration) {
        self.stage.send_modify(|stage| {
            stage.stats.copy += taken;
            stage.stats.bytes += bytes;
        });
    }

    /// What tensors look like in a few places, to be compared once they are copied: finds a write that torch's version
    /// counters do not (through `.data`) if it changed one of these places.
    ///
    /// # Safety
    /// Their pointers are readable for their bytes.
    pub unsafe fn sample(&self, which: &[usize]) -> Samples {
        // SAFETY: as the caller vouches.
        self.open().map_or_else(Samples::default, |fill| unsafe { fill.plan.sample(which, self.step.0) })
    }

    /// The first copied tensor whose source or copy is not as it was sampled.
    ///
    /// # Safety
    /// As for [`Staging::sample`].
    pub unsafe fn first_changed(&self, samples: &Samples) -> Option<usize> {
        // SAFETY: as the caller vouches.
        self.open().and_then(|fill| unsafe { fill.plan.first_changed(samples) })
    }

    /// Hands the slot over: from here on the step survives this process. Once.
    pub fn seal(&self) -> Result<()> {
        let Some(fill) = self.open() else { return Ok(()) };
        let inner = self.session.own()?;
        let begun = Instant::now();
        fill.writer.zero_gaps(&fill.plan)?;
        fill.writer
            .seal(&fill.index, fill.data_bytes)
            .doing(|| format!("arena {}", fill.view.path().display()))?;
        self.over.store(true, Ordering::Release);
        inner.saved();
        if self.stage.borrow().stats.cold {
            // All that is not yet touched, so that the next save is not cold as well.
            fill.view.populate_in_background();
        }
        announce_seal(inner, self.step, fill);
        inner.state.send_modify(|state| state.staged(self.step));
        self.stage.send_modify(|stage| {
            stage.stats.seal = begun.elapsed();
            stage.end = Some(Ok(()));
        });
        Ok(())
    }

    /// Ends the save without a seal: the slot comes free and the step is abandoned on all ranks. Ok when `error` is that
    /// the slot was taken back, of which the handle then says the reason; else `error` again.
    pub fn give_up(&self, error: Error, interrupt: &dyn Interrupt) -> Result<()> {
        let taken_back = error.kind == Kind::Conflict;
        let error = error.while_doing(format!("saving step {}", self.step));
        if self.over.swap(true, Ordering::AcqRel) {
            return Err(error);
        }
        let inner = self.session.own()?;
        abandon(inner, self.step, &error);
        let end =
            if taken_back { self.session.slot_given_up(self.step, error, interrupt) } else { Err(error) };
        self.stage.send_modify(|stage| stage.end = Some(end.clone()));
        end
    }

    /// As [`Staging::give_up`] where nobody is there to be given the error: it is told on the next call, and raised by
    /// the handle's waits.
    pub fn fail(&self, error: Error) {
        let error = error.while_doing(format!("saving step {}", self.step));
        let Ok(inner) = self.session.own() else { return };
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        abandon(inner, self.step, &error);
        inner.state.send_modify(|state| state.settle(self.step, Outcome::Failed(error.clone())));
        self.stage.send_modify(|stage| stage.end = Some(Err(error)));
    }
}

impl Session {
    /// The slot passed on before it was sealed: this generation has ended (Fenced), or another rank could not save
    /// the step (its outcome is noted, training goes on). The sidecar's word for it may still be on its way; without
    /// one `error` stands.
    pub(super) fn slot_given_up(&self, step: Step, error: Error, interrupt: &dyn Interrupt) -> Result<()> {
        let doing = format!("saving step {}", step);
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

impl Drop for Staging {
    fn drop(&mut self) {
        self.fail(Error::cancelled("it was given up before it was copied"));
    }
}

/// Tells the sidecar what the header already says; the trainer does not wait for it.
fn announce_seal(inner: &Inner, step: Step, fill: &Fill) {
    let (caller, state) = (inner.caller.clone(), inner.state.clone());
    let (slot, fill) = (fill.slot, fill.number);
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
