//! The commented configuration file that is the reference.

use super::keys::{KeySpec, SECTIONS};
use super::targets::{TARGET, TARGET_KEYS};
use super::value::Form;

const WIDTH: usize = 100;

/// Every section and key with its text, default and environment name. As it stands it changes nothing: every key is
/// commented out.
pub fn example() -> String {
    let mut text = String::from(
        "# Strata's configuration. Every key is shown with its default; remove the '#' before a key to set it.\n\
         # A flag overrides the environment, the environment this file, and this file the default.\n",
    );
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, section.doc);
        text.push_str(&format!("[{}]\n", section.name));
        for key in section.keys {
            comment(&mut text, key.doc);
            text.push_str(&format!(
                "# Environment: {}{}\n",
                key.env,
                if key.default.is_empty() { ". Unset by default." } else { "" }
            ));
            text.push_str(&format!("#{} = {}\n", key.name, value(key)));
        }
        if TARGET.starts_with(&format!("{}.", section.name)) {
            targets(&mut text);
        }
    }
    text
}

/// Of which there may be several, so that none is there by default.
fn targets(text: &mut String) {
    text.push('\n');
    comment(text, &TARGETS);
    text.push_str(&format!("#[[{TARGET}]]\n"));
    for key in TARGET_KEYS {
        comment(text, key.doc);
        text.push_str(&format!("#{} = {}\n", key.name, value(key)));
    }
}

const TARGETS: [&str; 3] = [
    "A further target: every committed step is copied there in the background, whole, and kept by rules of its own. Training",
    "and commits never wait for it. A restore reads from it what the first store lacks or has damaged. Repeat the table for",
    "more of them.",
];

fn value(key: &KeySpec) -> String {
    literal(if key.default.is_empty() { key.sample } else { key.default }, key.form)
}

/// A value as TOML writes it.
pub(super) fn literal(text: &str, form: Form) -> String {
    match form {
        Form::Number | Form::Switch => text.to_owned(),
        Form::NumberOrText if text.parse::<u64>().is_ok() => text.to_owned(),
        Form::Text | Form::NumberOrText => toml::Value::String(text.to_owned()).to_string(),
    }
}

fn comment(text: &mut String, doc: &[&str]) {
    let words = doc.iter().flat_map(|line| line.split_whitespace());
    let mut line = String::from("#");
    for word in words {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
