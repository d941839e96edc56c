//! What a setting's value may be: one textual form per type, the same in a flag, the environment and the file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::telemetry::LogFormat;

/// A type that a configuration key can have.
pub trait Setting: Sized {
    /// What a user should write, for error messages: `expected WHAT`.
    const WHAT: &'static str;
    /// Which TOML scalars it takes.
    const FORM: Form;
    /// A value worth showing in the example file for a key that has no default.
    const SAMPLE: &'static str = "";

    fn parse(text: &str) -> Result<Self, String>;

    /// Reads `text` over the value that the source below gave, for forms that replace only a part of it.
    fn parse_over(text: &str, below: Self) -> Result<Self, String> {
        drop(below);
        Self::parse(text)
    }

    /// The value in the form that `parse` reads. Empty: unset.
    fn render(&self) -> String;
}

/// The TOML scalars a setting is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Number,
    /// A number, or text with a unit.
    NumberOrText,
    Switch,
}

/// A number of bytes: "256MiB", "1.5GB", or a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS[..4].iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        match exact {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Setting for ByteSize {
    const WHAT: &'static str = "a size such as \"256MiB\"";
    const FORM: Form = Form::NumberOrText;
    const SAMPLE: &'static str = "100GiB";

    fn parse(text: &str) -> Result<ByteSize, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
        let (number, unit) = (text[..digits].replace('_', ""), text[digits..].trim());
        let size = match unit {
            "" => Some(1),
            _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, size)| *size),
        };
        let Some(size) = size else { return Err(format!("{unit:?} is no unit of bytes")) };
        if let Ok(whole) = number.parse::<u64>() {
            return whole
                .checked_mul(size)
                .map(ByteSize)
                .ok_or_else(|| "that is more than can be counted".into());
        }
        match number.parse::<f64>() {
            Ok(part) => Ok(ByteSize((part * size as f64) as u64)),
            Err(_) => Err("that is no number".into()),
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Setting for Duration {
    const WHAT: &'static str = "a duration such as \"20s\" or \"1h 30m\"";
    const FORM: Form = Form::Text;

    fn parse(text: &str) -> Result<Duration, String> {
        humantime::parse_duration(text).map_err(|error| error.to_string())
    }

    fn render(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

/// An address to listen on: "127.0.0.1:50051", "50051" (loopback), or ":0" (only the port of what lies below).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Listen {
    pub fn is_loopback(&self) -> bool {
        self.0.ip().is_loopback()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Setting for Listen {
    const WHAT: &'static str = "an address such as \"127.0.0.1:50051\", or a port";
    const FORM: Form = Form::NumberOrText;

    fn parse(text: &str) -> Result<Listen, String> {
        Listen::parse_over(text, Listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)))
    }

    fn parse_over(text: &str, below: Listen) -> Result<Listen, String> {
        let port = text.strip_prefix(':').unwrap_or(text);
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = port.parse::<u16>().map_err(|_| format!("{port} is no port: ports go up to 65535"))?;
            return Ok(Listen(SocketAddr::new(below.0.ip(), port)));
        }
        let named = text.strip_prefix("localhost").map(|rest| format!("127.0.0.1{rest}"));
        named
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map(Listen)
            .map_err(|_| "an IP address and a port are needed".into())
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

/// A value that is never shown: `config show` and logs say only that it is set.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(set)")
    }
}

impl Setting for Secret {
    const WHAT: &'static str = "a secret as text";
    const FORM: Form = Form::Text;
    const SAMPLE: &'static str = "…";

    fn parse(text: &str) -> Result<Secret, String> {
        Ok(Secret(text.to_owned()))
    }

    fn render(&self) -> String {
        "(set)".into()
    }
}

impl Setting for LogFormat {
    const WHAT: &'static str = "\"human\" or \"json\"";
    const FORM: Form = Form::Text;

    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "human" => Ok(LogFormat::Human),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is no log format")),
        }
    }

    fn render(&self) -> String {
        match self {
            LogFormat::Human => "human".into(),
            LogFormat::Json => "json".into(),
        }
    }
}

/// Which end of a metric is the good one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extreme {
    #[default]
    Min,
    Max,
}

impl Setting for Extreme {
    const WHAT: &'static str = "\"min\" or \"max\"";
    const FORM: Form = Form::Text;

    fn parse(text: &str) -> Result<Extreme, String> {
        match text {
            "min" => Ok(Extreme::Min),
            "max" => Ok(Extreme::Max),
            _ => Err(format!("{text:?} is neither min nor max")),
        }
    }

    fn render(&self) -> String {
        match self {
            Extreme::Min => "min".into(),
            Extreme::Max => "max".into(),
        }
    }
}

/// When a job saves without being asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveEvery {
    /// At every multiple of it; 0: at none.
    Steps(u64),
    /// By what saves cost and how often ranks are lost.
    Auto,
}

impl SaveEvery {
    /// That ranks count for themselves.
    pub fn steps(self) -> u64 {
        match self {
            SaveEvery::Steps(steps) => steps,
            SaveEvery::Auto => 0,
        }
    }
}

impl Default for SaveEvery {
    fn default() -> SaveEvery {
        SaveEvery::Steps(0)
    }
}

impl Setting for SaveEvery {
    const WHAT: &'static str = "a whole number of steps, or \"auto\"";
    const FORM: Form = Form::NumberOrText;

    fn parse(text: &str) -> Result<SaveEvery, String> {
        match text {
            "auto" => Ok(SaveEvery::Auto),
            _ => text
                .parse()
                .map(SaveEvery::Steps)
                .map_err(|_| format!("{text:?} is neither a whole number nor auto")),
        }
    }

    fn render(&self) -> String {
        match self {
            SaveEvery::Steps(steps) => steps.to_string(),
            SaveEvery::Auto => "auto".into(),
        }
    }
}

macro_rules! plain {
    ($($ty:ty, $form:ident, $what:literal, $sample:literal;)*) => {$(
        impl Setting for $ty {
            const WHAT: &'static str = $what;
            const FORM: Form = Form::$form;
            const SAMPLE: &'static str = $sample;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error| format!("{error}"))
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

plain! {
    String, Text, "text", "…";
    u32, Number, "a whole number", "1";
    u64, Number, "a whole number", "1";
}

impl Setting for bool {
    const WHAT: &'static str = "true or false";
    const FORM: Form = Form::Switch;
    const SAMPLE: &'static str = "true";

    fn parse(text: &str) -> Result<bool, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Setting for PathBuf {
    const WHAT: &'static str = "a path";
    const FORM: Form = Form::Text;
    const SAMPLE: &'static str = "/path";

    fn parse(text: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(text))
    }

    fn render(&self) -> String {
        self.display().to_string()
    }
}

/// Unset is the empty text.
impl<T: Setting> Setting for Option<T> {
    const WHAT: &'static str = T::WHAT;
    const FORM: Form = T::FORM;
    const SAMPLE: &'static str = T::SAMPLE;

    fn parse(text: &str) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn render(&self) -> String {
        self.as_ref().map(T::render).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_they_are_shown() {
        for (text, bytes) in
            [("256MiB", 256 << 20), ("1_000", 1000), ("1.5GiB", 3 << 29), ("2 GB", 2_000_000_000), ("0", 0)]
        {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(ByteSize::parse(&size.render()).unwrap(), size);
        }
        for bad in ["", "MiB", "12 parsecs", "-1", "99999999999TiB", "1.2.3"] {
            assert!(ByteSize::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_port_keeps_the_address_below_it() {
        let below = Listen::parse("0.0.0.0:50051").unwrap();
        assert_eq!(Listen::parse_over(":0", below).unwrap().to_string(), "0.0.0.0:0");
        assert_eq!(Listen::parse_over("7", below).unwrap().to_string(), "0.0.0.0:7");
        assert_eq!(Listen::parse("7").unwrap().to_string(), "127.0.0.1:7");
        assert_eq!(Listen::parse("localhost:7").unwrap().to_string(), "127.0.0.1:7");
        for bad in ["", ":", "70000", "example.org", "1.2.3.4"] {
            assert!(Listen::parse(bad).is_err(), "{bad}");
        }
    }
}
