//! The user's configuration as the settings that each part is started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RoleOptions;
use crate::admin::AdminSettings;
use crate::checkpoint::Takeover;
use crate::config::{CheckpointConfig, Config, Extreme, TargetConfig, locate};
use crate::coordinator::{
    CoordinatorSettings, KeepBest, KeepRules, LiveSettings, SetSettings, Timings, TlsFiles,
};
use crate::error::{Doing, Error, Result};
use crate::proto::v1;
use crate::sidecar::{CoordinatorLink, SidecarSettings, TargetSettings};
use crate::storage::{Scheme, StoreOptions, StoreUrl};

/// Fails with Invalid for half a TLS pair.
pub(super) fn coordinator(
    config: &Config,
    options: &RoleOptions,
    home: PathBuf,
) -> Result<CoordinatorSettings> {
    let own = &config.coordinator;
    let tls = match (&own.tls_cert, &own.tls_key) {
        (Some(cert), Some(key)) => {
            Some(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: own.tls_client_ca.clone() })
        }
        (None, None) if own.tls_client_ca.is_none() => None,
        _ => {
            return Err(Error::invalid("starting the coordinator: TLS is set by halves")
                .hint("set tls_cert and tls_key in [coordinator] together; tls_client_ca wants both"));
        }
    };
    let hooks = own.hooks.as_deref().map(|file| hooks_command(file, options)).transpose()?;
    Ok(CoordinatorSettings {
        listen: own.listen.0,
        tls,
        insecure: own.insecure,
        hooks,
        set: set(config)?,
        ..CoordinatorSettings::new(home).with(live(config))
    })
}

/// Invalid for addresses that can't be read; the rest is checked with the whole.
fn set(config: &Config) -> Result<Option<SetSettings>> {
    let own = &config.coordinator;
    let Some(list) = &own.peers else { return Ok(None) };
    let doing = || "reading the coordinators of the set";
    let peers = locate::coordinator_url(list).doing(doing)?.split(',').map(str::to_owned).collect();
    let advertise = own.advertise.as_deref().map(locate::coordinator_url).transpose().doing(doing)?;
    let secret = own.peers_secret.clone().map(|secret| secret.0).unwrap_or_default();
    Ok(Some(SetSettings { peers, advertise, secret, authority: config.sidecar.tls_ca.clone() }))
}

/// What SIGHUP changes.
pub(super) fn live(config: &Config) -> LiveSettings {
    LiveSettings {
        timings: Timings {
            lease: config.coordinator.lease,
            suspect_after: config.coordinator.suspect_after,
            stall_after: config.coordinator.stall_after,
            heartbeat: config.job.heartbeat_interval,
            save_wait: config.sidecar.save_wait,
            commit_timeout: config.sidecar.commit_timeout,
            timeout: config.job.timeout,
            ..Timings::default()
        },
        keep: keep(&config.checkpoint),
        checkpoint_interval: config.checkpoint.interval_steps,
        calls_per_second: config.coordinator.calls_per_second,
    }
}

fn keep(own: &CheckpointConfig) -> KeepRules {
    rules(
        (own.keep_last, own.keep_every_steps, own.keep_every),
        (own.keep_best, own.best_metric.as_deref(), own.best_is),
    )
}

fn rules(
    (last, every_steps, every): (u32, u64, Option<Duration>),
    (count, metric, is): (u32, Option<&str>, Extreme),
) -> KeepRules {
    // Halves of a rule are told by its check.
    let is_asked = count > 0 || metric.is_some();
    let best = is_asked.then(|| KeepBest { count, metric: metric.unwrap_or_default().to_owned(), is });
    KeepRules { last, every_steps, every, best }
}

/// A file that is missing is said now, not at the first commit. NotFound.
fn hooks_command(file: &Path, options: &RoleOptions) -> Result<Vec<String>> {
    let whole = std::path::absolute(file).doing(|| format!("reading the hooks {}", file.display()))?;
    if whole.is_dir() {
        let message = format!("reading the hooks {}: it is a directory", whole.display());
        return Err(Error::invalid(message).hint("--hooks or [coordinator] hooks names a Python file"));
    }
    if !whole.is_file() {
        let message = format!("reading the hooks {}: no such file", whole.display());
        return Err(Error::not_found(message).hint("--hooks or [coordinator] hooks names a Python file"));
    }
    let mut command = options.hooks_runner.clone();
    command.push(whole.display().to_string());
    Ok(command)
}

/// What the coordinator serves to other machines in plain, as `insecure` allows.
pub(super) fn open_doors(config: &Config) -> Vec<(&'static str, SocketAddr)> {
    let own = &config.coordinator;
    let grpc = own.tls_cert.is_none().then_some(("gRPC", own.listen.0));
    let all = grpc.into_iter().chain([("HTTP", own.http.0)]);
    all.filter(|(_, listen)| own.insecure && !listen.ip().is_loopback()).collect()
}

/// The same for the sidecar.
pub(super) fn sidecar_open_doors(config: &Config) -> Vec<(&'static str, SocketAddr)> {
    let own = &config.sidecar;
    let open = own.insecure && !own.http.0.ip().is_loopback();
    open.then_some(("HTTP", own.http.0)).into_iter().collect()
}

pub(super) fn admin(config: &Config) -> AdminSettings {
    AdminSettings { listen: config.coordinator.http.0, insecure: config.coordinator.insecure }
}

/// Fails with Invalid for half a TLS pair, a store or a coordinator's address that can't be read.
pub(super) fn sidecar(config: &Config, options: &RoleOptions) -> Result<SidecarSettings> {
    let own = &config.sidecar;
    let socket = locate::socket(&options.env, own.socket.as_deref())?;
    let link = CoordinatorLink {
        url: locate::coordinator(&options.env, own.coordinator.as_deref())?,
        ca: own.tls_ca.clone(),
        identity: identity(config)?,
    };
    let store = config.store.url.as_deref().map(store_url).transpose()?;
    let targets = config.targets.iter().map(|own| target(own, config)).collect::<Result<Vec<_>>>()?;
    if let Some(same) = targets.iter().find(|target| store.as_ref() == Some(&target.url)) {
        let message =
            format!("reading [[store.target]] {}: {} is the first store itself", same.name, same.url);
        return Err(Error::invalid(message).hint("a target is a further place: give it another url"));
    }
    Ok(SidecarSettings {
        arenas: locate::arenas(&options.env, own.arena_dir.as_deref()),
        store: store.map(|store| store.to_string()),
        store_options: StoreOptions::from(&config.store),
        targets,
        takeover: if config.store.take_over { Takeover::Yes } else { Takeover::No },
        slots: own.slots,
        save_wait: own.save_wait,
        commit_timeout: own.commit_timeout,
        arena_ttl: own.arena_ttl,
        memory_limit: own.memory_limit.0,
        ..SidecarSettings::new(socket, link)
    })
}

/// Invalid for a url that can't be read, and for rules that would never do what they say.
fn target(own: &TargetConfig, config: &Config) -> Result<TargetSettings> {
    let doing = || format!("reading [[store.target]] {}", own.name());
    let rules = rules(
        (own.keep_last, own.keep_every_steps, own.keep_every),
        (own.keep_best, own.best_metric.as_deref(), own.best_is),
    );
    rules.check().doing(doing)?;
    let best = rules.best.as_ref();
    Ok(TargetSettings {
        options: StoreOptions::from(&own.reached_as(&config.store)),
        keep: v1::KeepRules {
            last: rules.last,
            every_steps: rules.every_steps,
            every_ms: rules.every.map_or(0, |every| every.as_millis() as u64),
            best: best.map_or(0, |best| best.count),
            metric: best.map(|best| best.metric.clone()).unwrap_or_default(),
            highest: best.is_some_and(|best| best.is == Extreme::Max),
        },
        hold: own.hold,
        ..TargetSettings::new(own.name(), store_url(&own.url).doing(doing)?)
    })
}

/// A file in its place is said now, not at the first save.
fn store_url(text: &str) -> Result<StoreUrl> {
    let url: StoreUrl = text.parse()?;
    match url.scheme() {
        Scheme::Local(path) if path.is_file() => {
            Err(Error::invalid(format!("reading the store url {text:?}: it is a file"))
                .hint("name a directory, which is made if it is not there"))
        }
        _ => Ok(url),
    }
}

fn identity(config: &Config) -> Result<Option<(PathBuf, PathBuf)>> {
    match (&config.sidecar.tls_cert, &config.sidecar.tls_key) {
        (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
        (None, None) => Ok(None),
        _ => Err(Error::invalid("starting the sidecar: TLS is set by halves")
            .hint("set tls_cert and tls_key in [sidecar] together")),
    }
}

pub(super) fn sidecar_admin(config: &Config) -> AdminSettings {
    AdminSettings { listen: config.sidecar.http.0, insecure: config.sidecar.insecure }
}
