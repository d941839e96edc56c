//! Which committed steps the configured rules keep: each keeps what it wants, and a step goes when none wants it. Pure.
//!
//! The newest whole step, pinned steps and what a save or a restore needs are refused to every rule elsewhere
//! ([`Job::removable`](super::state::Job::removable)).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::state::StepRecord;
use crate::config::Extreme;
use crate::error::{Error, Result};
use crate::ids::Step;

/// Rules of one coordinator. `last` is the ground: 0 keeps everything, and the others only ever keep more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// The newest so many.
    pub last: u32,
    /// The first of every so many step numbers; 0: none.
    pub every_steps: u64,
    /// From the oldest on, the first that is committed so long after the one kept before.
    pub every: Option<Duration>,
    pub best: Option<KeepBest>,
}

/// The steps with the best values of a metric that was saved with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepBest {
    pub count: u32,
    pub metric: String,
    pub is: Extreme,
}

impl KeepRules {
    pub fn last(count: u32) -> KeepRules {
        KeepRules { last: count, ..KeepRules::default() }
    }

    /// Invalid for rules that would never do what they say.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: &str, hint: &str| {
            Err(Error::invalid(format!("reading the rules of what is kept: {why}")).hint(hint.to_owned()))
        };
        let more = [
            (self.every_steps > 0, "keep_every_steps"),
            (self.every.is_some(), "keep_every"),
            (self.best.is_some(), "keep_best"),
        ];
        if let Some((_, key)) = more.into_iter().find(|(is_set, _)| *is_set && self.last == 0) {
            return refuse(
                &format!("{key} has no effect: keep_last is 0, which keeps every step"),
                "set keep_last to how many of the newest steps are kept beside those",
            );
        }
        if self.every.is_some_and(|every| every.is_zero()) {
            return refuse(
                "keep_every is no time at all",
                "give a duration such as \"1h\", or leave it unset",
            );
        }
        match &self.best {
            Some(best) if best.metric.is_empty() => {
                refuse("keep_best needs best_metric", "name the metric, as job.save(…, metrics={…}) calls it")
            }
            Some(best) if best.count == 0 => {
                refuse("best_metric has no effect: keep_best is 0", "set keep_best to how many are kept")
            }
            _ => Ok(()),
        }
    }

    /// What no rule keeps, ascending. Steps that hold only a part of the state are nobody's to judge: they stay.
    pub fn surplus(&self, steps: &BTreeMap<Step, StepRecord>) -> Vec<Step> {
        self.surplus_of(steps.iter().map(|(step, record)| (*step, record)))
    }

    /// The same, of steps that are ascending.
    pub fn surplus_of<'a>(&self, steps: impl Iterator<Item = (Step, &'a StepRecord)>) -> Vec<Step> {
        if self.last == 0 {
            return Vec::new();
        }
        let whole: Vec<(Step, &StepRecord)> =
            steps.filter(|(_, record)| record.kind.holds_whole_state()).collect();
        let mut kept: BTreeSet<Step> =
            whole.iter().rev().take(self.last as usize).map(|(step, _)| *step).collect();
        kept.extend(self.spread_by_number(&whole));
        kept.extend(self.spread_by_time(&whole));
        kept.extend(self.best.iter().flat_map(|best| best.of(&whole)));
        whole.into_iter().map(|(step, _)| step).filter(|step| !kept.contains(step)).collect()
    }

    /// Multiples of the distance where steps are saved at them; elsewhere the first behind each.
    fn spread_by_number(&self, whole: &[(Step, &StepRecord)]) -> Vec<Step> {
        let mut windows = BTreeSet::new();
        let first = |step: &Step| step.0.checked_div(self.every_steps).is_some_and(|at| windows.insert(at));
        whole.iter().map(|(step, _)| *step).filter(first).collect()
    }

    /// A clock that was set back starts anew: rather one more than none for as long as it was ahead.
    fn spread_by_time(&self, whole: &[(Step, &StepRecord)]) -> Vec<Step> {
        let Some(every) = self.every else { return Vec::new() };
        let every = every.as_millis() as u64;
        let mut kept: Vec<(Step, u64)> = Vec::new();
        for (step, record) in whole {
            let at = record.committed_unix_ms;
            let is_due = kept.last().is_none_or(|(_, before)| at < *before || at - before >= every);
            if is_due {
                kept.push((*step, at));
            }
        }
        kept.into_iter().map(|(step, _)| step).collect()
    }
}

impl KeepBest {
    /// Of equal ones the newer. A step without the metric, or with one that is no number, is never among them.
    fn of(&self, whole: &[(Step, &StepRecord)]) -> Vec<Step> {
        let value = |record: &StepRecord| metric(record, &self.metric);
        let mut rated: Vec<(f64, Step)> =
            whole.iter().filter_map(|(step, record)| Some((value(record)?, *step))).collect();
        rated.sort_by(|(a, older), (b, newer)| {
            let better = match self.is {
                Extreme::Min => a.total_cmp(b),
                Extreme::Max => b.total_cmp(a),
            };
            better.then(newer.cmp(older))
        });
        rated.into_iter().take(self.count as usize).map(|(_, step)| step).collect()
    }

    /// What is wrong with a step that carries no such number: what it does carry.
    pub fn missing_in(&self, record: &StepRecord) -> Option<String> {
        if metric(record, &self.metric).is_some() {
            return None;
        }
        let names = match metrics(record) {
            Some(map) if !map.is_empty() => {
                format!("it has {}", map.keys().cloned().collect::<Vec<_>>().join(", "))
            }
            _ => "it has no metrics".to_owned(),
        };
        Some(format!("no number called {:?} was saved with it ({names})", self.metric))
    }
}

fn metrics(record: &StepRecord) -> Option<serde_json::Map<String, serde_json::Value>> {
    serde_json::from_str(&record.metrics_json).ok()
}

fn metric(record: &StepRecord, name: &str) -> Option<f64> {
    // -0.0 and 0.0 are one value.
    metrics(record)?.get(name)?.as_f64().filter(|value| value.is_finite()).map(|value| value + 0.0)
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
