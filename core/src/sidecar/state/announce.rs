//! What is said on every new line to the coordinator: who lives here, what is sealed or durable and not yet answered,
//! and everything else that a broken line may have lost.

use tokio::sync::mpsc;

use super::super::settings::{SidecarSettings, TargetSettings};
use super::saves::{durable_report, failed_report, sealed_report, step_event};
use super::{Session, Stage, State};
use crate::ids::SessionId;
use crate::proto::v1::{self, node_report::Report, session_event::Event};

impl State {
    /// Puts the announcements on a fresh queue, and every later report behind them: nothing is lost in between and the
    /// order holds. `queue` has room for [`State::announcement`].
    pub fn line_up(
        &mut self,
        queue: mpsc::Sender<v1::NodeReport>,
        incarnation: &str,
        settings: &SidecarSettings,
    ) {
        self.line.problem = None;
        self.line.attached = false;
        self.line.queue = Some(queue);
        for report in self.announcement(incarnation, settings) {
            self.line.report(report);
        }
    }

    pub fn announcement(&mut self, incarnation: &str, settings: &SidecarSettings) -> Vec<Report> {
        let sessions = self.sessions.values().filter(|session| session.is_vouched_for());
        let live = sessions.map(|session| v1::LiveSession {
            job: session.record.job.to_string(),
            rank: session.record.rank.0,
            session: session.record.id.0,
            generation: session.generation().0,
            incarnation: session.record.incarnation.clone(),
        });
        let hello = v1::NodeHello {
            node: self.node.clone(),
            incarnation: incarnation.to_owned(),
            host: settings.host.clone(),
            version: Some(crate::version::ours()),
            sessions: live.collect(),
            targets: settings.targets.iter().map(TargetSettings::to_proto).collect(),
        };
        let mut slots = v1::SlotsAnnounced::default();
        let mut reports = Vec::new();
        for part in self.saves.values().flat_map(|save| save.parts.values()) {
            match &part.stage {
                Stage::Sealed { bytes } => slots.sealed.push(sealed_report(part, *bytes)),
                Stage::Durable(durable) => slots.durable.push(durable_report(part, durable)),
                Stage::Failed { .. } => reports.push(Report::Failed(failed_report(part))),
                Stage::Waiting | Stage::Filling => {}
            }
        }
        reports.extend(self.recent_deaths().into_iter().map(Report::Died));
        reports.extend(self.barriers.again().into_iter().map(Report::Arrival));
        reports.extend(self.agreement_reports());
        if self.draining {
            reports.push(Report::Draining(v1::Draining {}));
        }
        let mut all = vec![Report::Hello(hello), Report::Slots(slots)];
        all.append(&mut reports);
        all
    }

    /// A sign of life of everyone we vouch for, with where they are.
    pub fn frame(&self, sequence: u64) -> v1::Frame {
        let mut frame = v1::Frame { sequence, jobs: Vec::new() };
        for session in self.sessions.values().filter(|session| session.is_vouched_for()) {
            let silent = || v1::Progress { rank: session.record.rank.0, ..Default::default() };
            let progress = session.progress().unwrap_or_else(silent);
            part_of(&mut frame, session).ranks.push(progress);
        }
        // Of generations that have ended, and their processes have not.
        for session in self.sessions.values().filter(|session| session.is_ending()) {
            part_of(&mut frame, session).ending_ranks.push(session.record.rank.0);
        }
        frame
    }

    /// Tells a stream that was taken up again what it may have missed.
    pub fn tell_again(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.push_again();
        let generation = session.generation();
        let Some(known) = self.jobs.get(&session.record.job) else { return };
        if let Some(open) = known.open.clone().filter(|open| open.generation == generation.0) {
            session.push(Event::GenerationOpened(open));
        }
        for (step, of, outcome) in known.outcomes() {
            if of == generation {
                session.push(Event::Step(step_event(step, outcome)));
            }
        }
        self.agreements_again(id);
    }
}

/// Of its job and generation.
fn part_of<'a>(frame: &'a mut v1::Frame, session: &Session) -> &'a mut v1::JobFrame {
    let (job, generation) = (session.record.job.as_str(), session.generation().0);
    let known = frame.jobs.iter().position(|part| part.job == job && part.generation == generation);
    let at = known.unwrap_or_else(|| {
        frame.jobs.push(v1::JobFrame { job: job.to_owned(), generation, ..Default::default() });
        frame.jobs.len() - 1
    });
    &mut frame.jobs[at]
}
