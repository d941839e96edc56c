//! Generations that open and end, as the coordinator tells them.

use super::{State, Todo};
use crate::ids::{Generation, JobName, Rank, SessionId};
use crate::proto::v1::{self, session_event::Event};

impl State {
    pub fn generation_opened(&mut self, opened: v1::Generation) {
        let Ok(job) = opened.job.parse::<JobName>() else { return };
        let generation = Generation(opened.generation);
        let known = self.job(&job);
        if known.latest > generation {
            return;
        }
        // An answer that was sent before it ended, and comes behind the push that told us.
        let is_over = known.ended.as_ref().is_some_and(|ended| ended.generation >= opened.generation);
        let is_new = known.open.as_ref().is_none_or(|open| open.generation != opened.generation);
        if is_new && !is_over {
            let node = self.node.clone();
            self.job(&job).opened(&opened, &node);
            self.barriers.forget_before(&job, generation);
            self.note_job(&job);
            if !self.job(&job).neighbours(&node).is_empty() {
                self.todo.push(Todo::CheckShared(job.clone()));
            }
        }
        let joining: Vec<SessionId> =
            self.sessions.values().filter(|s| s.record.job == job).map(|s| s.record.id).collect();
        for session in joining {
            self.join_generation(session);
        }
        self.early_queries(&job);
        self.place_saves(&job);
    }

    /// A session whose registration is in the open generation becomes its member.
    pub fn join_generation(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.record.generation.is_some()
            || session.fenced.is_some()
            || session.record.incarnation.is_empty()
        {
            return;
        }
        let Some(known) = self.jobs.get(&session.record.job) else { return };
        let is_ours = |open: &v1::Generation| {
            let rank = session.record.rank;
            open.generation >= session.record.joining.0
                && open.members.iter().any(|member| Rank(member.rank) == rank && member.node == self.node)
        };
        if let Some(open) = known.open.clone().filter(is_ours) {
            session.record.generation = Some(Generation(open.generation));
            session.push(Event::GenerationOpened(open));
            self.note_session(id);
            return;
        }
        // It opened and ended before we heard of our registration.
        let ended = known.ended.clone().filter(|ended| ended.generation >= session.record.joining.0);
        if let Some(ended) = ended {
            session.fence(ended);
        }
    }

    pub fn generation_ended(&mut self, ended: v1::GenerationEnded) {
        let Ok(job) = ended.job.parse::<JobName>() else { return };
        let known = self.job(&job);
        if known.open.as_ref().is_some_and(|open| open.generation == ended.generation) {
            known.open = None;
        }
        if known.ended.as_ref().is_none_or(|before| before.generation <= ended.generation) {
            known.ended = Some(ended.clone());
        }
        let members = self.sessions.values_mut().filter(|session| session.record.job == job);
        for session in members.filter(|session| session.generation().0 == ended.generation) {
            session.fence(ended.clone());
        }
        self.barriers.forget_before(&job, Generation(ended.generation + 1));
        self.deaths_are_known(&ended);
        self.todo.push(Todo::AwaitSeals(job, Generation(ended.generation)));
        self.forget_idle_sessions();
    }

    /// Another coordinator state answers under the same address: what it never registered is nobody's member.
    pub fn cluster_changed(&mut self) {
        for session in self.sessions.values_mut() {
            let reason = "the coordinator's state was replaced".to_owned();
            let generation = session.generation().0;
            session.fence(v1::GenerationEnded { generation, reason, ..Default::default() });
        }
    }

    /// Saves that were found before the members of their generation were known.
    fn place_saves(&mut self, job: &JobName) {
        let unplaced: Vec<super::SaveId> = self
            .saves
            .iter()
            .filter(|(id, save)| id.job == *job && save.here.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in unplaced {
            let node = self.node.clone();
            let Some(save) = self.saves.get_mut(&id) else { continue };
            let ranks = save.parts.values().next().map(|part| part.begun.ranks.clone()).unwrap_or_default();
            let here = self.jobs.get(job).and_then(|known| known.here(&node, id.generation, &ranks));
            if let Some(save) = self.saves.get_mut(&id) {
                save.here = here;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MachineClock;
    use crate::telemetry::Metrics;

    #[test]
    fn p6_late_answer_opens_no_generation_that_has_ended() {
        let mut state = State::new("n".into(), MachineClock::shared(), Metrics::new(), Default::default());
        let job: JobName = "j".parse().unwrap();
        let opened =
            |generation| v1::Generation { job: "j".into(), generation, world_size: 1, ..Default::default() };
        let open = |state: &State| state.jobs[&job].open.as_ref().map(|open| open.generation);
        state.generation_opened(opened(1));
        assert_eq!(open(&state), Some(1));
        state.generation_ended(v1::GenerationEnded { job: "j".into(), generation: 1, ..Default::default() });
        state.generation_opened(opened(1));
        assert_eq!(open(&state), None);
        state.generation_opened(opened(2));
        assert_eq!(open(&state), Some(2));
    }
}
