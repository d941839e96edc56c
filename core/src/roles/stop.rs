//! SIGTERM and SIGINT: the first one asks the role to end in good order, a second one ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Result};

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
        let second = next().await;
        std::process::exit(128 + second.as_raw_value());
    });
    Ok(())
}
