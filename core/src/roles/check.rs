//! `strata config check`: what the roles would refuse to start with, all of it.

use std::path::{Path, PathBuf};

use super::{RoleOptions, settings};
use crate::config::{self, Environment, Loaded};
use crate::error::{Error, Result};

/// Everything that is wrong with a configuration file (or with the one that would be found), for the coordinator and the
/// sidecar alike; empty when it is fine. Starts nothing. NotFound for a file that was named and is not there.
pub fn check(env: &Environment, file: Option<&Path>) -> Result<Vec<Error>> {
    let unreadable = config::check(env, file)?;
    if !unreadable.is_empty() {
        return Ok(unreadable);
    }
    let config = Loaded::load(env, file, &[])?.config;
    let options = RoleOptions {
        env: env.clone(),
        config: file.map(Path::to_owned),
        flags: Vec::new(),
        hooks_runner: Vec::new(),
    };
    let found = [
        settings::coordinator(&config, &options, PathBuf::new()).and_then(|coordinator| coordinator.check()),
        settings::admin(&config).check(),
        settings::sidecar(&config, &options).map(drop),
        settings::sidecar_admin(&config).check(),
    ];
    Ok(found.into_iter().filter_map(Result::err).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_finds_what_a_start_would_refuse() {
        let folder = tempfile::tempdir().unwrap();
        let there = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(there("store"), "a file").unwrap();
        let text = format!(
            "[coordinator]\nlisten = \"0.0.0.0:1\"\nhooks = \"{}\"\n[store]\nurl = \"{}\"\n",
            folder.path().display(),
            there("store")
        );
        std::fs::write(there("config.toml"), text).unwrap();
        let found = check(&Environment::of([]), Some(Path::new(&there("config.toml")))).unwrap();
        let said: Vec<_> = found.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("it is a directory"), "{said:?}");
        assert!(said[1].contains("it is a file"), "{said:?}");
    }

    #[test]
    fn plain_http_beyond_loopback_is_refused_where_only_grpc_has_tls() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let tls = "[coordinator]\ntls_cert = \"/a\"\ntls_key = \"/b\"\nlisten = \"0.0.0.0:1\"\nhttp = \"0.0.0.0:2\"\n";
        std::fs::write(&path, tls).unwrap();
        let found = check(&Environment::of([]), Some(&path)).unwrap();
        assert!(found.len() == 1 && found[0].message.contains("0.0.0.0:2"), "{found:?}");
        std::fs::write(&path, format!("{tls}insecure = true\n")).unwrap();
        assert_eq!(check(&Environment::of([]), Some(&path)).unwrap(), []);
        let config = Loaded::load(&Environment::of([]), Some(&path), &[]).unwrap().config;
        assert_eq!(settings::open_doors(&config), [("HTTP", "0.0.0.0:2".parse().unwrap())]);
    }
}
