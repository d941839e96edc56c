//! What nodes and trainers do: join, restore, save, meet, and obey the coordinator.

use super::host::{Answer, Request};
use super::node::{self, Attempt, JOB, Place, STORE, Slot, SlotState, name};
use super::world::{Event, World};
use crate::error::{Error, Kind, Result};
use crate::ids::{Generation, Step};
use crate::proto::v1::{self, node_command::Command, node_report::Report, step_outcome::State as StepState};

/// Of a step: as many times a rank asks whether to save.
const BOUNDARIES: u64 = 8;

impl World {
    pub fn happen_locally(&mut self, event: Event) {
        match event {
            Event::StartNode { node } => self.start_node(node),
            Event::StartTrainer { trainer } => self.start_trainer(trainer),
            Event::Act { trainer, life } => {
                if self.trainers[trainer].alive && self.trainers[trainer].life == life {
                    self.act(trainer);
                }
            }
            Event::Seal { trainer, life, attempt } => {
                if self.trainers[trainer].alive && self.trainers[trainer].life == life {
                    self.seal(self.trainers[trainer].node, attempt);
                }
            }
            Event::Persist { node, life, attempt } => {
                if self.lives(node, life) {
                    self.persist(node, attempt);
                }
            }
            Event::Publish { node, life, write, order } => {
                if self.lives(node, life) {
                    self.publish(node, write, &order);
                }
            }
            Event::Remove { node, life, order } => {
                if self.lives(node, life) {
                    self.remove(node, &order);
                }
            }
            Event::DeathSeen { node, life, died } => {
                if self.lives(node, life) {
                    self.report(node, Report::Died(*died));
                }
            }
            _ => unreachable!("happens in the world"),
        }
    }

    fn start_node(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.note(|| format!("{} starts", name(node)));
        self.nodes[node].up = true;
        self.nodes[node].life += 1;
        let life = self.nodes[node].life;
        let mut sealed = Vec::new();
        for (attempt, slot) in &mut self.nodes[node].slots {
            if matches!(slot.state, SlotState::Sealed | SlotState::Durable) {
                slot.state = SlotState::Sealed;
                sealed.push(*attempt);
            }
        }
        for attempt in sealed {
            self.within(50..800, Event::Persist { node, life, attempt });
        }
        self.after(0, Event::Attach { node, life });
        self.after(250, Event::Frame { node, life });
        for trainer in 0..self.trainers.len() {
            if self.trainers[trainer].node == node {
                self.act_within(trainer, 1..100);
            }
        }
    }

    fn start_trainer(&mut self, trainer: usize) {
        if self.trainers[trainer].alive {
            return;
        }
        self.trainers[trainer].alive = true;
        self.trainers[trainer].life += 1;
        self.join_again(trainer);
    }

    pub fn act_within(&mut self, trainer: usize, milliseconds: std::ops::Range<u64>) {
        let life = self.trainers[trainer].life;
        self.within(milliseconds, Event::Act { trainer, life });
    }

    fn join_again(&mut self, trainer: usize) {
        let session = self.number();
        let joining = &mut self.trainers[trainer];
        (joining.session, joining.place, joining.call) = (session, Place::Joining, None);
        joining.incarnation.clear();
        (joining.boundary, joining.asks) = Default::default();
        self.act_within(trainer, 50..300);
    }

    fn act(&mut self, trainer: usize) {
        let acting = &self.trainers[trainer];
        let (rank, node) = (acting.rank, acting.node);
        if acting.call.is_some() {
            return;
        }
        if !self.nodes[node].up {
            return self.act_within(trainer, 100..200);
        }
        match acting.place {
            Place::Joining => {
                let request = v1::RegisterWorkerRequest {
                    job: JOB.into(),
                    rank: rank.0,
                    world_size: self.trainers.len() as u32,
                    host: name(node),
                    node: name(node),
                    session: acting.session,
                    store: STORE.into(),
                    idempotency_key: acting.key(),
                    ..v1::RegisterWorkerRequest::default()
                };
                self.call(trainer, Request::Register(request));
            }
            Place::Forming => {
                let incarnation = acting.incarnation.clone();
                let request = v1::WaitGenerationRequest {
                    job: JOB.into(),
                    rank: rank.0,
                    incarnation,
                    place: rank.0 % 2 == 0,
                    ..Default::default()
                };
                self.call(trainer, Request::Wait(request));
            }
            Place::Restoring(generation) => {
                let caller = Some(node::caller(generation, rank));
                let request = v1::ResolveRestoreRequest {
                    caller,
                    timeout_ms: 4000,
                    ..v1::ResolveRestoreRequest::default()
                };
                self.call(trainer, Request::Resolve(request));
            }
            Place::Saving(generation) => self.pass(trainer, generation),
            Place::Meeting(generation) => self.meet(trainer, generation),
        }
    }

    /// Asks a few times in a step whether somebody wants a checkpoint, at a pace of its own, then saves as always.
    fn pass(&mut self, trainer: usize, generation: Generation) {
        let passing = &mut self.trainers[trainer];
        if passing.boundary == BOUNDARIES {
            passing.boundary = 0;
            return self.save(trainer, generation);
        }
        let boundary = Step(passing.step * BOUNDARIES + passing.boundary);
        if passing.asks.is_known(boundary) {
            passing.boundary += 1;
            let save = passing.asks.pass(boundary).save;
            self.truth.passes(generation, boundary, save);
        }
        self.act_within(trainer, 1..40);
    }

    fn step_query(&mut self, node: usize, query: v1::StepQueryEvent) {
        if !self.nodes[node].agreement.hold(query.vote) {
            return;
        }
        for trainer in 0..self.trainers.len() {
            self.hear_asks(node, trainer);
        }
    }

    fn step_agreed(&mut self, node: usize, agreed: v1::StepAgreedEvent) {
        self.nodes[node].agreement.decided = Some(agreed);
        for trainer in 0..self.trainers.len() {
            self.hear_asks(node, trainer);
        }
    }

    /// A rank of the node hears what is decided, and what is asked, and answers.
    fn hear_asks(&mut self, node: usize, trainer: usize) {
        let (hearing, held) = (&mut self.trainers[trainer], &mut self.nodes[node].agreement);
        if hearing.node != node || !hearing.alive || hearing.place.generation() != held.generation {
            return;
        }
        if let Some(decided) = &held.decided {
            hearing.asks.agreed(decided);
        }
        if held.vote == 0 || !held.is_held() {
            return;
        }
        let query = v1::StepQueryEvent { purpose: v1::StepPurpose::Save.into(), vote: held.vote };
        let Some(last) = hearing.asks.query(&query) else { return };
        held.votes.insert(hearing.rank, last.0);
        let vote = node::vote(held.generation, hearing.rank, held.vote, last.0);
        self.report(node, Report::StepVote(vote));
    }

    fn save(&mut self, trainer: usize, generation: Generation) {
        let saving = &mut self.trainers[trainer];
        let (rank, node, life) = (saving.rank, saving.node, saving.life);
        let attempt: Attempt = (Step(saving.step), generation, rank);
        saving.place = Place::Meeting(generation);
        let has_room = self.nodes[node].has_room(rank);
        let state = if has_room { SlotState::Filling } else { SlotState::Skipped };
        self.nodes[node].slots.insert(attempt, Slot { state, since: self.now });
        if has_room {
            self.report(node, Report::Begun(node::begun(attempt)));
            self.within(5..60, Event::Seal { trainer, life, attempt });
        } else {
            self.report(node, Report::Failed(node::failed(attempt)));
        }
        self.act_within(trainer, 60..200);
    }

    fn seal(&mut self, node: usize, attempt: Attempt) {
        let Some(slot) = self.nodes[node].slots.get_mut(&attempt) else { return };
        slot.state = SlotState::Sealed;
        let life = self.nodes[node].life;
        if self.nodes[node].up {
            self.report(node, Report::Sealed(node::sealed(attempt)));
            self.within(50..800, Event::Persist { node, life, attempt });
        }
    }

    fn persist(&mut self, node: usize, attempt: Attempt) {
        let state = self.nodes[node].slots.get(&attempt).map(|slot| slot.state);
        if state != Some(SlotState::Sealed) {
            return;
        }
        if self.by_bad_luck(10) {
            let life = self.nodes[node].life;
            return self.within(500..5000, Event::Persist { node, life, attempt });
        }
        let (step, generation, rank) = attempt;
        self.store.put_manifest(step, generation, rank);
        self.nodes[node].slots.get_mut(&attempt).expect("seen above").state = SlotState::Durable;
        self.report(node, Report::Durable(node::durable(attempt)));
    }

    fn meet(&mut self, trainer: usize, generation: Generation) {
        let (rank, node) = (self.trainers[trainer].rank, self.trainers[trainer].node);
        let meeting = (generation, self.trainers[trainer].round);
        self.truth.arrives(meeting, rank);
        let meets = self.nodes[node].barriers.entry(meeting).or_default();
        meets.arrived.insert(rank);
        let (released, arrival) = (meets.released, node::arrival(meeting, meets));
        match released {
            true => self.go_on(trainer, generation),
            false => self.report(node, Report::Arrival(arrival)),
        }
    }

    fn go_on(&mut self, trainer: usize, generation: Generation) {
        let going = &mut self.trainers[trainer];
        (going.place, going.step, going.round) = (Place::Saving(generation), going.step + 1, going.round + 1);
        self.act_within(trainer, 10..200);
    }

    pub fn answered(&mut self, trainer: usize, answer: Result<Answer>) {
        self.note(|| format!("rank {trainer} hears {answer:?}"));
        match answer {
            Ok(Answer::Registered(reply)) => {
                self.trainers[trainer].incarnation = reply.incarnation;
                self.trainers[trainer].place = Place::Forming;
                self.act_within(trainer, 1..5);
            }
            Ok(Answer::Opened(opened)) => {
                let generation = Generation(opened.generation);
                // It was answered before it ended, and comes behind the news of that.
                if generation <= self.nodes[self.trainers[trainer].node].ended {
                    return self.join_again(trainer);
                }
                let member = &mut self.trainers[trainer];
                assert!(generation > member.told, "rank {} is told of {generation} twice", member.rank);
                (member.told, member.place, member.round) = (generation, Place::Restoring(generation), 0);
                let node = self.trainers[trainer].node;
                // Its push may have been lost.
                self.nodes[node].agreement.begin(generation);
                self.hear_asks(node, trainer);
                self.act_within(trainer, 1..50);
            }
            Ok(Answer::Resolved(resolved)) => {
                let generation = self.trainers[trainer].place.generation();
                self.truth.restores(generation, resolved.step);
                let restored = &mut self.trainers[trainer];
                (restored.step, restored.place) = (resolved.step.unwrap_or(0) + 1, Place::Saving(generation));
                self.act_within(trainer, 10..100);
            }
            Ok(Answer::Agreed) => unreachable!("an operator asked"),
            Err(error) => self.refused(trainer, &error),
        }
    }

    fn refused(&mut self, trainer: usize, error: &Error) {
        match error.kind {
            Kind::Fenced => self.join_again(trainer),
            Kind::Conflict | Kind::Unavailable | Kind::NotFound => self.act_within(trainer, 100..500),
            _ => panic!("rank {trainer} is told {error:?}"),
        }
    }

    /// Who lives here, as far as the sidecar knows.
    pub fn hello(&self, node: usize) -> v1::NodeHello {
        let known = self.trainers.iter().filter(|trainer| trainer.node == node && trainer.is_known());
        let live = known.map(|trainer| v1::LiveSession {
            job: JOB.into(),
            rank: trainer.rank.0,
            session: trainer.session,
            generation: trainer.place.generation().0,
            incarnation: trainer.incarnation.clone(),
        });
        v1::NodeHello {
            node: name(node),
            incarnation: self.nodes[node].life.to_string(),
            host: name(node),
            sessions: live.collect(),
            // Every other one is of a build that is told all members.
            version: node.is_multiple_of(2).then(crate::version::ours),
            ..v1::NodeHello::default()
        }
    }

    pub fn frame(&self, node: usize) -> v1::Frame {
        let known = self.trainers.iter().filter(|trainer| trainer.node == node && trainer.is_known());
        let progress = known.map(|trainer| v1::Progress {
            rank: trainer.rank.0,
            step: trainer.step,
            ..Default::default()
        });
        let job = v1::JobFrame { job: JOB.into(), ranks: progress.collect(), ..Default::default() };
        v1::Frame { sequence: 0, jobs: vec![job] }
    }

    pub fn obey(&mut self, node: usize, command: v1::NodeCommand) {
        let life = self.nodes[node].life;
        match command.command.expect("never empty") {
            Command::GenerationOpened(opened) => {
                self.nodes[node].agreement.begin(Generation(opened.generation));
            }
            Command::StepQuery(query) => {
                // The push that opened its generation may have been lost.
                self.nodes[node].agreement.begin(Generation(query.generation));
                if self.nodes[node].agreement.generation.0 == query.generation {
                    self.step_query(node, v1::StepQueryEvent { purpose: query.purpose, vote: query.vote });
                }
            }
            Command::StepAgreed(v1::StepAgreed { generation, step, purpose, vote, .. })
                if self.nodes[node].agreement.generation.0 == generation =>
            {
                self.step_agreed(node, v1::StepAgreedEvent { step, purpose, vote });
            }
            Command::GenerationEnded(ended) => self.generation_ended(node, Generation(ended.generation)),
            Command::WriteCommit(order) => {
                // A store that hangs: longer than the coordinator waits.
                let takes = if self.by_bad_luck(20) { 31_000..45_000 } else { 5..100 };
                let write = self.store.begin(Step(order.step));
                self.within(takes, Event::Publish { node, life, write, order: Box::new(order) });
            }
            Command::RemoveStep(order) => {
                self.within(5..200, Event::Remove { node, life, order: Box::new(order) });
            }
            Command::Step(outcome) => {
                if matches!(outcome.state(), StepState::Committed | StepState::Abandoned) {
                    let decided = (Step(outcome.step), Generation(outcome.generation));
                    self.nodes[node].slots.retain(|(step, generation, _), _| (*step, *generation) != decided);
                }
            }
            Command::Barrier(released) => {
                self.released(node, Generation(released.generation), released.round)
            }
            _ => {}
        }
    }

    fn generation_ended(&mut self, node: usize, generation: Generation) {
        self.nodes[node].ended = self.nodes[node].ended.max(generation);
        self.nodes[node].barriers.retain(|(of, _), _| *of != generation);
        // Who was copying has been told, and seals nothing any more.
        self.nodes[node]
            .slots
            .retain(|(_, of, _), slot| *of != generation || slot.state != SlotState::Filling);
        for trainer in 0..self.trainers.len() {
            let member = &self.trainers[trainer];
            if member.node == node && member.alive && member.place.generation() == generation {
                self.join_again(trainer);
            }
        }
    }

    fn released(&mut self, node: usize, generation: Generation, round: u64) {
        let meets = self.nodes[node].barriers.range_mut((generation, 0)..=(generation, round));
        meets.for_each(|(_, meets)| meets.released = true);
        for trainer in 0..self.trainers.len() {
            let waiting = &self.trainers[trainer];
            let arrived = self.nodes[node]
                .barriers
                .get(&(generation, waiting.round))
                .is_some_and(|meets| meets.released && meets.arrived.contains(&waiting.rank));
            if waiting.node == node && waiting.alive && waiting.place == Place::Meeting(generation) && arrived
            {
                self.go_on(trainer, generation);
            }
        }
    }

    fn publish(&mut self, node: usize, write: u64, order: &v1::WriteCommit) {
        let late = self.truth.is_settled(Step(order.step), Generation(order.generation));
        let written = match self.by_bad_luck(10) {
            true => Err(Error::unavailable("the store does not answer")),
            false => self.store.publish(write, order, late),
        };
        let (kind, reason) = told(&written);
        let outcome = v1::CommitOutcome {
            job: JOB.into(),
            step: order.step,
            generation: order.generation,
            committed: written.is_ok(),
            kind,
            reason,
        };
        self.report(node, Report::Commit(outcome));
    }

    fn remove(&mut self, node: usize, order: &v1::RemoveStep) {
        let removed = match self.by_bad_luck(10) {
            true => Err(Error::unavailable("the store does not answer")),
            false => self.store.remove(order),
        };
        let (kind, reason) = told(&removed);
        let done = v1::RemovalDone {
            job: JOB.into(),
            step: order.step,
            freed_bytes: 0,
            kind,
            reason,
            target: String::new(),
            generation: order.generation,
            committed: order.committed,
        };
        self.report(node, Report::Removal(done));
    }
}

fn told(outcome: &Result<()>) -> (String, String) {
    match outcome {
        Ok(()) => Default::default(),
        Err(error) => (error.kind.name().to_owned(), error.message.clone()),
    }
}
