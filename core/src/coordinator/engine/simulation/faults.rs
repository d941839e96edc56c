//! What goes wrong, one thing every few seconds, until there is peace.

use std::time::Duration;

use rand::RngExt;

use super::node::{SlotState, caller, name};
use super::world::{Event, World};
use crate::proto::v1;

type Fault = fn(&mut World, usize);

/// What may go wrong with a node, or with the coordinator, as a report counts it.
const FAULTS: [(&str, Fault); 10] = [
    ("trainers killed", |world, node| {
        let trainer = (node + world.random.random_range(0..2)) % world.trainers.len();
        world.kill_trainer(trainer, true);
    }),
    ("trainers killed", |world, node| world.kill_trainer(node, true)),
    ("sidecars killed", |world, node| world.kill_sidecar(node, 100..12_000)),
    ("machines lost", World::lose_machine),
    ("sidecars stopped", World::freeze),
    ("nodes cut off", World::part),
    ("lines broken", |world, node| {
        if let Some(line) = world.nodes[node].line {
            world.cut(node, line);
        }
    }),
    ("coordinators killed", |world, _| {
        world.note(|| "the coordinator is killed".into());
        world.host.kill(&mut world.random);
        world.host_died();
    }),
    ("coordinators killed at a write", |world, _| {
        let operation = world.random.random_range(0..40);
        world.note(|| format!("the coordinator will die at operation {operation} of its disk"));
        world.host.disk().fail_at(operation);
    }),
    ("coordinators stopped", |world, _| {
        let stands = Duration::from_millis(world.random.random_range(300..15_000));
        world.note(|| format!("the coordinator stands still for {stands:?}"));
        world.host_stopped_until = world.host_stopped_until.max(world.now + stands);
    }),
];

impl World {
    pub fn fault(&mut self) {
        if self.is_peace() {
            return;
        }
        self.within(200..6000, Event::Fault);
        let node = self.random.random_range(0..self.nodes.len());
        let (name, happen) = FAULTS[self.random.random_range(0..FAULTS.len())];
        self.faults.push(name);
        happen(self, node);
    }

    fn kill_trainer(&mut self, trainer: usize, is_seen: bool) {
        let dying = &mut self.trainers[trainer];
        if !dying.alive {
            return;
        }
        dying.alive = false;
        dying.call = None;
        let (rank, node, life) = (dying.rank, dying.node, self.nodes[dying.node].life);
        let dying = &self.trainers[trainer];
        let died = v1::RankDied {
            caller: Some(caller(dying.place.generation(), rank)),
            session: dying.session,
            evidence: "pidfd: exited".into(),
            incarnation: dying.incarnation.clone(),
        };
        self.note(|| format!("rank {rank} is killed"));
        self.nodes[node].slots.retain(|(.., of), slot| *of != rank || slot.state != SlotState::Filling);
        if is_seen {
            self.within(1..300, Event::DeathSeen { node, life, died: Box::new(died) });
        }
        self.within(300..3000, Event::StartTrainer { trainer });
    }

    fn kill_sidecar(&mut self, node: usize, back: std::ops::Range<u64>) {
        if !self.nodes[node].up {
            return;
        }
        self.note(|| format!("the sidecar of {} is killed", name(node)));
        self.nodes[node].up = false;
        self.nodes[node].agreement = Default::default();
        if let Some(line) = self.nodes[node].line.take() {
            self.within(0..2000, Event::AtHost(super::host::Arrival::Cut { node, line }));
        }
        self.within(back, Event::StartNode { node });
    }

    /// With everything in its memory.
    fn lose_machine(&mut self, node: usize) {
        self.note(|| format!("the machine of {} is lost", name(node)));
        for trainer in 0..self.trainers.len() {
            if self.trainers[trainer].node == node {
                self.kill_trainer(trainer, false);
            }
        }
        self.kill_sidecar(node, 1000..4000);
        for (step, generation, _) in std::mem::take(&mut self.nodes[node].slots).into_keys() {
            self.store.will_not_be_told(step, generation);
        }
        self.nodes[node].barriers.clear();
    }

    fn freeze(&mut self, node: usize) {
        let stands = Duration::from_millis(self.random.random_range(300..14_000));
        self.note(|| format!("the sidecar of {} stands still for {stands:?}", name(node)));
        let node = &mut self.nodes[node];
        node.frozen_until = node.frozen_until.max(self.now + stands);
    }

    /// Nothing comes through for a while; whether the lines outlive it is chance.
    fn part(&mut self, node: usize) {
        let apart = self.random.random_range(200..14_000);
        self.note(|| format!("{} is cut off for {apart} ms", name(node)));
        let until = self.now + Duration::from_millis(apart);
        self.nodes[node].apart_until = self.nodes[node].apart_until.max(until);
        if let Some(line) = self.nodes[node].line.filter(|_| self.random.random_ratio(2, 3)) {
            self.within(0..3000, Event::CutAtNode { node, line });
        }
    }
}
