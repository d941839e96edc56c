//! The coordinator's state directory: one coordinator at a time, on a local file system, of a format we can read.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::config::locate::refuse_network;
use crate::error::{Doing, Error, Result};
use crate::lock::LockFile;

/// The format of log and snapshots. A newer one is refused untouched.
const FORMAT: u32 = 1;

/// Held for the coordinator's life.
pub struct Home {
    pub folder: PathBuf,
    _lock: LockFile,
}

impl Home {
    /// Creates or claims `<home>/coordinator`. Fails with Conflict while another coordinator holds it, with Invalid on
    /// a network file system or for a newer format.
    pub fn claim(home: &Path) -> Result<Home> {
        let folder = home.join("coordinator");
        std::fs::create_dir_all(&folder).doing(|| format!("creating {}", folder.display()))?;
        refuse_network(&folder, "the coordinator's log", "STRATA_HOME")?;
        let lock = LockFile::take(&folder.join("lock"), |_| {
            Error::conflict(format!(
                "starting the coordinator: another one is running with the state in {}",
                home.display()
            ))
            .hint("stop it, or set STRATA_HOME to another directory")
        })?;
        check_format(&folder)?;
        Ok(Home { folder, _lock: lock })
    }
}

fn check_format(folder: &Path) -> Result<()> {
    let path = folder.join("format");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(format) if format <= FORMAT => Ok(()),
            Ok(format) => Err(Error::invalid(format!(
                "opening the coordinator's log in {}: it has format {format}, this build reads up to {FORMAT}",
                folder.display()
            ))
            .hint("it was written by a newer strata: run that version; nothing has been changed")),
            Err(_) => Err(Error::corrupt(format!("reading {}: {text:?} is no format number", path.display()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fresh = folder.join("format.new");
            let write = || {
                std::fs::write(&fresh, format!("{FORMAT}\n"))?;
                File::open(&fresh)?.sync_all()?;
                std::fs::rename(&fresh, &path)?;
                File::open(folder)?.sync_all()
            };
            write().doing(|| format!("writing {}", path.display()))
        }
        Err(error) => Err(Error::io(format!("reading {}", path.display()), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn second_coordinator_on_one_home_is_conflict() {
        let home = tempfile::tempdir().unwrap();
        let first = Home::claim(home.path()).unwrap();
        assert_eq!(Home::claim(home.path()).err().unwrap().kind, Kind::Conflict);
        drop(first);
        Home::claim(home.path()).unwrap();
    }

    #[test]
    fn newer_log_is_refused_untouched() {
        let home = tempfile::tempdir().unwrap();
        drop(Home::claim(home.path()).unwrap());
        let path = home.path().join("coordinator/format");
        std::fs::write(&path, "2\n").unwrap();
        let error = Home::claim(home.path()).err().unwrap();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.hint.unwrap().contains("newer"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
    }
}
