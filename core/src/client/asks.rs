//! Asked at every step boundary: whether to save here, and whether to stop. What somebody asks for (an operator, the
//! interval, a stop signal on any rank) the ranks agree on a step for: the coordinator asks every rank for the last step
//! that it has asked about, and the step after all of them is named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::interrupt::Interrupt;
use super::session::Session;
use super::state::State;
use crate::error::Result;
use crate::ids::Step;
use crate::proto::v1::{PreemptRequest, RankPhase, StepAgreedEvent, StepPurpose, StepQueryEvent};

/// One rank's part in the agreements of its generation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks {
    /// The last step that this rank asked about. Stands while the ranks agree: it is what we answered.
    asked: Option<Step>,
    /// The newest vote that we were asked in, and the newest that was decided.
    heard: BTreeMap<StepPurpose, u64>,
    decided: BTreeMap<StepPurpose, u64>,
    stop_at: Option<Step>,
    /// Agreed, and not reached.
    saves: BTreeSet<Step>,
    /// The boundary at which the last agreed step was reached, which is its own unless the loop asks less often.
    saved_at: Option<Step>,
}

/// What is to be done at a step boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub save: bool,
    pub stop: bool,
}

impl Asks {
    /// What to answer; None: that vote is over.
    pub fn query(&mut self, query: &StepQueryEvent) -> Option<Step> {
        if self.decided.get(&query.purpose()).is_some_and(|decided| *decided >= query.vote) {
            return None;
        }
        let heard = self.heard.entry(query.purpose()).or_default();
        *heard = query.vote.max(*heard);
        Some(self.asked.unwrap_or_default())
    }

    pub fn agreed(&mut self, agreed: &StepAgreedEvent) {
        let decided = self.decided.entry(agreed.purpose()).or_default();
        if agreed.vote <= *decided {
            return;
        }
        *decided = agreed.vote;
        let step = Step(agreed.step);
        if agreed.purpose() == StepPurpose::Stop {
            self.stop_at = Some(step);
        }
        self.saves.insert(step);
    }

    fn stops(&self, step: Step) -> bool {
        self.stop_at.is_some_and(|stop_at| step >= stop_at)
    }

    fn is_agreeing(&self) -> bool {
        self.heard.iter().any(|(purpose, heard)| self.decided.get(purpose).is_none_or(|it| it < heard))
    }

    /// Whether this boundary's answer is known; if not, `pass` waits for an agreement.
    pub fn is_known(&self, step: Step) -> bool {
        // What is agreed lies behind all that anybody has asked about.
        !self.is_agreeing() || self.asked.is_some_and(|asked| step <= asked)
    }

    /// Passes a boundary whose answer is known.
    pub fn pass(&mut self, step: Step) -> Verdict {
        self.asked = self.asked.max(Some(step));
        while self.saves.first().is_some_and(|first| *first <= step) {
            self.saves.pop_first();
            self.saved_at = Some(step);
        }
        Verdict { save: self.saved_at == Some(step), stop: self.stops(step) }
    }
}

impl Session {
    /// Whether to save and stop at this step: True on all ranks at the same one, and from there on. Called once per step
    /// boundary; returns at once except while the ranks agree.
    pub fn reached_preemption(
        &self,
        step: Step,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<bool> {
        Ok(self.boundary(step, |_| true, timeout, interrupt)?.0.stop)
    }

    /// Whether to save at this step: True on all ranks at the same ones. As `reached_preemption`, and the first call waits
    /// for the generation to open, whose interval it is.
    pub fn should_save(
        &self,
        step: Step,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<bool> {
        let is_told = |state: &State| state.generation.is_some();
        let (verdict, interval) = self.boundary(step, is_told, timeout, interrupt)?;
        Ok(verdict.save || (interval > 0 && step.0.is_multiple_of(interval)))
    }

    /// The verdict, and the interval as the generation was opened with.
    fn boundary(
        &self,
        step: Step,
        is_told: impl Fn(&State) -> bool,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<(Verdict, u64)> {
        let inner = self.own()?;
        inner.at(Some(step), RankPhase::Training);
        // Under the lock that a question is noted under: what we answer is what was asked here.
        let look = || {
            let mut known = None;
            inner.state.send_if_modified(|state| {
                known = answer(state, step, &is_told);
                false
            });
            known
        };
        if let Some(known) = look() {
            return known;
        }
        let _waiting = inner.waits(RankPhase::Waiting);
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        let mut changes = inner.state.subscribe();
        self.block("agreeing on a step with the other ranks", timeout, interrupt, async {
            loop {
                changes.borrow_and_update();
                match look() {
                    Some(known) => return known,
                    None => changes.changed().await.expect("the session holds the sender"),
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

/// None while it is not known.
fn answer(state: &mut State, step: Step, is_told: impl Fn(&State) -> bool) -> Option<Result<(Verdict, u64)>> {
    match state.ended() {
        // A rank that is to stop does so, whatever became of the others meanwhile.
        Some(_) if state.asks.stops(step) => {}
        Some(error) => return Some(Err(error)),
        None if state.asks.is_known(step) && is_told(state) => {}
        None => return None,
    }
    let interval = state.generation.as_ref().map_or(0, |generation| generation.interval_steps);
    Some(Ok((state.asks.pass(step), interval)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(purpose: StepPurpose, vote: u64) -> StepQueryEvent {
        StepQueryEvent { purpose: purpose.into(), vote }
    }

    fn agreed(purpose: StepPurpose, vote: u64, step: u64) -> StepAgreedEvent {
        StepAgreedEvent { purpose: purpose.into(), vote, step }
    }

    fn pass(asks: &mut Asks, step: u64) -> Verdict {
        assert!(asks.is_known(Step(step)), "step {step} waits");
        asks.pass(Step(step))
    }

    #[test]
    fn steps_behind_the_answer_wait_for_the_agreement_and_the_answered_one_does_not() {
        let mut asks = Asks::default();
        assert_eq!(pass(&mut asks, 3), Verdict::default());
        assert_eq!(asks.query(&query(StepPurpose::Save, 1)), Some(Step(3)));
        assert_eq!(pass(&mut asks, 3), Verdict::default());
        assert!(!asks.is_known(Step(4)));
        asks.agreed(&agreed(StepPurpose::Save, 1, 6));
        assert_eq!(pass(&mut asks, 5), Verdict::default());
        for _ in 0..2 {
            assert_eq!(
                pass(&mut asks, 6),
                Verdict { save: true, stop: false },
                "asked twice, answered alike"
            );
        }
        assert_eq!(pass(&mut asks, 7), Verdict::default());
    }

    #[test]
    fn what_is_agreed_while_an_earlier_step_is_not_reached_adds_to_it() {
        let mut asks = Asks::default();
        pass(&mut asks, 1);
        for (vote, step) in [(1, 4), (2, 6)] {
            asks.query(&query(StepPurpose::Save, vote));
            asks.agreed(&agreed(StepPurpose::Save, vote, step));
        }
        let saves: Vec<u64> = (2..9).filter(|step| pass(&mut asks, *step).save).collect();
        assert_eq!(saves, [4, 6]);
    }

    #[test]
    fn a_stop_is_a_save_too_and_a_loop_that_asks_seldom_meets_both_at_its_next_boundary() {
        let mut asks = Asks::default();
        pass(&mut asks, 10);
        asks.query(&query(StepPurpose::Stop, 1));
        asks.agreed(&agreed(StepPurpose::Stop, 1, 13));
        assert_eq!(pass(&mut asks, 20), Verdict { save: true, stop: true });
        assert_eq!(pass(&mut asks, 30), Verdict { save: false, stop: true });
    }

    #[test]
    fn a_question_or_an_answer_that_is_told_again_changes_nothing() {
        let mut asks = Asks::default();
        pass(&mut asks, 1);
        asks.query(&query(StepPurpose::Save, 1));
        asks.query(&query(StepPurpose::Save, 1));
        asks.agreed(&agreed(StepPurpose::Save, 1, 2));
        assert!(pass(&mut asks, 2).save);
        asks.agreed(&agreed(StepPurpose::Save, 1, 2));
        assert_eq!(asks.query(&query(StepPurpose::Save, 1)), None);
        assert_eq!(pass(&mut asks, 3), Verdict::default());
    }
}
