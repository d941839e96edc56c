//! The user's configuration as the settings that each part is started with.

use std::path::PathBuf;

use super::RoleOptions;
use crate::admin::AdminSettings;
use crate::config::Config;
use crate::coordinator::{CoordinatorSettings, Timings, TlsFiles};
use crate::error::{Error, Result};

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
    let hooks = own.hooks.as_ref().map(|file| {
        let mut command = options.hooks_runner.clone();
        command.push(file.display().to_string());
        command
    });
    Ok(CoordinatorSettings {
        listen: own.listen.0,
        tls,
        insecure: own.insecure,
        timings: Timings {
            lease: own.lease,
            suspect_after: own.suspect_after,
            heartbeat: config.job.heartbeat_interval,
            save_wait: config.sidecar.save_wait,
            commit_timeout: config.sidecar.commit_timeout,
            timeout: config.job.timeout,
            ..Timings::default()
        },
        keep_last: config.checkpoint.keep_last,
        checkpoint_interval_steps: config.checkpoint.interval_steps,
        hooks,
        ..CoordinatorSettings::new(home)
    })
}

pub(super) fn admin(config: &Config) -> AdminSettings {
    AdminSettings { listen: config.coordinator.http.0, insecure: config.coordinator.insecure }
}
