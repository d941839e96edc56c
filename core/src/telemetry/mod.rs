//! Logs and metrics: the registry behind /metrics, log set-up, what a panic prints.
//! Called by every room above; [`log::start`] and [`Metrics::new`] once per process, by the role or command.
//! Never sends anything anywhere: logs go to standard error, metrics to whoever asks.

mod buckets;
pub mod log;
mod metrics;

pub use buckets::{Direction, Requests, requests};
pub use log::{LogFormat, LogSettings};
pub use metrics::{
    JobUseLabels, Metrics, RestoreFrom, RestoreLabels, SlotLabels, StoreErrorLabels, TargetLabels,
};
