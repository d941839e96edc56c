//! What the client knows of its session: fed by the event stream, waited on by the calls.

use std::collections::BTreeMap;

use super::asks::Asks;
use crate::error::{Error, Kind};
use crate::ids::Step;
use crate::proto::lost_names;
use crate::proto::v1::session_event::Event;
use crate::proto::v1::{Fenced, Generation, StepEvent, StepInfo, Welcome};

/// Outcomes of this many steps are kept for their handles; older ones are asked for again.
const STEPS_KEPT: usize = 256;

/// The stream to the sidecar.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Up,
    /// Broken; being dialled again.
    Down,
    /// It will not come back, and why.
    Ended(Error),
}

/// How far a save has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Staged,
    Persisting,
    Committed(Box<StepInfo>),
    Failed(Error),
    Skipped(Error),
}

#[derive(Debug)]
pub(super) struct State {
    pub link: Link,
    pub welcome: Welcome,
    pub generation: Option<Generation>,
    pub fenced: Option<Error>,
    pub steps: BTreeMap<u64, Outcome>,
    pub asks: Asks,
    /// The last restore, if it may be made again: only the same one repeats its round.
    pub restoring: Option<super::restore::RestoreOptions>,
    pub warnings: Vec<String>,
}

impl State {
    pub fn new(welcome: Welcome) -> State {
        State {
            link: Link::Up,
            welcome,
            generation: None,
            fenced: None,
            steps: BTreeMap::new(),
            asks: Asks::default(),
            restoring: None,
            warnings: Vec::new(),
        }
    }

    /// Why no call can succeed any more.
    pub fn ended(&self) -> Option<Error> {
        self.fenced.clone().or_else(|| match &self.link {
            Link::Ended(error) => Some(error.clone()),
            Link::Up | Link::Down => None,
        })
    }

    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Welcome(welcome) => {
                self.welcome = welcome;
                self.link = Link::Up;
            }
            Event::GenerationOpened(generation) => self.generation = Some(generation),
            Event::Fenced(fenced) => {
                let job =
                    self.generation.as_ref().map(|generation| generation.job.clone()).unwrap_or_default();
                self.fenced.get_or_insert_with(|| fenced_error(&job, &fenced));
            }
            Event::Step(step) => self.apply_step(step),
            // The listener answers it.
            Event::StepQuery(_) => {}
            Event::StepAgreed(agreed) => self.asks.agreed(&agreed),
            Event::Warning(warning) => self.warnings.push(warning.message),
            // Answered where it is heard.
            Event::TakeStack(_) => {}
        }
    }

    fn apply_step(&mut self, event: StepEvent) {
        let reason = || {
            let kind = Kind::from_name(&event.kind).unwrap_or(Kind::Internal);
            Error::new(kind, event.reason.clone()).while_doing(format!("saving step {}", event.step))
        };
        let outcome = match event.state.as_str() {
            "persisting" => Outcome::Persisting,
            "committed" => Outcome::Committed(Box::new(event.info.clone().unwrap_or_default())),
            "skipped" => Outcome::Skipped(reason()),
            _ => Outcome::Failed(reason()),
        };
        self.settle(Step(event.step), outcome);
    }

    /// A new save of this number has begun.
    pub fn forget_committed(&mut self, step: Step) {
        if matches!(self.steps.get(&step.0), Some(Outcome::Committed(_))) {
            self.steps.remove(&step.0);
        }
    }

    /// This rank's part of a step is handed over, or none is wanted.
    pub fn staged(&mut self, step: Step) {
        self.steps.entry(step.0).or_insert(Outcome::Staged);
    }

    /// Notes a step's outcome. A step's first failure stands, and becomes a warning for the next call.
    pub fn settle(&mut self, step: Step, outcome: Outcome) {
        let before = self.steps.get(&step.0);
        if matches!(before, Some(Outcome::Committed(_))) {
            return;
        }
        if let Outcome::Failed(error) | Outcome::Skipped(error) = &outcome {
            if matches!(before, Some(Outcome::Failed(_) | Outcome::Skipped(_))) {
                return;
            }
            self.warnings.push(error.message.clone());
        }
        self.steps.insert(step.0, outcome);
        while self.steps.len() > STEPS_KEPT {
            self.steps.pop_first();
        }
    }
}

fn fenced_error(job: &str, fenced: &Fenced) -> Error {
    let lost = lost_names(&fenced.lost, fenced.lost_count);
    Error::fenced(format!(
        "working in generation {} of job {job:?}: it has ended, lost: {lost} ({})",
        fenced.generation, fenced.reason
    ))
    .hint("call strata.connect again to join the next generation, or end this process for its launcher to restart")
}
