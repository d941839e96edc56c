//! SIGHUP: the configuration is read again, and what may change while the coordinator runs is changed.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{RoleOptions, settings};
use crate::config::Loaded;
use crate::coordinator::Coordinator;
use crate::error::{Doing, Result};

/// Keys that take effect at once; the others do at the next start.
const LIVE: [&str; 15] = [
    "checkpoint.interval_steps",
    "checkpoint.keep_last",
    "checkpoint.keep_every_steps",
    "checkpoint.keep_every",
    "checkpoint.keep_best",
    "checkpoint.best_metric",
    "checkpoint.best_is",
    "coordinator.calls_per_second",
    "coordinator.lease",
    "coordinator.stall_after",
    "coordinator.suspect_after",
    "job.timeout",
    "job.heartbeat_interval",
    "sidecar.save_wait",
    "sidecar.commit_timeout",
];

/// Whose keys the process works by.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Parts {
    Coordinator,
    /// A sidecar too.
    Both,
}

impl Parts {
    fn concerns(self, key: &str) -> bool {
        let is_sidecars = key.starts_with("sidecar.") || key.starts_with("store.");
        self == Parts::Both || !is_sidecars || LIVE.contains(&key)
    }
}

/// From now on. Must be called inside the runtime.
pub(super) fn on_hangup(
    started_with: Loaded,
    options: RoleOptions,
    coordinator: Arc<Coordinator>,
    parts: Parts,
) -> Result<()> {
    let mut hangups = signal(SignalKind::hangup()).doing(|| "listening for SIGHUP")?;
    tokio::spawn(async move {
        let mut reloading = Reloading { now: started_with.clone(), started_with, options, parts };
        while hangups.recv().await.is_some() {
            if let Err(error) = reloading.reload(&coordinator).await {
                let hint = error.hint.map(|hint| format!("; hint: {hint}")).unwrap_or_default();
                tracing::error!(
                    "reading the configuration again: {}: everything stays as it is{hint}",
                    error.message
                );
            }
        }
    });
    Ok(())
}

struct Reloading {
    started_with: Loaded,
    /// As far as it is live.
    now: Loaded,
    options: RoleOptions,
    parts: Parts,
}

impl Reloading {
    async fn reload(&mut self, coordinator: &Coordinator) -> Result<()> {
        let loaded = Loaded::load(&self.options.env, self.options.config.as_deref(), &self.options.flags)?;
        let live = settings::live(&loaded.config);
        coordinator.reconfigure(live).await?;
        let is_live = |key: &String| LIVE.contains(&key.as_str());
        let changed: Vec<String> = self.now.changed(&loaded).into_iter().filter(is_live).collect();
        let later = self.started_with.changed(&loaded).into_iter();
        let later: Vec<String> = later.filter(|key| !is_live(key) && self.parts.concerns(key)).collect();
        let changed = if changed.is_empty() {
            "nothing that changes while it runs".to_owned()
        } else {
            changed.join(", ")
        };
        tracing::info!("the configuration was read again; changed: {changed}");
        if !later.is_empty() {
            tracing::warn!(
                "{} can't change while this process runs: start it again for that",
                later.join(", ")
            );
        }
        self.now = loaded;
        Ok(())
    }
}
