//! What sidecars report, in the order of their stream.

use std::collections::{BTreeMap, BTreeSet};

use super::{AttachId, Engine};
use crate::ids::{Generation, JobName, Rank};
use crate::proto::v1::{self, node_report::Report};

impl Engine {
    pub fn report(&mut self, node: &str, id: AttachId, report: v1::NodeReport) {
        if !self.is_current(node, id) {
            return;
        }
        self.node_heard(node);
        match report.report {
            Some(Report::Frame(frame)) => self.frame(node, frame),
            Some(Report::Slots(slots)) => self.slots_announced(node, slots),
            Some(Report::Begun(begun)) => self.save_begun(node, begun),
            Some(Report::Sealed(sealed)) => self.save_sealed(node, sealed),
            Some(Report::Durable(durable)) => self.save_durable(node, durable),
            Some(Report::Failed(failed)) => self.save_failed(node, failed),
            Some(Report::Commit(outcome)) => self.commit_reported(node, outcome),
            Some(Report::Died(died)) => self.rank_died(node, died),
            Some(Report::Left(left)) => self.rank_left(left),
            Some(Report::Suspect(suspect)) => self.rank_suspect(node, suspect),
            Some(Report::Arrival(arrival)) => self.arrived(node, arrival),
            Some(Report::Preempt(notice)) => self.preempt_notice(notice),
            Some(Report::StepVote(vote)) => self.step_vote(vote),
            Some(Report::Removal(done)) if !done.target.is_empty() => {
                self.target_removal_reported(node, done)
            }
            Some(Report::Removal(done)) => self.removal_reported(node, done),
            Some(Report::Target(told)) => self.target_reported(node, told),
            Some(Report::Stack(taken)) => self.stack_taken(node, taken),
            Some(Report::Draining(_)) => {
                if let Some(node) = self.nodes.by_name.get_mut(node) {
                    node.draining = true;
                }
            }
            // A second Hello changes nothing; an empty report comes from a newer sidecar.
            Some(Report::Hello(_)) | None => {}
        }
    }

    fn node_heard(&mut self, node: &str) {
        let now = self.now();
        if let Some(node) = self.nodes.by_name.get_mut(node) {
            node.heard = now;
        }
    }

    /// Whom it names lives; whom it no longer names is left to the lease: its sidecar can't speak for it any more.
    fn frame(&mut self, node: &str, frame: v1::Frame) {
        self.metrics.heartbeats.inc();
        let mut named = BTreeSet::new();
        for part in frame.jobs {
            let Ok(job) = part.job.parse::<JobName>() else { continue };
            if !part.ending_ranks.is_empty() {
                self.ledger_lingers(&job);
            }
            for progress in part.ranks {
                let rank = Rank(progress.rank);
                self.ledger_seen(&job, Generation(part.generation), &progress);
                for incarnation in self.incarnations_at(&job, rank, node) {
                    self.beat_with_line(&incarnation, progress);
                }
                named.insert((job.clone(), rank));
            }
        }
        if let Some(node) = self.nodes.by_name.get_mut(node) {
            node.sessions = named;
        }
    }

    fn slots_announced(&mut self, node: &str, slots: v1::SlotsAnnounced) {
        let sealed = slots.sealed.iter().map(|sealed| (sealed.caller.as_ref(), sealed.step));
        let durable = slots.durable.iter().map(|durable| (durable.caller.as_ref(), durable.step));
        self.keep_announced(node, &sealed.chain(durable).collect::<Vec<_>>());
        for sealed in slots.sealed {
            self.save_sealed(node, sealed);
        }
        for durable in slots.durable {
            self.save_durable(node, durable);
        }
        if let Some(node) = self.nodes.by_name.get_mut(node) {
            node.announced = true;
        }
    }

    /// The incarnations at this node that a report about a rank means: by name, else by session.
    fn meant(&self, node: &str, caller: &v1::Caller, session: u64, incarnation: &str) -> Vec<String> {
        let Ok(job) = caller.job.parse::<JobName>() else { return Vec::new() };
        let Ok(known) = self.state.job(&job) else { return Vec::new() };
        let rank = Rank(caller.rank);
        let mut found = self.incarnations_at(&job, rank, node);
        found.retain(|who| match incarnation.is_empty() {
            false => who == incarnation,
            true => known.by_incarnation(rank, who).is_some_and(|member| member.session.0 == session),
        });
        found
    }

    fn rank_died(&mut self, node: &str, died: v1::RankDied) {
        let caller = died.caller.unwrap_or_default();
        let rank = Rank(caller.rank);
        for who in self.meant(node, &caller, died.session, &died.incarnation) {
            let Ok(job) = caller.job.parse::<JobName>() else { return };
            let host = self.nodes.by_name.get(node).map(|node| node.host.clone()).unwrap_or_default();
            let reason = format!("rank {rank} on {host} died ({})", died.evidence);
            self.lose(&job, BTreeMap::from([(rank, who)]), reason);
        }
    }

    fn rank_suspect(&mut self, node: &str, suspect: v1::RankSuspect) {
        let caller = suspect.caller.unwrap_or_default();
        for who in self.meant(node, &caller, suspect.session, "") {
            self.suspect(&who);
        }
    }
}
