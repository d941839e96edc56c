//! The engine's loop: gathers work, applies it, makes the batch durable, then lets its answers go.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::here;
use super::super::log::Log;
use super::super::set::Reign;
use super::{Engine, TICK, Work};
use crate::error::Result;
use crate::ids::JobName;

/// Calls taken into one batch: bounds the wait of the first of them.
const BATCH: usize = 512;

/// Where batches become durable.
pub enum Durable {
    /// In the log of a coordinator that is alone.
    Own(Log),
    /// On a majority of a set.
    Set(Reign),
}

/// Runs until cancelled. Fails when the log can't be written, or the reign has ended: nothing that was not durable has been
/// told to anyone.
pub async fn run(
    mut engine: Engine,
    mut log: Durable,
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
            () = stop.cancelled() => return match &mut log {
                Durable::Own(log) => log.cut(&engine.state),
                Durable::Set(_) => Ok(()),
            },
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
            match &mut log {
                Durable::Own(log) => here(|| log.append(&batch))?,
                Durable::Set(reign) => reign.append(&batch).await?,
            }
            engine.metrics.log_commit_time.observe((engine.now() - began).as_secs_f64());
            if let Durable::Own(log) = &mut log
                && log.wants_cut()
            {
                here(|| log.cut(&engine.state))?;
            }
        }
        if let Durable::Set(reign) = &log {
            reign.confirm(!engine.outbox.is_empty()).await?;
        }
        for answer in engine.outbox.drain(..) {
            answer();
        }
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
