//! Identities as newtypes, so that a rank is never passed where a step is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// One process of the declared world, 0-based.
    Rank(u32)
);
number!(
    /// How many ranks the job declares.
    WorldSize(u32)
);
number!(
    /// One life of a job's membership; never reused, survives restarts of the coordinator.
    Generation(u64)
);
number!(
    /// A training step as the user counts it.
    Step(u64)
);
number!(
    /// One connection of one trainer to its sidecar; unique for the life of the arena directory.
    SessionId(u64)
);

impl Generation {
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            #[allow(clippy::new_without_default, reason = "a fresh identity is never a default")]
            pub fn new() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|error| Error::invalid(format!("reading {text:?} as an id: {error}")))
            }
        }
    };
}

uuid_id!(
    /// A cluster: one coordinator state, or one STRATA_HOME.
    ClusterId
);
uuid_id!(
    /// A job as its checkpoints know it; kept in OWNER, so it survives a lost coordinator.
    JobUuid
);
uuid_id!(
    /// A sidecar process lifetime on a node (its arena directory keeps the node id).
    NodeId
);

/// A job's name (namespace): 1–64 of `a-z A-Z 0-9 . _ -`, not starting with a dot, so that it is also a path segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobName(String);

impl JobName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.chars().all(allowed) {
            return Err(Error::invalid(format!("reading the job name {text:?}: not a valid name"))
                .hint("use 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'"));
        }
        Ok(JobName(text.to_owned()))
    }
}

impl TryFrom<String> for JobName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> String {
        name.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_name_that_is_no_path_segment_is_refused() {
        for bad in ["", ".", "..", "a/b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<JobName>().is_err(), "{bad:?}");
        }
        assert_eq!("run-1.a_B".parse::<JobName>().unwrap().as_str(), "run-1.a_B");
    }
}
