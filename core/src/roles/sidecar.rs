//! `strata sidecar`: the sidecar of a node with its HTTP face, as one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{RoleOptions, announce, runtime, settings, stop, warn_of_open_doors};
use crate::admin::{self, AdminSource, Check};
use crate::clock::MachineClock;
use crate::config::{Loaded, locate};
use crate::error::Result;
use crate::ids::JobName;
use crate::proto::v1;
use crate::sidecar::{Sidecar, SidecarSettings};
use crate::telemetry::{Metrics, log};

/// EX_TEMPFAIL (sysexits.h): work left, start it again on the same arena directory.
const WORK_LEFT: u8 = 75;

/// A private one whose trainer died before it came does not stay.
pub(super) const FIRST_TRAINER: Duration = Duration::from_secs(60);

/// Runs until SIGTERM or SIGINT, then persists what is Sealed for at most `drain_timeout`: the exit code 0, or 75 when
/// steps are left that only memory holds (named on standard error). Prints at most six lines once it serves.
///
/// Fails with Conflict while another sidecar has the socket or the arenas, with Invalid for a configuration that can't
/// work, with Denied for arenas of another user.
///
/// With `private` it serves that job's trainers alone, in places of its own, and ends when its last trainer is gone and
/// nothing is Sealed.
pub fn sidecar(options: &RoleOptions, private: Option<&JobName>) -> Result<u8> {
    let loaded = Loaded::load(&options.env, options.config.as_deref(), &options.flags)?;
    log::start(&loaded.log())?;
    runtime()?.block_on(async {
        let asked = CancellationToken::new();
        stop::on_signal(asked.clone())?;
        let mut wanted = settings::sidecar(&loaded.config, options)?;
        let mut listen = settings::sidecar_admin(&loaded.config);
        match private {
            Some(job) => {
                withdraw(options, job, &mut wanted)?;
                listen.listen = free_port();
            }
            None => warn_of_open_doors(&settings::sidecar_open_doors(&loaded.config)),
        }
        let (coordinator, arenas) = (wanted.coordinator.url.clone(), wanted.arenas.display().to_string());
        let (metrics, running) = (Metrics::new(), CancellationToken::new());
        let started =
            Sidecar::start(wanted, MachineClock::shared(), metrics.clone(), running.clone()).await?;
        let sidecar = Arc::new(started);
        let source = Arc::new(Source(sidecar.clone()));
        let http = match admin::serve(&listen, source, metrics, running.clone()).await {
            Ok(http) => http,
            Err(error) => {
                end(&sidecar, &running, Duration::ZERO).await?;
                return Err(error);
            }
        };
        announce(&[
            ("socket", sidecar.socket().display().to_string()),
            ("HTTP", format!("http://{}", http.addr)),
            ("arenas", arenas),
            ("to", coordinator),
            ("next:", format!("STRATA_SOCKET={} python train.py", sidecar.socket().display())),
        ]);
        tokio::select! {
            () = asked.cancelled() => {}
            () = sidecar.deserted(FIRST_TRAINER), if private.is_some() => {}
            ended = sidecar.stopped() => return ended.map(|()| 0),
        }
        end(&sidecar, &running, loaded.config.sidecar.drain_timeout).await
    })
}

/// Into the private places of a job.
pub(super) fn withdraw(options: &RoleOptions, job: &JobName, sidecar: &mut SidecarSettings) -> Result<()> {
    let places = locate::private(&options.env, job)?;
    (sidecar.socket, sidecar.arenas) = (places.socket, places.arenas);
    Ok(())
}

/// A port of loopback that nobody has.
pub(super) fn free_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Drains for at most `limit` and stops: the exit code.
pub(super) async fn end(sidecar: &Sidecar, running: &CancellationToken, limit: Duration) -> Result<u8> {
    let left = sidecar.drain(limit).await;
    running.cancel();
    sidecar.stopped().await?;
    if left.is_empty() {
        return Ok(0);
    }
    for step in &left {
        tracing::error!("only in memory: {step}");
    }
    tracing::error!(
        "start the sidecar again with the same arena directory, before a reboot, to bring them to the store"
    );
    Ok(WORK_LEFT)
}

/// What the sidecar shows over HTTP.
pub(super) struct Source(pub Arc<Sidecar>);

impl AdminSource for Source {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        let check = |(name, problem)| Check { name, problem, note: None };
        Box::pin(async move { self.0.ready().into_iter().map(check).collect() })
    }

    fn status(&self) -> BoxFuture<'_, Result<v1::Status>> {
        Box::pin(async { Ok(self.0.status()) })
    }
}
