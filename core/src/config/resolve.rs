//! Precedence: flag > environment > file > default, with the origin of every value remembered.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::environment::Environment;
use super::file::FileValues;
use super::keys::{KeySpec, find};
use super::value::Setting;
use crate::error::{Error, Result};

/// A command-line flag that overrides a key: `Flag { flag: "--keep-last", key: "checkpoint.keep_last", text: "3" }`.
#[derive(Clone, Debug)]
pub struct Flag {
    pub flag: String,
    pub key: String,
    pub text: String,
}

impl Flag {
    pub fn new(flag: impl Into<String>, key: impl Into<String>, text: impl Into<String>) -> Flag {
        Flag { flag: flag.into(), key: key.into(), text: text.into() }
    }
}

/// Where an effective value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(&'static str),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One key's effective value as text, for `config show`.
#[derive(Clone, Debug)]
pub struct Effective {
    pub value: String,
    pub origin: Origin,
}

/// Draws every declared key from the four sources; collects what can't be read instead of stopping at the first.
pub(super) struct Resolver<'a> {
    pub env: &'a Environment,
    pub file: &'a FileValues,
    pub flags: &'a [Flag],
    pub effective: BTreeMap<(&'static str, &'static str), Effective>,
    pub errors: Vec<Error>,
}

impl<'a> Resolver<'a> {
    pub fn new(env: &'a Environment, file: &'a FileValues, flags: &'a [Flag]) -> Resolver<'a> {
        Resolver { env, file, flags, effective: BTreeMap::new(), errors: Vec::new() }
    }

    pub fn value<T: Setting>(&mut self, section: &'static str, key: &'static str) -> T {
        let spec = find(section, key).expect("the resolver asks only for declared keys");
        let mut value =
            T::parse(spec.default).expect("declared defaults are readable: a test reads them all");
        let mut origin = Origin::Default;
        for (text, from) in self.given(spec) {
            let below = match T::parse(spec.default) {
                Ok(default) => std::mem::replace(&mut value, default),
                Err(_) => continue,
            };
            match T::parse_over(&text, below) {
                Ok(read) => (value, origin) = (read, from),
                Err(problem) => self.errors.push(unreadable(spec, &text, &from, &problem)),
            }
        }
        self.effective.insert((section, key), Effective { value: value.render(), origin });
        value
    }

    /// What the sources say about a key, the weakest first.
    fn given(&self, spec: &KeySpec) -> Vec<(String, Origin)> {
        let mut given = Vec::new();
        if let Some(entry) = self.file.get(spec.section, spec.name) {
            given.push((entry.text.clone(), Origin::File { path: self.file.path.clone(), line: entry.line }));
        }
        if let Some(text) = self.env.text(spec.env) {
            given.push((text, Origin::Environment(spec.env)));
        }
        let dotted = format!("{}.{}", spec.section, spec.name);
        for flag in self.flags.iter().filter(|flag| flag.key == dotted) {
            given.push((flag.text.clone(), Origin::Flag(flag.flag.clone())));
        }
        given
    }
}

pub(super) fn unreadable(spec: &KeySpec, text: &str, origin: &Origin, problem: &str) -> Error {
    let shown = if spec.what.contains("secret") { "(hidden)" } else { text };
    let place = match origin {
        Origin::Default => "reading the default".to_owned(),
        Origin::File { path, line } => {
            format!("reading {}:{line}: [{}] {} = {shown:?}", path.display(), spec.section, spec.name)
        }
        Origin::Environment(name) => format!("reading {name}={shown:?} from the environment"),
        Origin::Flag(flag) => format!("reading {flag} {shown:?}"),
    };
    Error::invalid(format!("{place}: {problem}")).hint(format!("write {}", spec.what))
}

/// Several findings as the one error that a command ends with.
pub(super) fn first_of(errors: Vec<Error>) -> Result<()> {
    let more = errors.len().saturating_sub(1);
    match errors.into_iter().next() {
        None => Ok(()),
        Some(error) if more == 0 => Err(error),
        Some(mut error) => {
            error.message.push_str(&format!(" (and {more} more: \"strata config check\" lists them)"));
            Err(error)
        }
    }
}
