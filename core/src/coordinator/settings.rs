//! What a coordinator is started with; the configuration maps its keys to this.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;

use super::KeepRules;
pub use super::set::SetSettings;
pub use crate::config::SaveEvery;
use crate::error::{Error, Result};
use crate::ids::ClusterId;

#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    /// The state directory (STRATA_HOME); the log lies in `coordinator/` below it.
    pub home: PathBuf,
    /// The cluster of a new state; none: one of its own. A state that is there keeps its own.
    pub cluster: Option<ClusterId>,
    /// Address of the gRPC services; port 0 picks a free one.
    pub listen: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// Allows to listen beyond loopback without TLS (P11).
    pub insecure: bool,
    pub timings: Timings,
    /// What retention keeps.
    pub keep: KeepRules,
    pub checkpoint_interval: SaveEvery,
    /// The most calls a second of one job; 0: as many as it likes.
    pub calls_per_second: u64,
    /// Command line of the hooks child, such as `[exe, "python", "-m", "strata._hooks", FILE]`; none: no hooks.
    pub hooks: Option<Vec<String>>,
    /// Of one of several coordinators that are one cluster's; None: it is alone.
    pub set: Option<SetSettings>,
}

/// What may change while the coordinator runs.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    pub timings: Timings,
    pub keep: KeepRules,
    /// A number of steps is that of the generations that open from now on.
    pub checkpoint_interval: SaveEvery,
    pub calls_per_second: u64,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Timings {
    /// How long a silent member is believed to live.
    pub lease: Duration,
    /// Silence after which a member is shown as suspect; proves nothing.
    pub suspect_after: Duration,
    /// How long a rank's step may stand still at least before it is shown as stalled; zero: it never is.
    pub stall_after: Duration,
    /// How often workers that speak gRPC themselves beat.
    pub heartbeat: Duration,
    pub save_wait: Duration,
    pub commit_timeout: Duration,
    /// A job's budget for a blocking call.
    pub timeout: Duration,
    /// How long one hook call may take.
    pub hook_limit: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            lease: Duration::from_secs(10),
            suspect_after: Duration::from_millis(1500),
            stall_after: Duration::from_secs(300),
            heartbeat: Duration::from_secs(1),
            save_wait: Duration::from_secs(2),
            commit_timeout: Duration::from_secs(600),
            timeout: Duration::from_secs(300),
            hook_limit: Duration::from_secs(10),
        }
    }
}

impl CoordinatorSettings {
    /// On loopback, with the defaults.
    pub fn new(home: impl Into<PathBuf>) -> CoordinatorSettings {
        CoordinatorSettings {
            home: home.into(),
            cluster: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            insecure: false,
            timings: Timings::default(),
            keep: KeepRules::default(),
            checkpoint_interval: SaveEvery::default(),
            calls_per_second: 0,
            hooks: None,
            set: None,
        }
    }

    pub fn live(&self) -> LiveSettings {
        let (checkpoint_interval, calls_per_second) = (self.checkpoint_interval, self.calls_per_second);
        let (timings, keep) = (self.timings.clone(), self.keep.clone());
        LiveSettings { timings, keep, checkpoint_interval, calls_per_second }
    }

    /// With these instead of its own.
    pub fn with(self, live: LiveSettings) -> CoordinatorSettings {
        let LiveSettings { timings, keep, checkpoint_interval, calls_per_second } = live;
        CoordinatorSettings { timings, keep, checkpoint_interval, calls_per_second, ..self }
    }

    /// Fails with Denied for an open door (P11) and with Invalid for times, or rules of retention, that can't work.
    pub fn check(&self) -> Result<()> {
        self.keep.check()?;
        if !self.listen.ip().is_loopback() && self.tls.is_none() && !self.insecure {
            return Err(Error::denied(format!(
                "listening on {}: that is beyond loopback, and neither TLS nor insecure is set",
                self.listen
            ))
            .hint("give --tls-cert and --tls-key, or --insecure on a network that you trust"));
        }
        if let Some(set) = &self.set {
            set.check(self.listen, self.tls.is_some())?;
        }
        let timings = &self.timings;
        if timings.lease < timings.suspect_after || timings.lease < timings.heartbeat * 2 {
            return Err(Error::invalid(format!(
                "starting the coordinator: a lease of {} is shorter than suspect_after ({}) or two heartbeats of {}",
                format_duration(timings.lease),
                format_duration(timings.suspect_after),
                format_duration(timings.heartbeat)
            ))
            .hint("use a longer lease"));
        }
        Ok(())
    }
}
