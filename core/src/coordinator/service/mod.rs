//! The gRPC faces: arguments in, the engine asked, answers out. No decision is taken here.

mod admin;
mod attach;
mod checkpoint;
mod coordinator;
mod dataset;
mod rendezvous;
mod server;

use std::time::Duration;

use tokio::sync::watch;

pub(super) use server::{listen, serve};

use super::engine::Handle;

/// All services share the way to the engine and the default time-out.
#[derive(Clone)]
pub(super) struct Services {
    pub engine: Handle,
    /// For calls that give no time-out.
    pub timeout: watch::Receiver<Duration>,
}

impl Services {
    fn time(&self, millis: u64) -> Duration {
        match millis {
            0 => *self.timeout.borrow(),
            given => Duration::from_millis(given),
        }
    }
}
