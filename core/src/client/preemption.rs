//! Agreeing on a step to stop at. A stop signal on any rank makes the coordinator ask every rank for the last step it
//! has asked about; a step beyond all of them is named, and all stop there.

use std::time::Duration;

use super::interrupt::Interrupt;
use super::session::Session;
use crate::error::{Error, Result};
use crate::ids::Step;
use crate::proto::v1::{PreemptRequest, RankPhase};

impl Session {
    /// Whether to save and stop at this step: True on all ranks at the same one. Called once per step boundary;
    /// returns at once except while the ranks agree.
    pub fn reached_preemption(
        &self,
        step: Step,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<bool> {
        let inner = self.own()?;
        inner.at(Some(step), RankPhase::Training);
        let mut known = None;
        inner.state.send_if_modified(|state| {
            let ended = state.ended();
            let preemption = &mut state.preemption;
            if let Some(stop_at) = preemption.stop_at {
                known = Some(Ok(step >= stop_at));
            } else if let Some(error) = ended {
                known = Some(Err(error));
            } else if !preemption.agreeing {
                // Under the lock that the question is noted under: what we answer is what was asked here.
                preemption.asked = preemption.asked.max(Some(step));
                known = Some(Ok(false));
            }
            false
        });
        if let Some(known) = known {
            return known;
        }
        let _waiting = inner.waits(RankPhase::Waiting);
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        let mut changes = inner.state.subscribe();
        self.block("agreeing on a step to stop at", timeout, interrupt, async {
            let decided =
                changes.wait_for(|state| state.preemption.stop_at.is_some() || state.ended().is_some());
            let state = decided.await.expect("the session holds the sender");
            match (state.preemption.stop_at, state.ended()) {
                (Some(stop_at), _) => Ok(step >= stop_at),
                (None, Some(error)) => Err(error),
                (None, None) => {
                    Err(Error::internal("agreeing on a step to stop at: it changed under the lock"))
                }
            }
        })
    }

    /// Tells all ranks that this one is to stop (SIGTERM). Returns at once; a failure becomes a warning.
    pub fn notify_preemption(&self) -> Result<()> {
        let inner = self.own()?;
        let (caller, state) = (inner.caller.clone(), inner.state.clone());
        inner.spawn(async move {
            let notify = |mut client: crate::proto::v1::sidecar_client::SidecarClient<_>, session| async move {
                client.preempt(PreemptRequest { session }).await
            };
            if let Err(error) = caller.call(notify).await {
                state.send_modify(|state| state.warnings.push(format!("telling the other ranks to stop: {error}")));
            }
        });
        Ok(())
    }
}
