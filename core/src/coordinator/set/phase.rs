//! What this coordinator remembers of its part in the set: durable, in a file of its own beside log and snapshot.

use std::fs::File;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::entry::Vote;
use crate::error::{Doing, Error, Result};

/// A newer one is refused.
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Takes part since all were empty together, and has seen nothing decided yet.
    Founding,
    Founded,
    /// The set is there and this home was empty: what it knew and voted for before, if anything, is lost. It takes nothing from leaders
    /// before this vote, and votes for nobody until it knows all that a later one knew.
    Joining(Option<Vote>),
}

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    peers: String,
    phase: Phase,
}

pub struct PhaseFile {
    folder: PathBuf,
    peers: String,
    phase: Mutex<Option<Phase>>,
}

impl PhaseFile {
    /// None in it: there has been nothing. Invalid where the folder belongs to another set.
    pub fn open(folder: &Path, peers: &str) -> Result<PhaseFile> {
        let path = folder.join("set");
        let doing = || format!("reading {}", path.display());
        let phase = match std::fs::read(&path) {
            Ok(bytes) => Some(decode(&bytes, peers).doing(doing)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).doing(doing),
        };
        Ok(PhaseFile { folder: folder.to_owned(), peers: peers.to_owned(), phase: Mutex::new(phase) })
    }

    pub fn get(&self) -> Option<Phase> {
        *self.phase.lock()
    }

    /// Durable when it returns.
    pub fn set(&self, phase: Phase) -> Result<()> {
        let mut now = self.phase.lock();
        let record = Record { v: VERSION, peers: self.peers.clone(), phase };
        let (path, fresh) = (self.folder.join("set"), self.folder.join("set.new"));
        let write = || {
            std::fs::write(&fresh, serde_json::to_vec(&record).expect("plain data"))?;
            File::open(&fresh)?.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().doing(|| format!("writing {}", path.display()))?;
        *now = Some(phase);
        Ok(())
    }
}

fn decode(bytes: &[u8], peers: &str) -> Result<Phase> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let damaged = |error| Error::corrupt(format!("it says nothing that can be read: {error}"));
    let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
    if v > VERSION {
        return Err(Error::invalid(format!("it has version {v}, this build reads up to {VERSION}"))
            .hint("it was written by a newer strata: run that version; nothing has been changed"));
    }
    let record: Record = serde_json::from_slice(bytes).map_err(damaged)?;
    if record.peers != peers {
        return Err(Error::invalid(format!("this home is of the set {}, not of {peers}", record.peers))
            .hint(
                "start it with the list of peers that it was formed with: who is in a set does not change",
            ));
    }
    Ok(record.phase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn phase_outlives_a_restart_and_another_list_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = PhaseFile::open(folder.path(), "a,b,c").unwrap();
        assert_eq!(file.get(), None);
        for phase in [Phase::Founding, Phase::Joining(Some(Vote::new(3, 2))), Phase::Founded] {
            file.set(phase).unwrap();
            assert_eq!(PhaseFile::open(folder.path(), "a,b,c").unwrap().get(), Some(phase));
        }
        let error = PhaseFile::open(folder.path(), "a,b,d").err().unwrap();
        assert!(error.kind == Kind::Invalid && error.message.contains("a,b,c"), "{error}");
        std::fs::write(folder.path().join("set"), "{}").unwrap();
        assert_eq!(PhaseFile::open(folder.path(), "a,b,c").err().unwrap().kind, Kind::Corrupt);
    }
}
