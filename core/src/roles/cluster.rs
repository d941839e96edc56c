//! The cluster's id of a state directory: `up` and the private sidecars under it are one cluster, so that their
//! checkpoints in one store are each other's.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::error::{Doing, Result};
use crate::ids::ClusterId;

const FILE: &str = "cluster";

/// Reads `<home>/cluster`, or makes it. Of several that make it at once one wins. Durable.
pub(super) fn of(home: &Path) -> Result<ClusterId> {
    let path = home.join(FILE);
    let doing = || format!("reading the cluster's id {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => return text.trim().parse::<ClusterId>().doing(doing),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).doing(doing),
    }
    let fresh = home.join(format!("{FILE}.{}", std::process::id()));
    let write = || {
        let mut file = File::create(&fresh)?;
        file.write_all(ClusterId::new().to_string().as_bytes())?;
        file.sync_all()?;
        // link(2) keeps what another process made meanwhile.
        match std::fs::hard_link(&fresh, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        std::fs::remove_file(&fresh)?;
        File::open(home)?.sync_all()
    };
    write().doing(|| format!("writing the cluster's id {}", path.display()))?;
    std::fs::read_to_string(&path).doing(doing)?.trim().parse::<ClusterId>().doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_state_directory_is_one_cluster() {
        let home = tempfile::tempdir().unwrap();
        let first = of(home.path()).unwrap();
        assert_eq!(of(home.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(of(other.path()).unwrap(), first);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
