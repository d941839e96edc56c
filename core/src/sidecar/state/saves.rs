//! Saves under way on this node: one [`Save`] an attempt at a step, with a part for each rank that lives here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message;

use super::super::persist::FULL_TRIES;
use super::{Outcome, SlotKey, State, Todo, Use};
use crate::checkpoint::Durable;
use crate::error::{Error, Kind, Result};
use crate::handoff::{Slot, SlotState};
use crate::ids::{Generation, JobName, JobUuid, Rank, SessionId, Step};
use crate::pace::Pace;
use crate::proto::v1::{self, node_report::Report, session_event::Event};

/// Which attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct SaveId {
    pub job: JobName,
    pub step: Step,
    pub generation: Generation,
}

impl std::fmt::Display for SaveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {} of job {}", self.step, self.job)
    }
}

pub(in super::super) struct Save {
    pub uuid: JobUuid,
    /// The ranks of its expected set that live here; None: not known (its generation's members are not).
    pub here: Option<BTreeSet<Rank>>,
    pub parts: BTreeMap<Rank, Part>,
    pub since: Duration,
    /// Of all that is done in the background for it.
    pub pace: Pace,
    /// A trainer waits for its commit, or for its checksums.
    pub is_awaited: bool,
    /// A task has its slots; they are let go of when that ends.
    pub io: bool,
    /// Every rank of its set has sealed it, says the coordinator.
    pub adopted: bool,
    /// How often the store failed, and how last.
    pub failures: u32,
    pub last_error: Option<Error>,
    /// An INCREMENTAL one whose base could not be read: stored whole.
    pub without_base: bool,
    /// Decided while a task had its slots.
    pub decided: Option<Outcome>,
}

/// One rank's part.
pub(in super::super) struct Part {
    pub begun: v1::SaveBegun,
    /// False for a filling that was adopted: what it is stands in its index once it is sealed.
    pub is_told: bool,
    pub session: SessionId,
    pub slot: Option<(SlotKey, u64)>,
    pub stage: Stage,
}

pub(in super::super) enum Stage {
    /// For a slot.
    Waiting,
    Filling,
    Sealed {
        bytes: u64,
    },
    Durable(Durable),
    /// Reported until the coordinator answers.
    Failed {
        error: Error,
        skipped: bool,
    },
}

impl Save {
    pub fn new(uuid: JobUuid, here: Option<BTreeSet<Rank>>, now: Duration) -> Save {
        Save {
            uuid,
            here,
            parts: BTreeMap::new(),
            since: now,
            pace: Pace::yielding(),
            is_awaited: false,
            io: false,
            adopted: false,
            failures: 0,
            last_error: None,
            without_base: false,
            decided: None,
        }
    }

    /// Whether all that this node is to persist is sealed, and nothing of it is on its way. Parts may be durable already:
    /// where a restarted sidecar did not know who lives here, what was sealed then did not wait for the others.
    pub fn is_ready(&self) -> bool {
        let safe = |part: &Part| matches!(part.stage, Stage::Sealed { .. } | Stage::Durable(_));
        let whole = match &self.here {
            Some(here) if !self.adopted => here.iter().all(|rank| self.parts.get(rank).is_some_and(safe)),
            _ => true,
        };
        whole
            && !self.io
            && self.decided.is_none()
            && self.parts.values().all(safe)
            && self.parts.values().any(Part::is_to_persist)
    }

    /// Its end is still to be waited for: a trainer that is copying seals in a moment.
    pub fn is_held(&self) -> bool {
        self.is_only_in_memory() || self.parts.values().any(|part| matches!(part.stage, Stage::Filling))
    }

    /// Lost if this process and its memory went now.
    pub fn is_only_in_memory(&self) -> bool {
        self.parts.values().any(|part| matches!(part.stage, Stage::Sealed { .. } | Stage::Durable(_)))
    }
}

impl Part {
    /// Sealed, and not durable yet.
    pub fn is_to_persist(&self) -> bool {
        matches!(self.stage, Stage::Sealed { .. })
    }
}

impl State {
    pub fn save_of(&mut self, id: &SaveId, uuid: JobUuid, expected: &[u32]) -> &mut Save {
        let now = self.clock.now();
        let node = self.node.clone();
        let here = self.jobs.get(&id.job).and_then(|job| job.here(&node, id.generation, expected));
        if !self.saves.contains_key(id) {
            self.job(&id.job).note_save(now);
        }
        self.saves.entry(id.clone()).or_insert_with(|| Save::new(uuid, here, now))
    }

    /// The save whose part lies in that filling of a slot.
    pub fn save_in(&self, key: SlotKey, fill: u64) -> Option<&SaveId> {
        let lies = |save: &Save| save.parts.values().any(|part| part.slot == Some((key, fill)));
        self.saves.iter().find(|(_, save)| lies(save)).map(|(id, _)| id)
    }

    /// A trainer waits for what is done in the background for that filling of a slot.
    pub fn await_save_in(&mut self, key: SlotKey, fill: u64) {
        let id = self.save_in(key, fill).cloned();
        if let Some(save) = id.and_then(|id| self.saves.get_mut(&id)) {
            save.is_awaited = true;
        }
    }

    /// The id of a session's attempt at a step.
    pub fn save_id(&self, session: SessionId, step: Step) -> Option<SaveId> {
        let session = self.sessions.get(&session)?;
        Some(SaveId { job: session.record.job.clone(), step, generation: session.generation() })
    }

    /// The header of a part's slot says Sealed: takes note, reports it, and persists when the node has all. False when
    /// it is not sealed. Idempotent.
    pub fn note_sealed(&mut self, id: &SaveId, rank: Rank) -> Result<bool> {
        let Some(part) = self.saves.get(id).and_then(|save| save.parts.get(&rank)) else { return Ok(false) };
        let (Stage::Filling, Some((key, fill))) = (&part.stage, part.slot) else {
            return Ok(matches!(part.stage, Stage::Sealed { .. } | Stage::Durable(_)));
        };
        let Some(entry) = self.arenas.get_mut(key) else { return Ok(false) };
        let snapshot = entry.slot.snapshot()?;
        if snapshot.fill != fill || snapshot.state != SlotState::Sealed {
            return Ok(false);
        }
        let told = match part.is_told {
            true => None,
            false => Some(begun_in(&entry.slot)?),
        };
        entry.used = Use::Sealed;
        if let Some(begun) = told {
            self.is_told(id, rank, begun);
        }
        self.sealed(id, rank, snapshot.data_bytes);
        self.todo.push(Todo::Sum(key, fill));
        Ok(true)
    }

    /// Seals whose telling is still on its way.
    pub fn note_all_sealed(&mut self) {
        let parts: Vec<(SaveId, Rank)> = self
            .saves
            .iter()
            .flat_map(|(id, save)| save.parts.keys().map(move |rank| (id.clone(), *rank)))
            .collect();
        for (id, rank) in parts {
            if let Err(error) = self.note_sealed(&id, rank) {
                tracing::error!("looking for a seal: {error}");
            }
        }
    }

    /// Whether the header of a part's slot says Sealed; changes nothing.
    pub fn is_sealed(&self, id: &SaveId, rank: Rank) -> bool {
        let part = self.saves.get(id).and_then(|save| save.parts.get(&rank));
        let slot = part.and_then(|part| part.slot).and_then(|(key, _)| self.arenas.get(key));
        let snapshot = slot.and_then(|entry| entry.slot.snapshot().ok());
        snapshot.is_some_and(|snapshot| snapshot.state == SlotState::Sealed)
    }

    fn is_told(&mut self, id: &SaveId, rank: Rank, begun: v1::SaveBegun) {
        let here = self.jobs.get(&id.job).and_then(|job| job.here(&self.node, id.generation, &begun.ranks));
        let Some(save) = self.saves.get_mut(id) else { return };
        save.here = here;
        if let Some(part) = save.parts.get_mut(&rank) {
            (part.begun, part.is_told) = (begun, true);
        }
    }

    fn sealed(&mut self, id: &SaveId, rank: Rank, bytes: u64) {
        let Some(save) = self.saves.get_mut(id) else { return };
        let Some(part) = save.parts.get_mut(&rank) else { return };
        part.stage = Stage::Sealed { bytes };
        let report = sealed_report(part, bytes);
        self.metrics.saves_sealed.inc();
        self.line.report(Report::Sealed(report));
        self.persist_if_ready(id);
    }

    pub fn persist_if_ready(&mut self, id: &SaveId) {
        if self.saves.get(id).is_some_and(Save::is_ready) {
            self.todo.push(Todo::Persist(id.clone()));
        }
    }

    /// A part that can't be saved: its step is abandoned on all ranks as soon as the coordinator hears of it. The first
    /// reason stands.
    pub fn fail_part(&mut self, id: &SaveId, rank: Rank, error: Error, skipped: bool) {
        let part = self.saves.get_mut(id).and_then(|save| save.parts.get_mut(&rank));
        let Some(part) = part.filter(|part| !matches!(part.stage, Stage::Failed { .. })) else { return };
        let slot = part.slot.take();
        part.stage = Stage::Failed { error, skipped };
        let report = failed_report(part);
        if let Some((key, fill)) = slot {
            self.arenas.free(key, fill);
        }
        let counted = if skipped { &self.metrics.saves_skipped } else { &self.metrics.saves_failed };
        counted.inc();
        self.line.report(Report::Failed(report));
    }

    /// Before a trainer begins another save: it is in no copy any more. What it never sealed was given up by it.
    pub fn finish_earlier(&mut self, session: SessionId, step: Step) {
        let earlier: Vec<(SaveId, Rank)> = self
            .saves
            .iter()
            .filter(|(id, _)| id.step != step)
            .flat_map(|(id, save)| save.parts.iter().map(move |(rank, part)| (id, *rank, part)))
            .filter(|(_, _, part)| {
                part.session == session && matches!(part.stage, Stage::Filling | Stage::Waiting)
            })
            .map(|(id, rank, _)| (id.clone(), rank))
            .collect();
        for (id, rank) in earlier {
            if !self.note_sealed(&id, rank).unwrap_or(false) {
                let error = Error::unavailable("its trainer went on without sealing it");
                self.fail_part(&id, rank, error, false);
            }
        }
        self.arenas.let_go(session);
    }

    /// Frees the slot of a step that the store does not take, past its time (a full one: past its tries), for a newer
    /// one. Whether there was one.
    pub fn give_up_stalest(&mut self, session: SessionId, error: &Error, older_than: Duration) -> bool {
        let now = self.now();
        let stale = self.saves.iter().find(|(_, save)| {
            // One that is durable waits for the coordinator, not for the store.
            let held = |part: &Part| part.slot.is_some() && !matches!(part.stage, Stage::Durable(_));
            // A dead trainer's arena is its successor's.
            let is_ours = |part: &Part| {
                let arena = part.slot.and_then(|(key, _)| self.arenas.by_id.get(&key.arena));
                part.session == session || arena.is_some_and(|arena| arena.writer == Some(session))
            };
            let ours = save.parts.values().any(|part| is_ours(part) && held(part));
            let full = save.last_error.as_ref().is_some_and(|error| error.kind == Kind::Overloaded);
            let late = now.saturating_sub(save.since) >= older_than || (full && save.failures >= FULL_TRIES);
            ours && save.failures > 0 && !save.io && late
        });
        let Some((id, save)) = stale else { return false };
        let (id, ranks) = (id.clone(), save.parts.keys().copied().collect::<Vec<_>>());
        let error = save.last_error.clone().unwrap_or_else(|| error.clone());
        for rank in ranks {
            self.fail_part(&id, rank, error.clone(), false);
        }
        true
    }

    /// Tells the trainers of an attempt.
    pub fn push_step(&mut self, id: &SaveId, event: v1::StepEvent) {
        for session in self.sessions.values_mut() {
            let committed = event.info.is_some();
            if session.record.job == id.job && (committed || session.generation() == id.generation) {
                session.push(Event::Step(event.clone()));
            }
        }
    }

    pub fn warn_trainers(&mut self, job: &JobName, message: &str) {
        for session in self.sessions.values_mut().filter(|session| session.record.job == *job) {
            session.push(Event::Warning(v1::Warning { message: message.to_owned() }));
        }
    }
}

/// What a sealed slot's index says about its save.
pub(super) fn begun_in(slot: &Slot) -> Result<v1::SaveBegun> {
    v1::SaveBegun::decode(slot.index()?.begun.as_slice())
        .map_err(|error| Error::corrupt(format!("reading what {slot} holds: {error}")))
}

pub(super) fn sealed_report(part: &Part, bytes: u64) -> v1::SealedReport {
    let begun = part.begun.clone();
    v1::SealedReport { caller: begun.caller.clone(), step: begun.step, bytes, begun: Some(begun) }
}

pub(in super::super) fn durable_report(part: &Part, durable: &Durable) -> v1::DurableReport {
    v1::DurableReport {
        caller: part.begun.caller.clone(),
        step: part.begun.step,
        manifest_path: durable.manifest_path.clone(),
        manifest_blake3: durable.blake3.clone(),
        manifest_bytes: durable.bytes,
        state_bytes: durable.state_bytes,
        stored_bytes: durable.stored_bytes,
        begun: Some(part.begun.clone()),
    }
}

pub(super) fn failed_report(part: &Part) -> v1::SaveFailed {
    let (kind, reason, skipped) = match &part.stage {
        Stage::Failed { error, skipped } => (error.kind, error.message.clone(), *skipped),
        _ => (Kind::Internal, "it has not failed".to_owned(), false),
    };
    v1::SaveFailed {
        caller: part.begun.caller.clone(),
        step: part.begun.step,
        skipped,
        kind: kind.name().to_owned(),
        reason,
    }
}

/// What the trainers of a step hear of its end.
pub(super) fn step_event(step: Step, outcome: &Outcome) -> v1::StepEvent {
    match outcome {
        Outcome::Committed(info) => v1::StepEvent {
            step: step.0,
            state: "committed".to_owned(),
            info: Some((**info).clone()),
            ..Default::default()
        },
        Outcome::Abandoned { error, skipped } => v1::StepEvent {
            step: step.0,
            state: if *skipped { "skipped" } else { "failed" }.to_owned(),
            info: None,
            kind: error.kind.name().to_owned(),
            reason: error.message.clone(),
        },
    }
}
