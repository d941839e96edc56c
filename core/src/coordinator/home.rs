//! The coordinator's state directory: one coordinator at a time, on a local file system, of a format we can read.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::config::locate::refuse_network;
use crate::error::{Doing, Error, Result};
use crate::lock::LockFile;

/// The format of a log of its own. 1: `log.redb`; 2: the folder `log`.
const FORMAT: u32 = 2;
/// A part of a set's log: the folder `raft`. A newer format is refused untouched.
const SET: u32 = 3;

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

    /// Conflict where it is of one of a set: alone it would begin an empty cluster, or go on without the others.
    pub fn alone(&self) -> Result<()> {
        match self.format {
            Some(SET) => Err(Error::conflict(format!(
                "starting the coordinator: {} is the home of one of a set of coordinators",
                self.folder.display()
            ))
            .hint("start it with the set's --peers, or give it another STRATA_HOME")),
            _ => Ok(()),
        }
    }

    /// For one of a set. Conflict where a coordinator that was alone has left its log: the others would not know what is in it.
    pub fn of_a_set(&self) -> Result<()> {
        match self.format {
            Some(SET) => Ok(()),
            None if !self.folder.join("log.redb").exists() => self.make(SET),
            _ => Err(Error::conflict(format!(
                "starting a coordinator of a set: {} holds the log of a coordinator that was alone",
                self.folder.display()
            ))
            .hint("give each coordinator of a set an empty STRATA_HOME of its own; sidecars started once with --take-over-store bring the old cluster's steps along")),
        }
    }

    /// From here on builds that read older formats alone refuse the folder, instead of beginning an empty cluster in it.
    /// Durable.
    pub fn make_current(&self) -> Result<()> {
        self.make(FORMAT)
    }

    fn make(&self, format: u32) -> Result<()> {
        let path = self.folder.join("format");
        let fresh = self.folder.join("format.new");
        let write = || {
            std::fs::write(&fresh, format!("{format}\n"))?;
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
            Ok(format) if format <= SET => Ok(Some(format)),
            Ok(format) => Err(Error::invalid(format!(
                "opening the coordinator's log in {}: it has format {format}, this build reads up to {SET}",
                folder.display()
            ))
            .hint("it was written by a newer strata: run that version; nothing has been changed")),
            Err(_) => {
                Err(Error::corrupt(format!("reading {}: {text:?} is no format number", path.display())))
            }
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
        std::fs::write(&path, "4\n").unwrap();
        let error = Home::claim(home.path()).err().unwrap();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.hint.unwrap().contains("newer"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n");
    }

    #[test]
    fn home_of_one_alone_is_no_sets_and_the_other_way_round() {
        let alone = tempfile::tempdir().unwrap();
        let home = Home::claim(alone.path()).unwrap();
        home.alone().unwrap();
        home.make_current().unwrap();
        drop(home);
        assert_eq!(Home::claim(alone.path()).unwrap().of_a_set().unwrap_err().kind, Kind::Conflict);
        let one = tempfile::tempdir().unwrap();
        Home::claim(one.path()).unwrap().of_a_set().unwrap();
        let again = Home::claim(one.path()).unwrap();
        again.of_a_set().unwrap();
        assert_eq!(again.alone().unwrap_err().kind, Kind::Conflict);
        assert!(!again.is_current());
    }
}
