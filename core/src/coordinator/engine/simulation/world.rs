//! The cluster in one thread: a queue of events in virtual time, and one source of randomness. The network keeps the order
//! of each direction of a line, breaks lines, loses and repeats calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::host::{Answer, Arrival, Host, Request, Sent};
use super::node::{Attempt, JOB, Node, Trainer, name};
use super::store::Store;
use super::truth::Truth;
use crate::clock::ManualClock;
use crate::error::Result;
use crate::ids::Rank;
use crate::proto::v1::{self, node_report::Report};

/// Two ranks on the first node.
const NODES_OF_RANKS: [usize; 4] = [0, 0, 1, 2];
const NODES: usize = 3;
const TICK: Duration = super::super::TICK;
const FRAME: Duration = Duration::from_millis(250);
/// A caller that hears nothing calls again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of the faults, and then of peace.
const TROUBLE: Duration = Duration::from_secs(90);
const PEACE: Duration = Duration::from_secs(75);

#[allow(clippy::large_enum_variant, reason = "a few hundred of them live at once")]
pub enum Event {
    Tick,
    Turn,
    StartHost,
    AtHost(Arrival),
    AtNode {
        node: usize,
        line: u64,
        command: Box<v1::NodeCommand>,
    },
    CutAtNode {
        node: usize,
        line: u64,
    },
    Answer {
        node: usize,
        life: u64,
        trainer: usize,
        call: u64,
        answer: Box<Result<Answer>>,
    },
    NoAnswer {
        trainer: usize,
        call: u64,
    },
    StartNode {
        node: usize,
    },
    Attach {
        node: usize,
        life: u64,
    },
    Frame {
        node: usize,
        life: u64,
    },
    StartTrainer {
        trainer: usize,
    },
    Act {
        trainer: usize,
        life: u64,
    },
    Seal {
        trainer: usize,
        life: u64,
        attempt: Attempt,
    },
    Persist {
        node: usize,
        life: u64,
        attempt: Attempt,
    },
    Publish {
        node: usize,
        life: u64,
        write: u64,
        order: Box<v1::WriteCommit>,
    },
    Remove {
        node: usize,
        life: u64,
        order: Box<v1::RemoveStep>,
    },
    DeathSeen {
        node: usize,
        life: u64,
        died: Box<v1::RankDied>,
    },
    Fault,
    /// An operator wants a checkpoint.
    Ask,
}

pub struct World {
    pub now: Duration,
    pub random: StdRng,
    pub host: Host,
    pub host_stopped_until: Duration,
    pub nodes: Vec<Node>,
    pub trainers: Vec<Trainer>,
    pub store: Store,
    pub truth: Truth,
    pub trace: Trace,
    pub faults: Vec<&'static str>,
    clock: Arc<ManualClock>,
    events: BTreeMap<(Duration, u64), Event>,
    counted: u64,
    turn_is_due: bool,
}

/// What happened, for comparing two runs, and for whoever reads why one failed.
#[derive(Default)]
pub struct Trace(pub Vec<String>);

/// Lines of a story that failed.
const TOLD: usize = 200;

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = &self.0[self.0.len().saturating_sub(TOLD)..];
            last.iter().for_each(|line| println!("{}", line.chars().take(200).collect::<String>()));
        }
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let clock = Arc::<ManualClock>::default();
        let mut world = World {
            now: Duration::ZERO,
            random: super::seeded(seed),
            host: Host::new(Arc::clone(&clock), super::seeded(seed ^ 1)),
            host_stopped_until: Duration::ZERO,
            nodes: (0..NODES).map(|_| Node::new()).collect(),
            trainers: NODES_OF_RANKS
                .iter()
                .zip(0..)
                .map(|(node, rank)| Trainer::new(Rank(rank), *node))
                .collect(),
            store: Store::default(),
            truth: Truth::default(),
            trace: Trace::default(),
            faults: Vec::new(),
            clock,
            events: BTreeMap::new(),
            counted: 0,
            turn_is_due: false,
        };
        world.after(0, Event::StartHost);
        world.after(0, Event::Tick);
        (0..NODES).for_each(|node| world.after(10, Event::StartNode { node }));
        (0..NODES_OF_RANKS.len()).for_each(|trainer| world.after(50, Event::StartTrainer { trainer }));
        world.after(2000, Event::Fault);
        world.after(1000, Event::Ask);
        world
    }

    /// Trouble, then peace, in which everything must come right.
    pub fn run(&mut self) {
        while let Some(((at, number), event)) = self.events.pop_first() {
            if at > TROUBLE + PEACE {
                break;
            }
            self.clock.advance(at - self.now);
            self.now = at;
            if let Some(until) = self.stopped_until(&event) {
                // In its place among those that wait: a line's messages never overtake each other.
                self.events.insert((until, number), event);
                continue;
            }
            self.happen(event);
            if let Some(engine) = self.host.engine() {
                self.truth.check(&engine.state, &self.store);
            }
        }
        self.check_peace();
    }

    pub fn is_peace(&self) -> bool {
        self.now >= TROUBLE
    }

    pub fn number(&mut self) -> u64 {
        self.counted += 1;
        self.counted
    }

    pub fn after(&mut self, milliseconds: u64, event: Event) {
        self.at(self.now + Duration::from_millis(milliseconds), event);
    }

    pub fn within(&mut self, milliseconds: std::ops::Range<u64>, event: Event) {
        let after = self.random.random_range(milliseconds);
        self.after(after, event);
    }

    fn at(&mut self, at: Duration, event: Event) {
        let number = self.number();
        self.events.insert((at, number), event);
    }

    /// Whether it is so with a chance of one in so many; never in peace.
    pub fn by_bad_luck(&mut self, one_in: u32) -> bool {
        !self.is_peace() && self.random.random_ratio(1, one_in)
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{:9.3} {}", self.now.as_secs_f64(), what());
        self.trace.0.push(line);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.after(TICK.as_millis() as u64, Event::Tick);
                let was_up = self.host.is_up();
                let sent = self.host.tick(&mut self.random);
                self.send(sent, was_up);
            }
            Event::Turn => {
                self.turn_is_due = false;
                let was_up = self.host.is_up();
                let sent = self.host.turn(&mut self.random);
                self.send(sent, was_up);
            }
            Event::StartHost => {
                if !self.host.is_up() {
                    self.note(|| "the coordinator starts".into());
                    self.host.start(&mut self.random);
                    if !self.host.is_up() {
                        self.host_died();
                    }
                }
            }
            Event::AtHost(arrival) => self.arrive(arrival),
            Event::AtNode { node, line, command } => {
                if self.nodes[node].line == Some(line) {
                    self.obey(node, *command);
                }
            }
            Event::CutAtNode { node, line } => self.cut(node, line),
            Event::Answer { node, life, trainer, call, answer } => {
                if self.lives(node, life) && self.waits_for(trainer, call) {
                    self.trainers[trainer].call = None;
                    self.answered(trainer, *answer);
                }
            }
            Event::NoAnswer { trainer, call } => {
                if self.waits_for(trainer, call) {
                    self.trainers[trainer].call = None;
                    self.act_within(trainer, 1..50);
                }
            }
            Event::Frame { node, life } => {
                if self.lives(node, life) {
                    let frame = self.frame(node);
                    self.report(node, Report::Frame(frame));
                    self.after(FRAME.as_millis() as u64, Event::Frame { node, life });
                }
            }
            Event::Attach { node, life } => {
                if self.lives(node, life) && self.nodes[node].line.is_none() {
                    self.attach(node);
                }
            }
            Event::Fault => self.fault(),
            Event::Ask => self.ask(),
            local => self.happen_locally(local),
        }
    }

    fn waits_for(&self, trainer: usize, call: u64) -> bool {
        self.trainers[trainer].call.is_some_and(|(waited, _)| waited == call)
    }

    pub fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].up && self.nodes[node].life == life
    }

    /// A stopped process does what is its to do when it goes on.
    fn stopped_until(&self, event: &Event) -> Option<Duration> {
        let until = match event {
            Event::Tick | Event::Turn | Event::AtHost(_) => self.host_stopped_until,
            Event::AtNode { node, .. }
            | Event::CutAtNode { node, .. }
            | Event::Answer { node, .. }
            | Event::Attach { node, .. }
            | Event::Frame { node, .. }
            | Event::Persist { node, .. }
            | Event::Publish { node, .. }
            | Event::Remove { node, .. }
            | Event::DeathSeen { node, .. } => self.nodes[*node].frozen_until,
            _ => return None,
        };
        (until > self.now).then_some(until)
    }

    /// What a turn of the coordinator sends; None: it is dead.
    fn send(&mut self, sent: Option<Vec<Sent>>, was_up: bool) {
        let Some(sent) = sent else {
            if was_up {
                self.note(|| "the coordinator dies at a write".into());
                self.host_died();
            }
            return;
        };
        for sent in sent {
            match sent {
                Sent::Command { node, line, command } => {
                    self.note(|| format!("to {}: {:?}", name(node), Brief(&command)));
                    self.truth.told(node, &command, &self.store, self.now);
                    let at = self.arrives(node, 1);
                    self.at(at, Event::AtNode { node, line, command: Box::new(command) });
                }
                Sent::Cut { node, line } => self.within(0..500, Event::CutAtNode { node, line }),
                Sent::Answer { call, answer } => self.send_answer(call, answer),
            }
        }
    }

    fn send_answer(&mut self, call: u64, answer: Result<Answer>) {
        let caller = self.trainers.iter().position(|trainer| trainer.call.is_some_and(|(of, _)| of == call));
        let Some(trainer) = caller else { return };
        if let Ok(Answer::Opened(generation)) = &answer {
            self.truth.opened(generation);
        }
        if self.by_bad_luck(20) {
            return self.note(|| format!("an answer to rank {trainer} is lost"));
        }
        let node = self.trainers[trainer].node;
        let (at, life) = (self.delayed(node), self.nodes[node].life);
        self.at(at, Event::Answer { node, life, trainer, call, answer: Box::new(answer) });
    }

    /// When what is sent now, to or from a node, comes through.
    fn delayed(&mut self, node: usize) -> Duration {
        let way = Duration::from_micros(self.random.random_range(50..5000));
        self.now.max(self.nodes[node].apart_until) + way
    }

    /// The same on its line, behind what was sent before. `direction`: 0 to the coordinator, 1 to the node.
    fn arrives(&mut self, node: usize, direction: usize) -> Duration {
        let at = self.delayed(node).max(self.nodes[node].last[direction]);
        self.nodes[node].last[direction] = at;
        at
    }

    pub fn report(&mut self, node: usize, report: Report) {
        let Some(line) = self.nodes[node].line else { return };
        let at = self.arrives(node, 0);
        let report = v1::NodeReport { report: Some(report) };
        self.at(at, Event::AtHost(Arrival::Report { node, line, report }));
    }

    fn attach(&mut self, node: usize) {
        let line = self.number();
        self.nodes[node].line = Some(line);
        self.nodes[node].last = [Duration::ZERO; 2];
        self.note(|| format!("{} attaches by line {line}", name(node)));
        let hello = self.hello(node);
        let at = self.arrives(node, 0);
        self.at(at, Event::AtHost(Arrival::Hello { node, line, hello }));
        for report in self.nodes[node].announcement() {
            self.report(node, report);
        }
    }

    pub fn call(&mut self, trainer: usize, request: Request) {
        let call = self.number();
        self.trainers[trainer].call = Some((call, self.now));
        let node = self.trainers[trainer].node;
        for _ in 0..if self.by_bad_luck(20) { 2 } else { 1 } {
            let (at, request) = (self.delayed(node), request.clone());
            self.at(at, Event::AtHost(Arrival::Call { call, request }));
        }
        self.after(PATIENCE.as_millis() as u64, Event::NoAnswer { trainer, call });
    }

    fn arrive(&mut self, arrival: Arrival) {
        if !self.host.is_up() {
            if let Arrival::Hello { node, line, .. } | Arrival::Report { node, line, .. } = arrival {
                self.within(0..50, Event::CutAtNode { node, line });
            }
            return;
        }
        if let Arrival::Report { node, report, .. } = &arrival
            && !matches!(report.report, Some(Report::Frame(_)))
        {
            let line = format!("{:9.3} from {}: {report:?}", self.now.as_secs_f64(), name(*node));
            self.trace.0.push(line);
        }
        self.host.arrive(arrival);
        if !self.turn_is_due {
            self.turn_is_due = true;
            self.within(0..4, Event::Turn);
        }
    }

    /// The node sees its line's end; the coordinator does a little later, if it does not know.
    pub fn cut(&mut self, node: usize, line: u64) {
        if self.nodes[node].line != Some(line) {
            return;
        }
        self.note(|| format!("{} loses line {line}", name(node)));
        self.nodes[node].line = None;
        self.within(0..2000, Event::AtHost(Arrival::Cut { node, line }));
        let life = self.nodes[node].life;
        self.within(50..1000, Event::Attach { node, life });
    }

    /// Its machine closes all connections.
    pub fn host_died(&mut self) {
        self.turn_is_due = false;
        self.host_stopped_until = self.now;
        for node in 0..NODES {
            if let Some(line) = self.nodes[node].line {
                let at = self.delayed(node);
                self.at(at, Event::CutAtNode { node, line });
            }
        }
        self.within(50..4000, Event::StartHost);
    }

    fn ask(&mut self) {
        self.within(100..4000, Event::Ask);
        let call = self.number();
        let request = Request::Ask(v1::AskSaveRequest { job: JOB.into(), ..v1::AskSaveRequest::default() });
        self.arrive(Arrival::Call { call, request });
    }

    fn check_peace(&mut self) {
        let engine = self.host.engine().expect("the coordinator runs");
        self.truth.check_settled(&engine.state, &self.store);
        let job = engine.state.jobs.values().next().expect("the job is known");
        let places: Vec<_> = self.trainers.iter().map(|trainer| (trainer.alive, trainer.place)).collect();
        let open = job.open.as_ref().map(|open| open.generation);
        let open = open.unwrap_or_else(|| panic!("no generation is open; ranks: {places:?}"));
        for trainer in &self.trainers {
            assert_eq!(trainer.place.generation(), open, "rank {} is {:?}", trainer.rank, trainer.place);
        }
        let idle = self.now - self.truth.last_commit;
        assert!(idle < Duration::from_secs(10), "no step was committed for {idle:?}");
        let idle = self.now - self.truth.last_agreed;
        assert!(idle < Duration::from_secs(10), "no step to save at was agreed on for {idle:?}");
        for (number, node) in self.nodes.iter().enumerate() {
            for (attempt, slot) in &node.slots {
                let old = self.now - slot.since;
                assert!(old < Duration::from_secs(20), "{} holds {attempt:?} since {old:?}", name(number));
            }
        }
    }
}

/// A command without its bulk.
struct Brief<'a>(&'a v1::NodeCommand);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.command {
            Some(v1::node_command::Command::WriteCommit(order)) => {
                write!(out, "write the COMMIT of step {} of generation {}", order.step, order.generation)
            }
            Some(command) => command.fmt(out),
            None => Ok(()),
        }
    }
}
