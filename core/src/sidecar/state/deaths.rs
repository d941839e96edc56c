//! Trainers that are proved dead: what they had sealed is reported first, then their death.

use std::time::Duration;

use super::super::records;
use super::session::Events;
use super::{Session, Stage, State, Todo};
use crate::error::Error;
use crate::ids::{Rank, SessionId};
use crate::proto::v1::{self, node_report::Report};

/// A death is told on every new line for so long: the one it was told on may have broken.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// The session's record stays until the coordinator knows of it: should it and this sidecar be killed before that, the
/// next sidecar finds the record, and the process gone, and tells it again.
pub(super) struct Death {
    pub report: v1::RankDied,
    uid: u32,
    at: Duration,
}

/// What the coordinator is told of a process that ends, whoever noticed it.
const LIFE_LINE: &str = "its life line: the process is ending";

impl State {
    /// No line of its code will run again, but its memory is still there, and a system call may be writing to it. Its
    /// generation need not wait for the rest; its slots do.
    pub fn dying(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_member()) else { return };
        session.dying = true;
        let (report, rank) = (death_of(session, LIFE_LINE), session.record.rank);
        for save in self.unfinished(id, rank) {
            // Not sealed, or unreadable: that is told when it is dead, or its generation has ended.
            let _ = self.note_sealed(&save, rank);
        }
        if !report.incarnation.is_empty() {
            tracing::warn!(job = %session_job(&report), rank = rank.0, "trainer is ending");
            self.line.report(Report::Died(report));
        }
    }

    /// Its process has exited.
    pub fn died(&mut self, id: SessionId, evidence: &str) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (rank, was_member) = (session.record.rank, session.is_member());
        let report = death_of(session, evidence);
        let (closed, uid) = (session.record.closed, session.record.uid);
        self.scan_dead(id, rank);
        for entry in self.arenas.by_id.values_mut().filter(|entry| closed && entry.writer == Some(id)) {
            entry.fate = super::Fate::Going;
        }
        if was_member && !report.incarnation.is_empty() {
            tracing::warn!(job = %session_job(&report), rank = rank.0, "trainer died ({evidence})");
            self.line.report(Report::Died(report.clone()));
            let at = self.now();
            self.deaths.push(Death { report, uid, at });
            self.drop_session(id);
        } else {
            self.remove_session(id);
        }
    }

    /// What it sealed and could not tell is sealed; what it was filling is nobody's.
    fn scan_dead(&mut self, id: SessionId, rank: Rank) {
        for save in self.unfinished(id, rank) {
            match self.note_sealed(&save, rank) {
                Ok(true) => {}
                Ok(false) => {
                    self.fail_part(
                        &save,
                        rank,
                        // For the other ranks: their generation ends with it.
                        Error::fenced("its trainer died before it was sealed"),
                        false,
                    );
                }
                Err(error) => self.fail_part(&save, rank, error, false),
            }
        }
    }

    /// Saves of which this session has not sealed its part, as far as is known.
    fn unfinished(&self, id: SessionId, rank: Rank) -> Vec<super::SaveId> {
        let is_open = |save: &super::Save| {
            save.parts.get(&rank).is_some_and(|part| {
                part.session == id && matches!(part.stage, Stage::Filling | Stage::Waiting)
            })
        };
        self.saves.iter().filter(|(_, save)| is_open(save)).map(|(save, _)| save.clone()).collect()
    }

    /// Said goodbye: what it sealed is still committed. Its slots pass on when nothing of it can touch them.
    /// Gives its stream, for its last word.
    pub fn left(&mut self, id: SessionId) -> Option<Events> {
        let session = self.sessions.get_mut(&id)?;
        session.record.closed = true;
        let stream = session.events.take();
        let (rank, caller) = (session.record.rank, session.caller());
        self.scan_dead(id, rank);
        self.line.report(Report::Left(v1::RankLeft { caller: Some(caller) }));
        let reads = self.sessions.get(&id).is_some_and(|session| !session.record.leases.is_empty());
        if reads {
            // Its process may still look at restored views: kept until it has given the last one back, or is dead.
            self.note_session(id);
            return stream;
        }
        self.forget_left(id);
        stream
    }

    /// It said goodbye, and reads nothing any more.
    pub(super) fn forget_left(&mut self, id: SessionId) {
        for entry in self.arenas.by_id.values_mut().filter(|entry| entry.writer == Some(id)) {
            entry.fate = super::Fate::Going;
        }
        self.remove_session(id);
    }

    /// Nothing of the session is left that could touch a slot.
    fn remove_session(&mut self, id: SessionId) {
        if let Some(uid) = self.drop_session(id) {
            self.forget_record(uid, id);
        }
    }

    fn forget_record(&self, uid: u32, id: SessionId) {
        let folder = self.folders.get(&uid);
        if let Some(Err(error)) = folder.map(|folder| records::remove_session(folder, id)) {
            tracing::error!("forgetting a session: {error}");
        }
    }

    /// All of it but its record; whose it was.
    fn drop_session(&mut self, id: SessionId) -> Option<u32> {
        self.release_all(id);
        self.arenas.let_go(id);
        let now = self.now();
        for entry in self.arenas.by_id.values_mut().filter(|entry| entry.writer == Some(id)) {
            (entry.writer, entry.idle_since) = (None, now);
        }
        let session = self.sessions.remove(&id)?;
        self.todo.push(Todo::Sweep);
        Some(session.record.uid)
    }

    /// Ends a session that never came to be.
    pub fn never_joined(&mut self, id: SessionId) {
        self.remove_session(id);
    }

    /// Fenced sessions whose stream is gone and that touch nothing: their process lives, but will join anew if at all.
    pub fn forget_idle_sessions(&mut self) {
        let idle: Vec<SessionId> = self
            .sessions
            .values()
            .filter(|session| session.fenced.is_some() && session.events.is_none())
            .map(|session| session.record.id)
            .collect();
        for id in idle {
            let busy = self.arenas.slots().any(|(_, entry, slot)| {
                entry.writer == Some(id)
                    || matches!(slot.used, super::Use::Filling(who) | super::Use::Vacated(who) if who == id)
            });
            // Without a proof of death its arena stays out of others' hands, and so does its number.
            if !busy && self.sessions[&id].record.leases.is_empty() {
                self.remove_session(id);
            }
        }
    }

    /// The coordinator has ended their generation: nothing is left to tell it.
    pub(super) fn deaths_are_known(&mut self, ended: &v1::GenerationEnded) {
        self.forget_deaths(|death| {
            let caller = death.report.caller.as_ref();
            caller.is_some_and(|who| who.job == ended.job && who.generation <= ended.generation)
        });
    }

    fn forget_deaths(&mut self, is_told: impl Fn(&Death) -> bool) {
        let (told, open) = std::mem::take(&mut self.deaths).into_iter().partition(is_told);
        self.deaths = open;
        for death in told as Vec<Death> {
            self.forget_record(death.uid, SessionId(death.report.session));
        }
    }

    /// What the coordinator may not have heard: a private sidecar that ended with one of these would leave a log in
    /// which the rank lives.
    pub(in super::super) fn recent_deaths(&mut self) -> Vec<v1::RankDied> {
        let now = self.now();
        self.forget_deaths(|death| now.saturating_sub(death.at) >= TOLD_FOR);
        let dying = self.sessions.values().filter(|session| session.dying && session.is_member());
        let dying =
            dying.map(|session| death_of(session, LIFE_LINE)).filter(|death| !death.incarnation.is_empty());
        self.deaths.iter().map(|death| death.report.clone()).chain(dying).collect()
    }
}

fn death_of(session: &Session, evidence: &str) -> v1::RankDied {
    v1::RankDied {
        caller: Some(session.caller()),
        session: session.record.id.0,
        evidence: evidence.to_owned(),
        incarnation: session.record.incarnation.clone(),
    }
}

fn session_job(report: &v1::RankDied) -> &str {
    report.caller.as_ref().map_or("", |caller| caller.job.as_str())
}
