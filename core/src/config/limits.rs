//! Values that can be read and can't work: said where the value came from, before anything starts.

use super::keys::{Config, find};
use super::resolve::{Effective, Resolver, unreadable};
use crate::error::Error;
use crate::telemetry::log;

/// One is filled while the other is persisted.
const LEAST_SLOTS: u32 = 2;
/// A header page each (handoff's own limit).
const MOST_SLOTS: u32 = 64;
/// The smallest part that S3 takes; a chunk has 4 MiB.
const LEAST_MEMORY: u64 = 5 << 20;

pub(super) fn problems(config: &Config, from: &Resolver<'_>) -> Vec<Error> {
    let mut found = Vec::new();
    let mut add = |section: &'static str, key: &'static str, problem: String, hint: &str| {
        let spec = find(section, key).expect("a declared key");
        let Effective { value, origin } = &from.effective[&(section, key)];
        found.push(unreadable(spec, value, origin, &problem).hint(hint));
    };
    let slots = config.sidecar.slots;
    if slots < LEAST_SLOTS {
        add("sidecar", "slots", "two at least".to_owned(), "one is filled while the other is persisted");
    }
    if slots > MOST_SLOTS {
        add(
            "sidecar",
            "slots",
            format!("{MOST_SLOTS} at most"),
            "each slot is a whole copy of a rank's state",
        );
    }
    if config.sidecar.memory_limit.0 < LEAST_MEMORY {
        let problem = "no buffer fits in so little".to_owned();
        add("sidecar", "memory_limit", problem, "5MiB at least; the default is 256MiB");
    }
    if let Err(error) = log::parse_filter(&config.log.level) {
        add(
            "log",
            "level",
            "that is no level and no filter".to_owned(),
            error.hint.as_deref().unwrap_or_default(),
        );
    }
    found
}
