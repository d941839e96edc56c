//! Which builds may speak to each other: the same major version and a minor one apart at most; before 1.0 the same minor.

use crate::error::{Error, Result};
use crate::proto::v1;
use crate::version::REGISTERS_MANY;

/// The wire protocol of this build.
pub const PROTOCOL: u32 = 1;

/// What this build says of itself.
pub fn ours() -> v1::Version {
    v1::Version {
        version: crate::VERSION.to_owned(),
        protocol: PROTOCOL,
        features: vec![REGISTERS_MANY.to_owned()],
    }
}

/// Fails with Invalid naming both versions. A worker that names no version speaks the protos themselves and passes.
pub fn check(peer: &str, theirs: Option<&v1::Version>) -> Result<()> {
    let Some(theirs) = theirs.filter(|version| !version.version.is_empty()) else { return Ok(()) };
    match (minor(&theirs.version), minor(crate::VERSION)) {
        (Some(theirs), Some(ours)) if works_together(theirs, ours) => Ok(()),
        _ => Err(Error::invalid(format!(
            "{peer} {} can't speak to coordinator {}",
            theirs.version,
            crate::VERSION
        ))
        .hint("run the same version of strata on all nodes; \"strata wheel .\" writes the matching wheel")),
    }
}

fn minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn works_together(a: (u64, u64), b: (u64, u64)) -> bool {
    let apart = if a.0 == 0 { 0 } else { 1 };
    a.0 == b.0 && a.1.abs_diff(b.1) <= apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_one_the_same_minor_and_afterwards_the_next() {
        assert!(works_together((0, 3), (0, 3)) && !works_together((0, 3), (0, 4)));
        assert!(
            works_together((1, 3), (1, 4))
                && !works_together((1, 3), (1, 5))
                && !works_together((1, 0), (2, 0))
        );
    }

    #[test]
    fn refusal_names_both_versions() {
        let theirs = v1::Version { version: "0.999.0".into(), ..Default::default() };
        let error = check("sidecar", Some(&theirs)).unwrap_err();
        assert!(error.message.contains("0.999.0") && error.message.contains(crate::VERSION));
        assert!(
            check("sidecar", Some(&v1::Version { version: "nonsense".into(), ..Default::default() }))
                .is_err()
        );
        assert!(check("worker", None).is_ok());
    }
}
