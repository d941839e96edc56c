//! What `save` gives back: how far the step is, and waits for it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::interrupt::Interrupt;
use super::save::LONGEST_COMMIT;
use super::session::{Session, milliseconds};
use super::state::Outcome;
use crate::error::{Doing, Error, Kind, Result};
use crate::ids::Step;
use crate::proto::v1::{self, RankPhase, StepInfo};

/// As users read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveState {
    Filling,
    Staged,
    Persisting,
    Committed,
    Failed,
    Skipped,
}

impl fmt::Display for SaveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SaveState::Filling => "filling",
            SaveState::Staged => "staged",
            SaveState::Persisting => "persisting",
            SaveState::Committed => "committed",
            SaveState::Failed => "failed",
            SaveState::Skipped => "skipped",
        })
    }
}

/// What handing a state over took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SaveStats {
    /// For a slot.
    pub waited: Duration,
    /// Copying, in `save` or after it.
    pub copy: Duration,
    pub seal: Duration,
    /// Copied.
    pub bytes: u64,
    /// The copy was the first touch of the slot's pages by this process.
    pub cold: bool,
}

/// How far this rank's part is on its way into the slot.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub stats: SaveStats,
    /// None while it is copied; Ok once it is sealed.
    pub end: Option<Result<()>>,
}

/// A step on its way to the store. Dropping it changes nothing.
#[derive(Clone)]
pub struct SaveHandle {
    session: Session,
    step: Step,
    stage: Arc<watch::Sender<Stage>>,
}

impl SaveHandle {
    pub(super) fn new(session: Session, step: Step, stage: Arc<watch::Sender<Stage>>) -> SaveHandle {
        SaveHandle { session, step, stage }
    }

    pub fn step(&self) -> Step {
        self.step
    }

    /// As far as the copy has come.
    pub fn stats(&self) -> SaveStats {
        self.stage.borrow().stats
    }

    /// As far as this process has heard.
    pub fn state(&self) -> Result<SaveState> {
        let heard = self.session.own()?.state.borrow().steps.get(&self.step.0).cloned();
        Ok(match heard {
            None | Some(Outcome::Staged) => match self.stage.borrow().end {
                None => SaveState::Filling,
                Some(Ok(())) => SaveState::Staged,
                Some(Err(_)) => SaveState::Failed,
            },
            Some(Outcome::Persisting) => SaveState::Persisting,
            Some(Outcome::Committed(_)) => SaveState::Committed,
            Some(Outcome::Failed(_)) => SaveState::Failed,
            Some(Outcome::Skipped(_)) => SaveState::Skipped,
        })
    }

    /// Returns when the tensors may change: at once where `save` copied them. The error of a step that was skipped, or
    /// that this rank could not hand over.
    pub fn wait_staged(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<()> {
        interrupt.check()?;
        if let Some(Outcome::Skipped(error)) = self.session.own()?.state.borrow().steps.get(&self.step.0) {
            return Err(error.clone());
        }
        let mut stage = self.stage.subscribe();
        let timeout = timeout.unwrap_or_else(|| self.session.default_timeout());
        let doing = format!("waiting until step {} is copied", self.step);
        let ended = async {
            let ended = stage.wait_for(|stage| stage.end.is_some()).await;
            ended.expect("the handle holds the sender").end.clone().unwrap_or(Ok(()))
        };
        self.holding(|| self.session.block(&doing, timeout, interrupt, ended))
    }

    /// Time that `call` takes is time that the save holds training.
    fn holding<T>(&self, call: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let answer = call();
        self.session.saving_held(begun.elapsed());
        answer
    }

    /// Returns when the step is durable over all ranks. The error of a failed, skipped or abandoned one; Timeout, with
    /// an unknown outcome, when `timeout` (None: the job's commit time-out) passes.
    pub fn wait_committed(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<StepInfo> {
        let inner = self.session.own()?;
        let step = self.step;
        let commit_timeout = inner.state.borrow().welcome.commit_timeout_ms;
        let given = if commit_timeout > 0 { Duration::from_millis(commit_timeout) } else { LONGEST_COMMIT };
        let timeout = timeout.unwrap_or(given);
        // A part of saving: other ranks may be waiting for this one meanwhile.
        let _saving = inner.waits(RankPhase::Checkpointing);
        let ask = inner.caller.call(|mut client, session| async move {
            let timeout_ms = milliseconds(timeout);
            client.wait_committed(v1::WaitCommittedRequest { session, step: step.0, timeout_ms }).await
        });
        let mut changes = inner.state.subscribe();
        let hear = async {
            let settled = changes.wait_for(|state| settled(state.steps.get(&step.0)).is_some()).await;
            let state = settled.expect("the session holds the sender");
            settled_now(state.steps.get(&step.0))
        };
        let doing = format!("waiting for the commit of step {step}");
        let either = async {
            tokio::select! {
                biased;
                heard = hear => heard,
                told = ask => told.doing(|| format!("saving step {step}")),
            }
        };
        let outcome = self.holding(|| self.session.block(&doing, timeout, interrupt, either));
        match &outcome {
            Ok(info) => {
                let committed = Outcome::Committed(Box::new(info.clone()));
                inner.state.send_modify(|state| state.settle(step, committed));
            }
            // Raised here, so the next call need not warn of it again.
            Err(error) => forget_warning(inner, error),
        }
        outcome
    }
}

fn forget_warning(inner: &super::session::Inner, error: &Error) {
    if matches!(error.kind, Kind::Timeout | Kind::Cancelled) {
        return;
    }
    inner.state.send_if_modified(|state| {
        state.warnings.retain(|warning| !error.message.ends_with(warning.as_str()));
        false
    });
}

fn settled(outcome: Option<&Outcome>) -> Option<Result<StepInfo>> {
    match outcome? {
        Outcome::Committed(info) => Some(Ok((**info).clone())),
        Outcome::Failed(error) | Outcome::Skipped(error) => Some(Err(error.clone())),
        Outcome::Staged | Outcome::Persisting => None,
    }
}

fn settled_now(outcome: Option<&Outcome>) -> Result<StepInfo> {
    settled(outcome)
        .unwrap_or_else(|| Err(Error::internal("reading a step's outcome: it changed under the lock")))
}
