//! The coordinator's state directory: one coordinator at a time, on a local file system, of a format we can read.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::config::locate::refuse_network;
use crate::error::{Doing, Error, Result};
use crate::lock::LockFile;

/// The format of the log. A newer one is refused untouched. 1: `log.redb`; 2: the folder `log`.
const FORMAT: u32 = 2;

/// Held for the coordinator's life.
pub struct Home {
    pub folder: PathBuf,
    /// None: no log has been made here.
    format: Option<u32>,
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
        let format = format(&folder)?;
        Ok(Home { folder, format, _lock: lock })
    }

    /// Whether its log is of this build's format, and was durable once.
    pub fn is_current(&self) -> bool {
        self.format == Some(FORMAT)
    }

    /// From here on builds that read older formats alone refuse the folder, instead of beginning an empty cluster in it.
    /// Durable.
    pub fn make_current(&self) -> Result<()> {
        let path = self.folder.join("format");
        let fresh = self.folder.join("format.new");
        let write = || {
            std::fs::write(&fresh, format!("{FORMAT}\n"))?;
            File::open(&fresh)?.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().doing(|| format!("writing {}", path.display()))
    }
}

fn format(folder: &Path) -> Result<Option<u32>> {
    let path = folder.join("format");
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(format) if format <= FORMAT => Ok(Some(format)),
            Ok(format) => Err(Error::invalid(format!(
                "opening the coordinator's log in {}: it has format {format}, this build reads up to {FORMAT}",
                folder.display()
            ))
            .hint("it was written by a newer strata: run that version; nothing has been changed")),
            Err(_) => Err(Error::corrupt(format!("reading {}: {text:?} is no format number", path.display()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
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
        std::fs::write(&path, "3\n").unwrap();
        let error = Home::claim(home.path()).err().unwrap();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.hint.unwrap().contains("newer"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
    }
}
