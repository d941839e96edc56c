//! Saves under way: who has begun, sealed, made durable; when all have, the intent and its COMMIT are driven. Not
//! logged beyond the attempt itself: sidecars repeat their reports after every reconnect until they are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::state::{AttemptId, Command, Standing};
use super::{Engine, barriers, convert};
use crate::error::{Error, Kind, Result};
use crate::format::{CommitRecord, RankManifest};
use crate::ids::{Generation, JobName, Rank, Step};
use crate::proto::v1::{self, node_command::Command as Push, step_outcome::State as StepState};

#[derive(Default)]
pub struct Saves {
    pub(super) by_id: BTreeMap<AttemptId, Progress>,
    pub(super) writes: BTreeMap<AttemptId, super::commits::Write>,
    /// Ranks that have left a generation, and everything they had saved has been reported.
    left: BTreeMap<(JobName, Generation), BTreeSet<Rank>>,
}

pub struct Progress {
    pub begun: BTreeMap<Rank, v1::SaveBegun>,
    /// By rank, the node that holds its sealed slot.
    pub sealed: BTreeMap<Rank, String>,
    pub durable: BTreeMap<Rank, (String, v1::DurableReport)>,
    since: Duration,
    late: bool,
}

impl Engine {
    /// The attempt a report is about, if its fate is open. Decided ones are answered to that node at once.
    fn reported(&mut self, node: &str, begun: &v1::SaveBegun, alive: bool) -> Option<AttemptId> {
        let rank = Rank(begun.caller.as_ref().map_or(0, |caller| caller.rank));
        let id = attempt_of(begun)?;
        if let Some(node) = self.nodes.by_name.get_mut(node) {
            node.jobs.insert(id.job.clone());
        }
        // A job the log has never heard of: kept until its sidecar registers it and a generation settles its slots.
        if self.state.job(&id.job).is_err() || id.generation.0 == 0 {
            return Some(id);
        }
        if let Err(error) = self.ensure_attempt(&id, begun, alive) {
            self.abandon(&id, &error);
        }
        self.abandon_without_the_left(&id, rank);
        if let Some(outcome) = self.final_outcome(&id) {
            self.push_node(node, Push::Step(outcome));
            return None;
        }
        Some(id)
    }

    /// A step was written whose fate was decided meanwhile: given up, or committed and removed (a sidecar that was restarted
    /// has written it anew). Whoever removed its objects may have come too early.
    fn sweep_late(&mut self, durable: &v1::SaveBegun) {
        let Some(id) = attempt_of(durable) else { return };
        let Ok(known) = self.state.job(&id.job) else { return };
        let is_late = matches!(known.standing(&id), Standing::Retired | Standing::Abandoned { .. });
        if !is_late || self.is_still_swept(&id) {
            return;
        }
        if let Err(error) = self.submit(Command::SweepRetired { id: id.clone() }) {
            self.warn(&id.job, error.message);
        }
    }

    /// Steps that this rank has not begun can't become whole any more: told at once, so that nobody waits for them.
    pub(super) fn rank_left(&mut self, left: v1::RankLeft) {
        let caller = left.caller.unwrap_or_default();
        let Ok(job) = caller.job.parse::<JobName>() else { return };
        let (generation, rank) = (Generation(caller.generation), Rank(caller.rank));
        let Ok(known) = self.state.job(&job) else { return };
        let pending = known.attempts.iter().filter(|attempt| attempt.generation == generation);
        let pending: Vec<Step> = pending.map(|attempt| attempt.step).collect();
        self.saves.left.entry((job.clone(), generation)).or_default().insert(rank);
        for step in pending {
            let id = AttemptId { job: job.clone(), step, generation };
            let began = self.saves.by_id.get(&id).is_some_and(|progress| progress.begun.contains_key(&rank));
            if !began {
                self.abandon_without(&id, rank);
            }
        }
    }

    /// A save that `reporter` tells of, and that waits for a rank that is gone.
    fn abandon_without_the_left(&mut self, id: &AttemptId, reporter: Rank) {
        let Some(left) = self.saves.left.get(&(id.job.clone(), id.generation)) else { return };
        let begun = self.saves.by_id.get(id).map(|progress| &progress.begun);
        let is_missing =
            |rank: &&Rank| **rank != reporter && begun.is_none_or(|begun| !begun.contains_key(rank));
        if let Some(rank) = left.iter().find(is_missing).copied() {
            self.abandon_without(id, rank);
        }
    }

    fn abandon_without(&mut self, id: &AttemptId, rank: Rank) {
        let Ok(known) = self.state.job(&id.job) else { return };
        if !known.attempt(id).is_some_and(|attempt| attempt.ranks.contains(&rank)) {
            return;
        }
        let error = Error::invalid(format!("rank {rank} has left the job without saving it"))
            .hint("save is collective: every rank saves the same steps before it leaves");
        self.abandon(id, &error);
    }

    /// No report of an earlier generation counts once the next one has opened.
    pub(super) fn forget_left(&mut self, job: &JobName) {
        self.saves.left.retain(|(name, _), _| name != job);
    }

    fn ensure_attempt(&mut self, id: &AttemptId, begun: &v1::SaveBegun, alive: bool) -> Result<()> {
        let kind = convert::kind(begun.kind)?;
        let bases: BTreeSet<Step> = begun.base_steps.iter().copied().map(Step).collect();
        let known = self.state.job(&id.job)?;
        let all = || (0..known.world.0).map(Rank).collect();
        let ranks: BTreeSet<Rank> = match begun.ranks.is_empty() {
            true => all(),
            false => begun.ranks.iter().copied().map(Rank).collect(),
        };
        match known.standing(id) {
            Standing::Retired if !alive => Ok(()),
            // The number of a step that was removed may be saved anew.
            Standing::Unknown | Standing::Retired => {
                // A new save needs a living generation; what is sealed already may still be adopted.
                if alive {
                    known.fence(&id.job, id.generation)?;
                }
                self.check_number_elsewhere(&id.job, id.step)?;
                if self.is_being_swept(id) {
                    return Err(Error::conflict(format!(
                        "saving step {}: what an earlier save of it left is being removed",
                        id.step
                    ))
                    .hint("save again when it is gone"));
                }
                self.submit(Command::Begin { id: id.clone(), kind, ranks, bases })
            }
            Standing::Pending(attempt) => {
                let who = begun.caller.as_ref().map_or(0, |caller| caller.rank);
                if attempt.kind != kind || attempt.ranks != ranks {
                    return Err(Error::invalid(format!(
                        "saving step {}: rank {who} saves it as {} over ranks {}, others as {} over ranks {}",
                        id.step,
                        v1::SaveKind::from(kind).as_str_name(),
                        barriers::named(&ranks),
                        v1::SaveKind::from(attempt.kind).as_str_name(),
                        barriers::named(&attempt.ranks),
                    ))
                    .hint("save is collective: every rank calls it with the same step, kind and ranks"));
                }
                match bases.is_subset(&attempt.bases) || attempt.intent.is_some() {
                    true => Ok(()),
                    false => self.submit(Command::PinBases { id: id.clone(), bases }),
                }
            }
            Standing::Committed(_) | Standing::Abandoned { .. } => Ok(()),
        }
    }

    /// Gives a step up on all its ranks, unless its commit is under way.
    pub(super) fn abandon(&mut self, id: &AttemptId, error: &Error) {
        let Ok(known) = self.state.job(&id.job) else { return };
        if known.attempt(id).is_some_and(|attempt| attempt.intent.is_some()) {
            return;
        }
        let (kind, reason) = (error.kind.name().to_owned(), error.to_string());
        if let Err(error) = self.submit(Command::Abandon { id: id.clone(), kind, reason }) {
            self.warn(&id.job, error.message);
        }
    }

    fn progress(&mut self, id: &AttemptId) -> &mut Progress {
        let now = self.now();
        self.saves.by_id.entry(id.clone()).or_insert_with(|| Progress {
            begun: BTreeMap::new(),
            sealed: BTreeMap::new(),
            durable: BTreeMap::new(),
            since: now,
            late: false,
        })
    }

    pub(super) fn save_begun(&mut self, node: &str, begun: v1::SaveBegun) {
        let Some(id) = self.reported(node, &begun, true) else { return };
        let rank = Rank(begun.caller.as_ref().map_or(0, |caller| caller.rank));
        self.progress(&id).begun.insert(rank, begun);
        self.save_seen(&id.job, id.generation);
    }

    pub(super) fn save_sealed(&mut self, node: &str, sealed: v1::SealedReport) {
        let begun = filled(sealed.begun, sealed.caller, sealed.step);
        let Some(id) = self.reported(node, &begun, false) else { return };
        let rank = Rank(begun.caller.as_ref().map_or(0, |caller| caller.rank));
        let progress = self.progress(&id);
        progress.begun.insert(rank, begun);
        progress.sealed.insert(rank, node.to_owned());
        self.restores_changed(&id.job);
    }

    pub(super) fn save_durable(&mut self, node: &str, mut durable: v1::DurableReport) {
        let begun = filled(durable.begun.take(), durable.caller.clone(), durable.step);
        let Some(id) = self.reported(node, &begun, false) else { return self.sweep_late(&begun) };
        let rank = Rank(begun.caller.as_ref().map_or(0, |caller| caller.rank));
        let progress = self.progress(&id);
        progress.begun.insert(rank, begun);
        progress.sealed.entry(rank).or_insert_with(|| node.to_owned());
        progress.durable.insert(rank, (node.to_owned(), durable));
        self.try_intend(&id);
    }

    /// What a node had sealed and does not announce any more was lost with its memory: no rank need wait for it, and no
    /// generation may adopt it.
    pub(super) fn keep_announced(&mut self, node: &str, announced: &[(Option<&v1::Caller>, u64)]) {
        let is_announced = |id: &AttemptId, rank: Rank| {
            announced.iter().any(|(caller, step)| {
                let is_same = |caller: &v1::Caller| {
                    caller.job == id.job.as_str()
                        && (caller.generation, caller.rank) == (id.generation.0, rank.0)
                };
                *step == id.step.0 && caller.is_some_and(is_same)
            })
        };
        let mut lost = Vec::new();
        for (id, progress) in &self.saves.by_id {
            let held = progress.sealed.iter().filter(|(_, holder)| *holder == node).map(|(rank, _)| *rank);
            let mut gone =
                held.filter(|rank| !progress.durable.contains_key(rank) && !is_announced(id, *rank));
            lost.extend(gone.next().map(|rank| (id.clone(), rank)));
        }
        for (id, rank) in lost {
            let what = format!("rank {rank} had sealed it in the memory of {node}, which was lost");
            self.abandon(&id, &Error::unavailable(what).hint("save again: the next step is whole"));
        }
    }

    pub(super) fn save_failed(&mut self, node: &str, failed: v1::SaveFailed) {
        let caller = failed.caller.unwrap_or_default();
        let Ok(job) = caller.job.parse::<JobName>() else { return };
        let id = AttemptId { job, step: Step(failed.step), generation: Generation(caller.generation) };
        let kind = Kind::from_name(&failed.kind).unwrap_or(Kind::Internal);
        let what = if failed.skipped { "skipped it" } else { "could not save it" };
        self.abandon(&id, &Error::new(kind, format!("rank {} {what}: {}", caller.rank, failed.reason)));
        if let Some(outcome) = self.final_outcome(&id) {
            self.push_node(node, Push::Step(outcome));
        }
    }

    /// When every expected rank is durable and they agree: log the intent.
    pub(super) fn try_intend(&mut self, id: &AttemptId) {
        let Ok(known) = self.state.job(&id.job) else { return };
        let Some(attempt) = known.attempt(id).filter(|attempt| attempt.intent.is_none()) else { return };
        let Some(progress) = self.saves.by_id.get(id) else { return };
        if attempt.ranks.is_empty() || !attempt.ranks.iter().all(|rank| progress.durable.contains_key(rank)) {
            return;
        }
        // Another attempt's commit of this number is under way: its outcome decides about this one.
        if known.attempts.iter().any(|other| other.step == id.step && other.intent.is_some()) {
            return;
        }
        let first = &progress.begun[attempt.ranks.first().expect("not empty")];
        let apart: Vec<Rank> =
            attempt.ranks.iter().copied().filter(|rank| progress.begun[rank].data != first.data).collect();
        if !apart.is_empty() {
            let error = Error::invalid(format!(
                "committing {id}: the data position of rank {} is not that of rank {}",
                convert::list(&apart),
                attempt.ranks.first().expect("not empty")
            ))
            .hint("every rank must have taken the same number of batches when it saves");
            return self.abandon(id, &error);
        }
        let text = |pick: fn(&v1::SaveBegun) -> &String| {
            attempt
                .ranks
                .iter()
                .map(|rank| pick(&progress.begun[rank]))
                .find(|text| !text.is_empty())
                .cloned()
        };
        let manifest = |rank: &Rank| {
            let durable = &progress.durable[rank].1;
            RankManifest {
                rank: *rank,
                path: durable.manifest_path.clone(),
                blake3: durable.manifest_blake3.clone(),
                bytes: durable.manifest_bytes,
                state_bytes: durable.state_bytes,
                stored_bytes: durable.stored_bytes,
            }
        };
        let intent = CommitRecord {
            job: id.job.clone(),
            job_uuid: known.uuid.unwrap_or(crate::ids::JobUuid(uuid::Uuid::nil())),
            step: id.step,
            generation: id.generation,
            authority: attempt.adopted_by.unwrap_or(id.generation),
            kind: attempt.kind,
            world_size: attempt.world,
            committed_unix_ms: self.unix_ms(),
            base_steps: attempt.bases.iter().copied().collect(),
            data: first.data.iter().cloned().map(Into::into).collect(),
            metrics_json: text(|begun| &begun.metrics_json).unwrap_or_default(),
            meta_json: text(|begun| &begun.meta_json).unwrap_or_default(),
            ranks: attempt.ranks.iter().map(manifest).collect(),
        };
        if let Err(error) = self.submit(Command::Intend { id: id.clone(), intent: Box::new(intent) }) {
            self.abandon(id, &error);
        }
    }

    /// Attempts of an ended generation that nobody may commit any more: their slots are freed.
    pub(super) fn answer_stale_reports(&mut self, job: &JobName) {
        let known: Vec<AttemptId> = self.saves.by_id.keys().filter(|id| id.job == *job).cloned().collect();
        for id in known {
            if let Some(outcome) = self.final_outcome(&id) {
                self.push_job(job, Push::Step(outcome));
                self.forget_save(&id);
            }
        }
    }

    /// Since its first report; None for one that this coordinator has not seen from its beginning.
    pub(super) fn save_took(&self, id: &AttemptId) -> Option<Duration> {
        self.saves.by_id.get(id).map(|progress| self.now().saturating_sub(progress.since))
    }

    pub(super) fn forget_save(&mut self, id: &AttemptId) {
        if let Some(progress) = self.saves.by_id.remove(id) {
            let took = self.now().saturating_sub(progress.since);
            self.metrics.commit_time.observe(took.as_secs_f64());
        }
        self.saves.writes.remove(id);
    }

    /// Pending attempts that every rank of their set has sealed on an attached sidecar, or made durable.
    pub(super) fn adoptable(&self, job: &JobName) -> BTreeSet<AttemptId> {
        let Ok(known) = self.state.job(job) else { return BTreeSet::new() };
        let ids = known.attempts.iter().map(|attempt| {
            (AttemptId { job: job.clone(), step: attempt.step, generation: attempt.generation }, attempt)
        });
        let whole = ids.filter(|(id, attempt)| attempt.ranks.iter().all(|rank| self.holds(id, *rank)));
        whole.map(|(id, _)| id).collect()
    }

    fn holds(&self, id: &AttemptId, rank: Rank) -> bool {
        self.saves.by_id.get(id).is_some_and(|progress| {
            progress.durable.contains_key(&rank)
                || progress.sealed.get(&rank).is_some_and(|node| self.is_attached(node))
        })
    }

    /// Tells once, per attempt, that it is late and who is missing; it stays pending.
    pub(super) fn check_saves(&mut self) {
        let (now, limit) = (self.now(), self.settings.timings.commit_timeout);
        let mut late = Vec::new();
        for (id, progress) in &mut self.saves.by_id {
            if !progress.late && now.saturating_sub(progress.since) >= limit {
                progress.late = true;
                late.push(id.clone());
            }
        }
        for id in late {
            let missing = self.missing(&id);
            self.metrics.steps_late.inc();
            let reason = format!("{id} is not durable on rank {} after {limit:?}", convert::list(&missing));
            let mut message =
                self.outcome_message(&id, StepState::Late, Kind::Timeout.name().to_owned(), reason.clone());
            message.missing_ranks = convert::some_ranks(missing);
            self.push_job(&id.job, Push::Step(message));
            self.warn(&id.job, reason);
        }
        self.metrics.pending_steps.set(self.saves.by_id.len() as i64);
        self.check_commits();
    }

    /// Expected ranks of an attempt that are not durable.
    pub(super) fn missing(&self, id: &AttemptId) -> Vec<Rank> {
        let Some(attempt) = self.state.job(&id.job).ok().and_then(|known| known.attempt(id)) else {
            return Vec::new();
        };
        let durable = self.saves.by_id.get(id).map(|progress| &progress.durable);
        let is_missing = |rank: &&Rank| durable.is_none_or(|durable| !durable.contains_key(rank));
        attempt.ranks.iter().filter(is_missing).copied().collect()
    }
}

fn attempt_of(begun: &v1::SaveBegun) -> Option<AttemptId> {
    let caller = begun.caller.as_ref()?;
    Some(AttemptId {
        job: caller.job.parse().ok()?,
        step: Step(begun.step),
        generation: Generation(caller.generation),
    })
}

/// Reports repeat the save; what a terse one leaves out is in the report itself.
fn filled(begun: Option<v1::SaveBegun>, caller: Option<v1::Caller>, step: u64) -> v1::SaveBegun {
    let mut begun = begun.unwrap_or_default();
    begun.step = step;
    begun.caller = caller.or(begun.caller);
    begun
}
