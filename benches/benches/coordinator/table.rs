//! The figures of all turns: rates, latencies, and ratios of what was measured in the same turn. These are what means
//! something on a machine that others use: what it gives changes between turns by more than any of them differ.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{self, Load};
use crate::rows::{Group, Row};

/// Loads by row and turn; a turn that left the row out has none.
pub struct Table<'a> {
    groups: &'a [Group],
    turns: Vec<HashMap<Row, Load>>,
}

impl<'a> Table<'a> {
    pub fn new(groups: &'a [Group]) -> Table<'a> {
        Table { groups, turns: Vec::new() }
    }

    pub fn add(&mut self, turn: HashMap<Row, Load>) {
        self.turns.push(turn);
    }

    /// Everything that is shown, by turn.
    pub fn json(&self) -> Value {
        let groups = self.groups.iter().map(|group| {
            let row = |row: &Row| {
                let turns: Vec<Value> = self.loads(row).map(json_of).collect();
                json!({"name": row.name(), "callers": row.callers, "turns": turns})
            };
            let beside: Vec<Value> = group.beside.iter().map(row).collect();
            json!({"key": group.key, "ours": row(&group.ours), "beside": beside, "wanted": group.wanted})
        });
        Value::Array(groups.collect())
    }

    fn loads(&self, row: &Row) -> impl Iterator<Item = &Load> {
        self.turns.iter().filter_map(move |turn| turn.get(row))
    }

    /// Of ours to `other`, in each turn that has both.
    fn ratios(&self, ours: &Row, other: &Row, of: fn(&Load) -> f64) -> Vec<f64> {
        let both = self.turns.iter().filter_map(|turn| Some((turn.get(ours)?, turn.get(other)?)));
        load::sorted(both.map(|(ours, other)| of(ours) / of(other)))
    }

    fn figures(&self, row: &Row) -> Option<String> {
        let rates = load::sorted(self.loads(row).map(Load::rate));
        if rates.is_empty() {
            return None;
        }
        let all = load::sorted(self.loads(row).flat_map(|turn| seconds(&turn.latencies)));
        let skews = load::sorted(self.loads(row).flat_map(|turn| seconds(&turn.skews)));
        let skew = match skews.as_slice() {
            [] => String::new(),
            skews => format!(" (skew {})", milliseconds(load::quantile(skews, P99))),
        };
        Some(format!(
            "{} | {} | {} | {}{skew}",
            row.callers,
            spread(&rates, count),
            milliseconds(load::quantile(&all, 0.5)),
            milliseconds(load::quantile(&all, P99)),
        ))
    }
}

const P99: f64 = 0.99;

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| | callers | a second (of turns) | p50 ms | p99 ms | ours to this: rate (of turns) | p99 (of turns) | wanted |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for group in self.groups {
            if let Some(figures) = self.figures(&group.ours) {
                writeln!(f, "| **{}** | {figures} | | | {} |", group.ours.name(), group.wanted)?;
            }
            for row in &group.beside {
                if let Some(figures) = self.figures(row) {
                    let rate = spread(&self.ratios(&group.ours, row, Load::rate), ratio);
                    let tail = spread(&self.ratios(&group.ours, row, p99), ratio);
                    writeln!(f, "| {} | {figures} | {rate} | {tail} | |", row.name())?;
                }
            }
        }
        Ok(())
    }
}

fn p99(load: &Load) -> f64 {
    load::quantile(&load::sorted(seconds(&load.latencies)), P99)
}

fn seconds(durations: &[Duration]) -> impl Iterator<Item = f64> {
    durations.iter().map(Duration::as_secs_f64)
}

/// The median of turns, with the least and the most of them.
fn spread(sorted: &[f64], shown: fn(f64) -> String) -> String {
    let median = shown(load::quantile(sorted, 0.5));
    match sorted {
        [_] => format!("{median} (once)"),
        [least, .., most] => format!("{median} ({}–{})", shown(*least), shown(*most)),
        [] => String::new(),
    }
}

/// Three digits, or all that a whole number has.
fn ratio(value: f64) -> String {
    let digits = (2.0 - value.max(1e-3).log10().floor()).clamp(0.0, 4.0) as usize;
    format!("{value:.digits$}")
}

fn milliseconds(seconds: f64) -> String {
    ratio(seconds * 1e3)
}

fn count(value: f64) -> String {
    if value < 100.0 {
        return ratio(value);
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(ascii).collect();
    groups.join(",")
}

fn ascii(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("digits are ASCII")
}

fn json_of(load: &Load) -> Value {
    let latencies = load::sorted(seconds(&load.latencies));
    let skews = load::sorted(seconds(&load.skews));
    let of = |sorted: &[f64]| {
        let at = |at| (!sorted.is_empty()).then(|| load::quantile(sorted, at));
        json!({"p50": at(0.5), "p90": at(0.9), "p99": at(P99), "most": at(1.0)})
    };
    json!({
        "operations": load.operations,
        "seconds": load.elapsed.as_secs_f64(),
        "calls": latencies.len(),
        "latency": of(&latencies),
        "skew": of(&skews),
    })
}
