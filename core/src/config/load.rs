//! Reading the whole configuration: which file, then every key; and what is shown of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::environment::Environment;
use super::file::{FileValues, closest};
use super::keys::{Config, KeySpec, SECTIONS};
use super::limits;
use super::resolve::{Effective, Flag, Resolver, first_of};
use super::targets::{TARGET, TargetConfig};
use crate::error::{Error, Result};
use crate::telemetry::LogSettings;

/// The effective configuration, and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    effective: BTreeMap<(&'static str, &'static str), Effective>,
}

impl Loaded {
    /// Reads `--config` > STRATA_CONFIG > the usual places, then applies environment and flags. A file that was named
    /// must exist (NotFound); one in a usual place need not. Anything unknown or unreadable is Invalid.
    pub fn load(env: &Environment, config: Option<&Path>, flags: &[Flag]) -> Result<Loaded> {
        let (loaded, errors) = Loaded::load_all(env, config, flags)?;
        first_of(errors)?;
        Ok(loaded)
    }

    fn load_all(env: &Environment, config: Option<&Path>, flags: &[Flag]) -> Result<(Loaded, Vec<Error>)> {
        let file = find_file(env, config)?;
        let mut values = match &file {
            Some(path) => FileValues::read(path)?,
            None => FileValues::default(),
        };
        let mut errors = std::mem::take(&mut values.errors);
        errors.extend(flags.iter().filter_map(unknown_flag));
        let mut resolver = Resolver::new(env, &values, flags);
        let config = Config::resolve(&mut resolver);
        errors.append(&mut resolver.errors);
        errors.extend(limits::problems(&config, &resolver));
        let effective = resolver.effective;
        Ok((Loaded { config, file, effective }, errors))
    }

    /// Where `section.key` came from, such as "environment STRATA_STORE".
    pub fn origin(&self, section: &str, key: &str) -> Option<String> {
        self.effective
            .iter()
            .find(|((s, k), _)| *s == section && *k == key)
            .map(|(_, found)| found.origin.to_string())
    }

    /// Keys, as `section.key`, that have another value here than there.
    pub fn changed(&self, other: &Loaded) -> Vec<String> {
        let keys = SECTIONS.iter().flat_map(|section| section.keys);
        let value = |of: &Loaded, key: &KeySpec| of.effective[&(key.section, key.name)].value.clone();
        let differ = keys.filter(|key| value(self, key) != value(other, key));
        let mut changed: Vec<String> = differ.map(|key| format!("{}.{}", key.section, key.name)).collect();
        if format!("{:?}", self.config.targets) != format!("{:?}", other.config.targets) {
            changed.push(TARGET.to_owned());
        }
        changed
    }

    /// What [`crate::telemetry::log::start`] takes.
    pub fn log(&self) -> LogSettings {
        LogSettings { format: self.config.log.format, level: self.config.log.level.clone() }
    }

    /// All values with their origin, as TOML with comments. Secrets say only that they are set.
    pub fn show(&self) -> String {
        let mut text = String::new();
        for section in SECTIONS {
            text.push_str(&format!("[{}]\n", section.name));
            for key in section.keys {
                let found = &self.effective[&(section.name, key.name)];
                let line = if found.value.is_empty() {
                    format!("# {} is unset", key.name)
                } else {
                    format!("{} = {}", key.name, super::example::literal(&found.value, key.form))
                };
                text.push_str(&format!("{line:<48} # {}\n", found.origin));
            }
            if TARGET.starts_with(&format!("{}.", section.name)) {
                self.config.targets.iter().for_each(|target| show_target(&mut text, target));
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    /// The same as one JSON document, `"schema": 1`.
    pub fn show_json(&self) -> serde_json::Value {
        let settings: Vec<_> = SECTIONS
            .iter()
            .flat_map(|section| section.keys)
            .map(|key| {
                let found = &self.effective[&(key.section, key.name)];
                json!({
                    "section": key.section,
                    "key": key.name,
                    "value": if found.value.is_empty() { None } else { Some(&found.value) },
                    "origin": found.origin.to_string(),
                    "environment": key.env,
                })
            })
            .collect();
        let target = |target: &TargetConfig| -> serde_json::Map<String, serde_json::Value> {
            let shown = target.shown().into_iter();
            shown
                .map(|(key, value)| (key.name.to_owned(), (!value.is_empty()).then_some(value).into()))
                .collect()
        };
        let targets: Vec<_> = self.config.targets.iter().map(target).collect();
        json!({ "schema": 1, "file": self.file, "settings": settings, "targets": targets })
    }
}

/// What is unset is left out: there is no other source than the file.
fn show_target(text: &mut String, target: &TargetConfig) {
    text.push_str(&format!("\n[[{TARGET}]]\n"));
    for (key, value) in target.shown().into_iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{} = {}\n", key.name, super::example::literal(&value, key.form)));
    }
}

/// Everything that is wrong with a configuration file (or with the one that would be found); empty when it is fine.
pub fn check(env: &Environment, config: Option<&Path>) -> Result<Vec<Error>> {
    Loaded::load_all(env, config, &[]).map(|(_, errors)| errors)
}

/// The file that would be read, by INTERFACE's order.
pub fn find_file(env: &Environment, config: Option<&Path>) -> Result<Option<PathBuf>> {
    let named = config
        .map(|path| (path.to_owned(), "--config"))
        .or_else(|| env.path("STRATA_CONFIG").map(|path| (path, "STRATA_CONFIG")));
    if let Some((path, by)) = named {
        if path.is_dir() {
            return Err(Error::invalid(format!(
                "reading the configuration {}: it is a directory",
                path.display()
            ))
            .hint(format!("{by} names it, and must name a file")));
        }
        if !path.exists() {
            return Err(Error::not_found(format!(
                "reading the configuration {}: no such file",
                path.display()
            ))
            .hint(format!("{by} names it; \"strata config example > {}\" writes one", path.display())));
        }
        return Ok(Some(path));
    }
    let user = env.path("XDG_CONFIG_HOME").or_else(|| env.home().map(|home| home.join(".config")));
    let candidates =
        [user.map(|folder| folder.join("strata/config.toml")), Some("/etc/strata/config.toml".into())];
    Ok(candidates.into_iter().flatten().find(|path| path.is_file()))
}

fn unknown_flag(flag: &Flag) -> Option<Error> {
    let known = || {
        SECTIONS.iter().flat_map(|section| section.keys).map(|key| format!("{}.{}", key.section, key.name))
    };
    if known().any(|key| key == flag.key) {
        return None;
    }
    let error = Error::invalid(format!("reading {}: no setting is called {:?}", flag.flag, flag.key));
    Some(match closest(&flag.key, known()) {
        Some(near) => error.hint(format!("did you mean \"{near}\"?")),
        None => error.hint("\"strata config example\" shows every key"),
    })
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
