//! The coordinator's process: the engine over a log on a disk that may fail it at any write. Does what
//! [`run`](super::super::run) does, one turn at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::super::{AttachId, Engine, Handle, Reply, Work};
use crate::clock::ManualClock;
use crate::coordinator::log::Log;
use crate::coordinator::log::machine::Machine;
use crate::coordinator::state::State;
use crate::coordinator::{CoordinatorSettings, KeepRules};
use crate::error::Result;
use crate::ids::ClusterId;
use crate::proto::v1;
use crate::telemetry::Metrics;

/// What comes in over the network.
pub enum Arrival {
    Hello {
        node: usize,
        line: u64,
        hello: v1::NodeHello,
    },
    Report {
        node: usize,
        line: u64,
        report: v1::NodeReport,
    },
    /// The line's end is seen here.
    Cut {
        node: usize,
        line: u64,
    },
    Call {
        call: u64,
        request: Request,
    },
}

#[derive(Clone, Debug)]
pub enum Request {
    Register(v1::RegisterWorkerRequest),
    Wait(v1::WaitGenerationRequest),
    Resolve(v1::ResolveRestoreRequest),
    /// An operator's.
    Ask(v1::AskSaveRequest),
}

#[derive(Debug)]
pub enum Answer {
    Registered(v1::RegisterWorkerReply),
    Opened(v1::Generation),
    Resolved(v1::ResolveRestoreReply),
    Agreed,
}

/// What goes out, once it is durable.
pub enum Sent {
    Command { node: usize, line: u64, command: v1::NodeCommand },
    Cut { node: usize, line: u64 },
    Answer { call: u64, answer: Result<Answer> },
}

pub struct Host {
    disk: Machine,
    clock: Arc<ManualClock>,
    process: Option<Process>,
    /// What a restart may find: the state as of the last durable batch, or of the one whose write the process died in.
    possible: Vec<Vec<u8>>,
    names: StdRng,
}

struct Process {
    engine: Engine,
    log: Log,
    posted: mpsc::UnboundedReceiver<Work>,
    arrived: Vec<Arrival>,
    lines: BTreeMap<usize, Line>,
    /// Lines that ended here, for their nodes to hear of.
    cut: Vec<(usize, u64)>,
    calls: Vec<(u64, Pending)>,
}

struct Line {
    number: u64,
    id: AttachId,
    commands: mpsc::Receiver<std::result::Result<Box<v1::NodeCommand>, Status>>,
}

enum Pending {
    Registered(oneshot::Receiver<Result<v1::RegisterWorkerReply>>),
    Opened(oneshot::Receiver<Result<v1::Generation>>),
    Resolved(oneshot::Receiver<Result<v1::ResolveRestoreReply>>),
    Agreed(oneshot::Receiver<Result<v1::AskSaveReply>>),
}

/// Commands that wait for a node: as many as the service lets wait.
const QUEUE: usize = super::super::QUEUE;

impl Host {
    pub fn new(clock: Arc<ManualClock>, names: StdRng) -> Host {
        Host { disk: Machine::default(), clock, process: None, possible: Vec::new(), names }
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub fn engine(&self) -> Option<&Engine> {
        self.process.as_ref().map(|process| &process.engine)
    }

    pub fn disk(&self) -> &Machine {
        &self.disk
    }

    /// P7: the log brings back what was durable, byte for byte.
    pub fn start(&mut self, random: &mut StdRng) {
        let cluster = ClusterId(self.name());
        let opened = self.open_log(cluster);
        let (log, state) = match opened {
            Ok(opened) => opened,
            Err(_) if self.disk.has_failed() => return self.kill(random),
            Err(error) => panic!("P7: the log does not open: {}", error.message),
        };
        let found = state.encode();
        assert!(
            self.possible.is_empty() || self.possible.contains(&found),
            "P7: the log brings back another state than was durable"
        );
        self.possible = vec![found];
        let settings = CoordinatorSettings { keep: KeepRules::last(3), ..CoordinatorSettings::new("/") };
        let (handle, posted) = Handle::new();
        let mut draws = super::seeded(self.names.next_u64());
        let names = Box::new(move || name(&mut draws));
        let clock = Arc::clone(&self.clock) as crate::clock::SharedClock;
        let mut engine = Engine::new(state, settings, clock, names, Metrics::new(), handle, None);
        engine.resume();
        let (arrived, lines, cut, calls) = Default::default();
        self.process = Some(Process { engine, log, posted, arrived, lines, cut, calls });
    }

    fn open_log(&self, fresh: ClusterId) -> Result<(Log, State)> {
        if let Some(opened) = Log::reopen(Box::new(self.disk.open()))? {
            return Ok(opened);
        }
        let state = State::new(fresh);
        Log::create(Box::new(self.disk.open()), 0, &state).map(|log| (log, state))
    }

    fn name(&mut self) -> uuid::Uuid {
        name(&mut self.names)
    }

    /// SIGKILL, or its machine's end.
    pub fn kill(&mut self, random: &mut StdRng) {
        self.process = None;
        self.disk.crash(random);
    }

    pub fn arrive(&mut self, arrival: Arrival) {
        if let Some(process) = &mut self.process {
            process.arrived.push(arrival);
        }
    }

    pub fn tick(&mut self, random: &mut StdRng) -> Option<Vec<Sent>> {
        self.process.as_mut()?.engine.tick();
        self.turn(random)
    }

    /// Everything that has arrived, as one batch. None: it has died of it, or was dead.
    pub fn turn(&mut self, random: &mut StdRng) -> Option<Vec<Sent>> {
        let process = self.process.as_mut()?;
        process.take_in();
        let batch = std::mem::take(&mut process.engine.batch);
        if !batch.is_empty() {
            self.possible.push(process.engine.state.encode());
            let cuts = random.random_ratio(1, 40);
            let mut written = process.log.append(&batch);
            if cuts {
                written = written.and_then(|()| process.log.cut(&process.engine.state));
            }
            if written.is_err() {
                self.kill(random);
                return None;
            }
            self.possible.drain(..self.possible.len() - 1);
        }
        for answer in process.engine.outbox.drain(..) {
            answer();
        }
        Some(process.send())
    }
}

impl Process {
    fn take_in(&mut self) {
        for arrival in std::mem::take(&mut self.arrived) {
            match arrival {
                Arrival::Hello { node, line, hello } => {
                    let (send, commands) = mpsc::channel(QUEUE);
                    let id = self.engine.attach(hello, send);
                    let line = Line { number: line, id, commands };
                    if let Some(replaced) = self.lines.insert(node, line) {
                        self.cut.push((node, replaced.number));
                    }
                }
                Arrival::Report { node, line, report } => {
                    if let Some(line) = self.lines.get(&node).filter(|known| known.number == line) {
                        self.engine.report(&super::node::name(node), line.id, report);
                    }
                }
                Arrival::Cut { node, line } => {
                    if self.lines.get(&node).is_some_and(|known| known.number == line) {
                        let line = self.lines.remove(&node).expect("just seen");
                        self.engine.detach(&super::node::name(node), line.id);
                    }
                }
                Arrival::Call { call, request } => self.call(call, request),
            }
        }
        while let Ok(work) = self.posted.try_recv() {
            work(&mut self.engine);
        }
    }

    fn call(&mut self, call: u64, request: Request) {
        let pending = match request {
            Request::Register(request) => {
                let (send, receive) = oneshot::channel();
                let answer = self.engine.register(request);
                self.engine.answer(Reply(send), answer);
                Pending::Registered(receive)
            }
            Request::Wait(request) => {
                let (send, receive) = oneshot::channel();
                self.engine.wait_generation(request, Reply(send));
                Pending::Opened(receive)
            }
            Request::Resolve(request) => {
                let (send, receive) = oneshot::channel();
                self.engine.resolve_restore(request, Reply(send));
                Pending::Resolved(receive)
            }
            Request::Ask(request) => {
                let (send, receive) = oneshot::channel();
                self.engine.ask_save(&request, Reply(send));
                Pending::Agreed(receive)
            }
        };
        self.calls.push((call, pending));
    }

    fn send(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for (&node, line) in &mut self.lines {
            loop {
                match line.commands.try_recv() {
                    Ok(Ok(command)) => {
                        sent.push(Sent::Command { node, line: line.number, command: *command });
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    // The engine has dropped the line.
                    _ => {
                        self.cut.push((node, line.number));
                        break;
                    }
                }
            }
        }
        for (node, line) in self.cut.drain(..) {
            if self.lines.get(&node).is_some_and(|known| known.number == line) {
                self.lines.remove(&node);
            }
            sent.push(Sent::Cut { node, line });
        }
        self.calls.retain_mut(|(call, pending)| match pending.look() {
            Some(answer) => {
                sent.push(Sent::Answer { call: *call, answer });
                false
            }
            None => true,
        });
        sent
    }
}

impl Pending {
    fn look(&mut self) -> Option<Result<Answer>> {
        match self {
            Pending::Registered(receive) => {
                receive.try_recv().ok().map(|answer| answer.map(Answer::Registered))
            }
            Pending::Opened(receive) => receive.try_recv().ok().map(|answer| answer.map(Answer::Opened)),
            Pending::Resolved(receive) => receive.try_recv().ok().map(|answer| answer.map(Answer::Resolved)),
            Pending::Agreed(receive) => receive.try_recv().ok().map(|answer| answer.map(|_| Answer::Agreed)),
        }
    }
}

fn name(random: &mut StdRng) -> uuid::Uuid {
    uuid::Builder::from_random_bytes(random.random()).into_uuid()
}
