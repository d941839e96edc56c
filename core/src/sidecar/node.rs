//! What every part of the sidecar shares: the state under its lock, a way to wait for it to change, and the tasks that
//! its changes ask for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::directories::Directories;
use super::settings::SidecarSettings;
use super::state::{State, Todo};
use super::stores::Stores;
use super::uplink::Uplink;
use super::{learn, persist, publish, register, seals, sharing, stacks, sweep, targets};
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

pub(super) struct Node {
    pub settings: SidecarSettings,
    pub metrics: Arc<Metrics>,
    /// This process, as the coordinator tells lives of a node apart.
    pub incarnation: String,
    pub started: Duration,
    pub directories: Directories,
    pub uplink: Uplink,
    pub stores: Stores,
    pub turns: persist::Turns,
    pub registering: register::Registering,
    pub target_turns: targets::TargetTurns,
    /// Bytes that targets have taken: grows while a copy goes on.
    pub copied: AtomicU64,
    /// Held while an arena is made.
    pub making: tokio::sync::Mutex<()>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    state: Mutex<State>,
    /// Counts changes: who waits looks again.
    changed: watch::Sender<u64>,
}

impl Node {
    pub fn new(
        settings: SidecarSettings,
        metrics: Arc<Metrics>,
        directories: Directories,
        uplink: Uplink,
        stop: CancellationToken,
        state: State,
    ) -> Arc<Node> {
        let stores = Stores::new(&settings);
        let turns = persist::Turns::default();
        Arc::new(Node {
            settings,
            metrics,
            incarnation: uuid::Uuid::new_v4().to_string(),
            started: state.now(),
            directories,
            uplink,
            stores,
            turns,
            registering: register::Registering::default(),
            target_turns: targets::TargetTurns::default(),
            copied: AtomicU64::new(0),
            making: tokio::sync::Mutex::new(()),
            tasks: TaskTracker::new(),
            stop,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    /// Looks at the state; no waiting inside.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Changes the state, then starts what that asked for and wakes who waits.
    pub fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (answer, todo) = {
            let mut state = self.state.lock();
            let answer = change(&mut state);
            (answer, std::mem::take(&mut state.todo))
        };
        self.changed.send_modify(|count| *count += 1);
        for work in todo {
            self.start(work);
        }
        answer
    }

    /// Returns what `ready` finds, asked now and after every change. `ready` may change what it finds; others are not
    /// woken by that.
    pub async fn wait<T>(self: &Arc<Self>, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            let (found, todo) = {
                let mut state = self.state.lock();
                let found = ready(&mut state);
                (found, std::mem::take(&mut state.todo))
            };
            for work in todo {
                self.start(work);
            }
            if let Some(found) = found {
                return found;
            }
            changes.changed().await.expect("the node holds the sender");
        }
    }

    /// Runs `work` until it ends or the sidecar stops.
    pub fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Runs `work` to its end also when the caller gives up meanwhile. When the sidecar stops first there is no answer:
    /// the caller's connection breaks, and it asks the next sidecar.
    pub async fn finish<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let stop = self.stop.clone();
        let task = self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => None,
                outcome = work => Some(outcome),
            }
        });
        match task.await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => std::future::pending().await,
            Err(error) => Err(Error::internal(format!("a task of the sidecar ended: {error}"))),
        }
    }

    fn start(self: &Arc<Self>, work: Todo) {
        let node = self.clone();
        match work {
            Todo::Persist(id) => self.spawn(persist::run(node, id)),
            Todo::Sum(key, fill) => self.spawn(persist::sum(node, key, fill)),
            Todo::Publish(order) => self.spawn(publish::commit(node, order)),
            Todo::Remove(order) => self.spawn(publish::remove(node, order)),
            Todo::Target(order) => self.spawn(targets::obey(node, order)),
            Todo::Stack(order) => self.spawn(stacks::take(node, order)),
            Todo::AwaitSeals(job, generation) => self.spawn(seals::await_seals(node, job, generation)),
            Todo::LearnSteps(job) => self.spawn(learn::steps(node, job)),
            Todo::CheckShared(job) => self.spawn(sharing::check(node, job)),
            Todo::Sweep => self.spawn(async move { sweep::once(&node) }),
        }
    }
}
