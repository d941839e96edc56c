//! Which builds may speak to each other: the same major version and a minor one apart at most; before 1.0 the same minor.

use crate::proto::v1;

/// The wire protocol of this build.
pub const PROTOCOL: u32 = 1;

/// Whoever says so in its Hello answers when it is asked for the stacks of its processes.
pub const STACKS: &str = "stacks";

/// Whoever says so in its NodeHello is told of a generation its own ranks and its place; others are told all members.
pub const PLACES: &str = "places";

/// A coordinator that says so takes several registrations in one call.
pub const REGISTERS_MANY: &str = "register-workers";

/// What this build says of itself in Hello, NodeHello and GetVersion.
pub fn ours() -> v1::Version {
    let features = vec![STACKS.to_owned(), PLACES.to_owned()];
    v1::Version { version: crate::VERSION.to_owned(), protocol: PROTOCOL, features }
}

/// Whether a build has said that it has a feature.
pub fn has(version: Option<&v1::Version>, feature: &str) -> bool {
    version.is_some_and(|version| version.features.iter().any(|known| known == feature))
}

/// Whether two builds work together; false when either can't be read.
pub fn work_together(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (minor(one), minor(other)) else { return false };
    let apart = if one.0 == 0 { 0 } else { 1 };
    one.0 == other.0 && one.1.abs_diff(other.1) <= apart
}

/// The versions that this build works with, as people write them: "0.1.x".
pub fn partners() -> String {
    let (major, minor) = minor(crate::VERSION).expect("cargo checks the package's version");
    match (major, minor) {
        (0, _) => format!("{major}.{minor}.x"),
        (_, 0) => format!("{major}.0.x and {major}.1.x"),
        _ => format!("{major}.{}.x to {major}.{}.x", minor - 1, minor + 1),
    }
}

fn minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::work_together;

    #[test]
    fn before_one_the_same_minor_and_afterwards_the_next() {
        assert!(work_together("0.3.1", "0.3.9") && !work_together("0.3.0", "0.4.0"));
        assert!(work_together("1.3.0", "1.4.2") && !work_together("1.3.0", "1.5.0"));
        assert!(!work_together("1.0.0", "2.0.0") && !work_together("nonsense", "0.1.0"));
    }
}
