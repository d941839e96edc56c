//! The engine's loop: gathers work, applies it, makes the batch durable, then lets its answers go.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::log::Log;
use super::{Engine, TICK, Work};
use crate::error::Result;
use crate::ids::JobName;

/// Calls taken into one batch: bounds the wait of the first of them.
const BATCH: usize = 512;

/// Runs until cancelled. Fails when the log can't be written: nothing that was not durable has been told to anyone.
pub async fn run(
    mut engine: Engine,
    mut log: Log,
    mut inbox: mpsc::UnboundedReceiver<Work>,
    stop: CancellationToken,
) -> Result<()> {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut work = Vec::with_capacity(BATCH);
    engine.resume();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return log.cut(&engine.state),
            _ = tick.tick() => engine.tick(),
            received = inbox.recv_many(&mut work, BATCH) => {
                if received == 0 {
                    return Ok(());
                }
                for item in work.drain(..) {
                    item(&mut engine);
                }
            }
        }
        if !engine.batch.is_empty() {
            let batch = std::mem::take(&mut engine.batch);
            let began = engine.now();
            engine.metrics.log_records.inc_by(batch.len() as u64);
            here(|| log.append(&batch))?;
            engine.metrics.log_commit_time.observe((engine.now() - began).as_secs_f64());
            if log.wants_cut() {
                here(|| log.cut(&engine.state))?;
            }
        }
        for answer in engine.outbox.drain(..) {
            answer();
        }
    }
}

/// On this very thread, whose other tasks another one takes over: two hops between threads would take as long as the disk.
fn here<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Engine {
    pub(super) fn tick(&mut self) {
        self.check_leases();
        self.check_saves();
        self.check_intervals();
        self.check_retention();
        self.check_targets();
        self.check_stalls();
        self.check_stacks();
        self.restores_tick();
        self.check_ledgers();
    }

    /// After a restart: open intents are driven again, as soon as a node of their job attaches.
    pub(super) fn resume(&mut self) {
        let jobs: Vec<JobName> = self.state.jobs.keys().cloned().collect();
        for job in jobs {
            self.redrive_commits(&job);
        }
    }
}
