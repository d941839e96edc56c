//! Log set-up: one line an event on standard error, for people or as JSON, and one line instead of a raw panic.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::error::{Error, Result};

const PROTOCOL: &str = "openraft";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: coloured when standard error is a terminal and NO_COLOR is unset.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level, or a filter such as "info,strata_core::sidecar=debug".
    pub level: String,
}

/// Sends this process's log lines to standard error and replaces Rust's panic text by one log line.
/// Calling it again in the same process changes nothing. A filter that can't be read is Invalid.
pub fn start(settings: &LogSettings) -> Result<()> {
    let filter = parse_filter(&settings.level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    // A second subscriber in the same process (tests, a private sidecar) keeps the first one.
    let started = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Human => builder.with_target(false).with_ansi(wants_colour()).try_init(),
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Invalid for what is neither. A lone word is a level here, though `EnvFilter` would take any for a crate's name, and log
/// nothing else.
pub(crate) fn parse_filter(level: &str) -> Result<EnvFilter> {
    let invalid = |problem: &dyn std::fmt::Display| {
        Error::invalid(format!("reading the log level {level:?}: {problem}")).hint(
            "use error, warn, info, debug or trace, or a filter such as \"info,strata_core::sidecar=debug\"",
        )
    };
    let is_word = |part: &&str| part.chars().all(char::is_alphanumeric) && !part.starts_with("strata");
    let unknown =
        level.split(',').map(str::trim).filter(is_word).find(|part| part.parse::<LevelFilter>().is_err());
    if let Some(word) = unknown {
        return Err(invalid(&format!("{word:?} is no level")));
    }
    // Of the protocol between coordinators each lost message is an error to its library: what matters of it we say ourselves.
    let quiet = if level.contains(PROTOCOL) { String::new() } else { format!(",{PROTOCOL}=off") };
    EnvFilter::try_new(format!("{level}{quiet}")).map_err(|error| invalid(&error))
}

fn wants_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = info.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
    tracing::error!(place, "internal error: {}; please report it", message.replace('\n', " "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn filter_that_cannot_be_read_is_invalid_with_a_hint() {
        for level in ["loud=very", "loud", "info,verbose"] {
            let error = start(&LogSettings { format: LogFormat::Human, level: level.into() }).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid);
            assert!(error.hint.is_some());
        }
        for level in ["warn", "off", "info,strata_core::sidecar=debug", "strata_core=trace,WARN"] {
            assert!(parse_filter(level).is_ok(), "{level}");
        }
    }
}
