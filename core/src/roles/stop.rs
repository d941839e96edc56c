//! SIGTERM and SIGINT: the first one asks the role to end in good order, a second one ends the process at once.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Result};

/// A signal so soon after the first one is the same wish. When a launcher with several threads is killed, the kernel
/// sends the death signal each time it hands its children from one dying thread to the next.
const SAME_WISH: Duration = Duration::from_millis(250);

/// Cancels `stop` at the first signal. Must be called inside the runtime.
pub(super) fn on_signal(stop: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).doing(|| "listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(|| "listening for SIGINT")?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            }
        };
        next().await;
        tracing::info!("stopping; a second signal ends this process at once");
        stop.cancel();
        let asked = Instant::now();
        let second = loop {
            let again = next().await;
            if asked.elapsed() > SAME_WISH {
                break again;
            }
        };
        std::process::exit(128 + second.as_raw_value());
    });
    Ok(())
}
