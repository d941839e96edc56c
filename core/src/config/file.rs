//! The configuration file: TOML, read with the line of every key; keys that nobody declared are errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::keys::{KeySpec, SECTIONS, find};
use super::targets::{self, TARGET, Table};
use super::value::Form;
use crate::error::{Doing, Error, Result};

/// One value of the file, as text in the form that its type reads.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub text: String,
    pub line: usize,
}

/// What a file says, and what is wrong with it.
#[derive(Default)]
pub(super) struct FileValues {
    pub path: PathBuf,
    values: BTreeMap<(String, String), Entry>,
    /// Every `[[store.target]]`.
    pub targets: Vec<Table>,
    pub errors: Vec<Error>,
}

impl FileValues {
    pub fn read(path: &Path) -> Result<FileValues> {
        let doing = || format!("reading the configuration {}", path.display());
        let text = String::from_utf8(std::fs::read(path).doing(doing)?).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let line = line_of(&String::from_utf8_lossy(&error.as_bytes()[..good]), good);
            Error::invalid(format!("{}:{line}: it is not UTF-8", doing()))
                .hint("save it as UTF-8, as TOML asks")
        })?;
        Ok(FileValues::parse(path, &text))
    }

    pub fn get(&self, section: &str, key: &str) -> Option<&Entry> {
        self.values.get(&(section.to_owned(), key.to_owned()))
    }

    pub fn parse(path: &Path, text: &str) -> FileValues {
        let mut values = FileValues { path: path.to_owned(), ..FileValues::default() };
        match DeTable::parse(text) {
            Ok(root) => values.take_root(text, root.get_ref()),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                values.error(line, format!("not TOML: {}", error.message().trim()), None);
            }
        }
        values
    }

    fn take_root(&mut self, text: &str, root: &DeTable<'_>) {
        for (name, value) in root {
            let (line, name) = (line_of(text, name.span().start), name.get_ref().as_ref());
            let Some(section) = SECTIONS.iter().find(|section| section.name == name) else {
                self.unknown_section(line, name);
                continue;
            };
            let DeValue::Table(table) = value.get_ref() else {
                self.error(
                    line,
                    format!("{name} is a section, not a value"),
                    Some(format!("write [{name}] on a line of its own")),
                );
                continue;
            };
            for (key, value) in table {
                let line = line_of(text, key.span().start);
                self.take_key(text, line, section.name, key.get_ref(), value.get_ref());
            }
        }
    }

    fn take_key(&mut self, text: &str, line: usize, section: &'static str, key: &str, value: &DeValue<'_>) {
        if format!("{section}.{key}") == TARGET {
            return self.take_targets(text, line, value);
        }
        let Some(spec) = find(section, key) else {
            let keys = SECTIONS.iter().filter(|spec| spec.name == section).flat_map(|spec| spec.keys);
            let hint = closest(key, keys.map(|spec| spec.name.to_owned()))
                .or_else(|| closest(key, all_keys()))
                .map_or_else(
                    || "\"strata config example\" shows every key".into(),
                    |near| format!("did you mean \"{near}\"?"),
                );
            self.error(line, format!("[{section}] {key}: unknown key"), Some(hint));
            return;
        };
        if let Some(text) = self.text(spec, line, value) {
            self.values.insert((section.to_owned(), key.to_owned()), Entry { text, line });
        }
    }

    /// In the form that the key's type reads; None: said to be wrong.
    fn text(&mut self, spec: &KeySpec, line: usize, value: &DeValue<'_>) -> Option<String> {
        match (value, spec.form) {
            (DeValue::String(text), Form::Text | Form::NumberOrText) => Some(text.to_string()),
            (DeValue::Integer(number), Form::Number | Form::NumberOrText) if number.radix() == 10 => {
                Some(number.as_str().replace('_', ""))
            }
            (DeValue::Boolean(on), Form::Switch) => Some(on.to_string()),
            (other, _) => {
                let found = other.type_str();
                let problem =
                    format!("[{}] {}: wrong type, found {} {found}", spec.section, spec.name, article(found));
                self.error(line, problem, Some(format!("write {}", spec.what)));
                None
            }
        }
    }

    fn take_targets(&mut self, text: &str, line: usize, value: &DeValue<'_>) {
        let DeValue::Array(tables) = value else {
            let problem = format!("[{TARGET}] is a list of tables");
            return self.error(line, problem, Some(format!("write [[{TARGET}]] before each")));
        };
        for table in tables {
            let DeValue::Table(keys) = table.get_ref() else {
                let problem = format!("[{TARGET}] is a list of tables");
                self.error(line, problem, Some(format!("write [[{TARGET}]] before each")));
                continue;
            };
            let mut found = Table { line: line_of(text, table.span().start), ..Table::default() };
            for (key, value) in keys {
                let line = line_of(text, key.span().start);
                let Some(spec) = targets::find(key.get_ref()) else {
                    let known = targets::TARGET_KEYS.iter().map(|spec| spec.name.to_owned());
                    let hint = closest(key.get_ref(), known).map_or_else(
                        || "\"strata config example\" shows every key".into(),
                        |near| format!("did you mean \"{near}\"?"),
                    );
                    self.error(line, format!("[[{TARGET}]] {}: unknown key", key.get_ref()), Some(hint));
                    continue;
                };
                if let Some(text) = self.text(spec, line, value.get_ref()) {
                    found.values.insert(spec.name.to_owned(), Entry { text, line });
                }
            }
            self.targets.push(found);
        }
    }

    fn unknown_section(&mut self, line: usize, name: &str) {
        let hint = match closest(name, SECTIONS.iter().map(|section| section.name.to_owned())) {
            Some(near) => format!("did you mean [{near}]?"),
            None => match SECTIONS.iter().find(|section| section.keys.iter().any(|key| key.name == name)) {
                Some(section) => format!("{name} belongs into the section [{}]", section.name),
                None => "\"strata config example\" shows every section".into(),
            },
        };
        self.error(line, format!("[{name}]: unknown section"), Some(hint));
    }

    fn error(&mut self, line: usize, problem: String, hint: Option<String>) {
        let error = Error::invalid(format!("reading {}:{line}: {problem}", self.path.display()));
        self.errors.push(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }
}

fn all_keys() -> impl Iterator<Item = String> {
    SECTIONS.iter().flat_map(|section| section.keys).map(|key| format!("[{}] {}", key.section, key.name))
}

/// The nearest known name, if it is near enough to be what was meant.
pub(super) fn closest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    const NEAR_ENOUGH: f64 = 0.8; // Jaro-Winkler; "leese"/"lease" is 0.91, unrelated keys lie below 0.75
    known
        .map(|known| {
            let bare = known.rsplit(' ').next().unwrap_or(&known);
            (strsim::jaro_winkler(name, bare), known)
        })
        .filter(|(score, _)| *score >= NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
