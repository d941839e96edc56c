//! The directory of a uid's arenas on this node: its lock, the node's id, and the files in it.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::allocation;
use super::arena::{Arena, Opened, open_mapping};
use super::boot::boot_id;
use super::budget::{MemoryBudget, Promise, human};
use super::header::{ArenaHeader, ArenaIdentity};
use super::mapping::Mapping;
use crate::error::{Doing, Error, Result};
use crate::ids::NodeId;
use crate::lock::LockFile;

const LOCK: &str = "sidecar.lock";
const NODE: &str = "node-id";
const SUFFIX: &str = "arena";
/// Enough for double buffering with many spare bases; a header page each.
const MAX_SLOTS: u32 = 64;

/// Held by the one sidecar of this directory; the lock goes with the value, or with the process.
pub struct ArenaDirectory {
    path: PathBuf,
    uid: u32,
    node: NodeId,
    _lock: LockFile,
}

impl ArenaDirectory {
    /// Where a uid's arenas are when STRATA_ARENA_DIR says nothing.
    pub fn default_path(uid: u32) -> PathBuf {
        PathBuf::from(format!("/dev/shm/strata-{uid}"))
    }

    /// Opens (or makes, 0700) the directory of the trainers' `uid` and takes its lock for life. Conflict, naming the
    /// pid, when another sidecar has it; Denied when its owner is neither `uid` nor can be made so. Durable only as
    /// far as a tmpfs is.
    pub fn open(path: &Path, uid: u32) -> Result<ArenaDirectory> {
        let doing = || format!("opening the arena directory {}", path.display());
        match DirBuilder::new().mode(0o700).recursive(true).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).doing(doing);
            }
            _ => {}
        }
        let found = std::fs::symlink_metadata(path).doing(doing)?;
        if !found.is_dir() {
            return Err(Error::invalid(format!("{}: it is not a directory", doing())));
        }
        if found.uid() != uid {
            std::os::unix::fs::chown(path, Some(uid), None).map_err(|error| {
                Error::denied(format!(
                    "{}: it belongs to uid {}, the trainers are uid {uid}: {error}",
                    doing(),
                    found.uid()
                ))
                .hint("run the sidecar as the trainers' user or as root, or set STRATA_ARENA_DIR")
            })?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).doing(doing)?;
        let lock = take_lock(&path.join(LOCK)).doing(doing)?;
        let node = node_id(&path.join(NODE)).doing(doing)?;
        Ok(ArenaDirectory { path: path.to_owned(), uid, node, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same for the directory's whole life, over restarts of the sidecar.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Makes an arena: asks the budget, then publishes the file under its name; atomic. Its memory follows on a thread
    /// of its own, from the first slot on (about 0.25 s per GB); who touches a slot waits for its pages. Overloaded when
    /// memory is short; Conflict when the file exists; `slot_bytes` is rounded up to 4096.
    pub fn create(
        &self,
        identity: &ArenaIdentity,
        slots: u32,
        slot_bytes: u64,
        budget: &dyn MemoryBudget,
    ) -> Result<Arena> {
        let (arena, promise) = self.publish_empty(identity, slots, slot_bytes, budget)?;
        match arena.allocate_in_background(promise) {
            Ok(()) => Ok(arena),
            // Nobody would ever give it memory, nor take its name away.
            Err(error) => arena.remove().and(Err(error)),
        }
    }

    /// As [`ArenaDirectory::create`], but only the header has memory.
    pub(super) fn publish_empty(
        &self,
        identity: &ArenaIdentity,
        slots: u32,
        slot_bytes: u64,
        budget: &dyn MemoryBudget,
    ) -> Result<(Arena, Promise)> {
        let doing = || {
            let size = human(slot_bytes);
            format!(
                "creating the arena of job {} rank {} ({slots} slots of {size})",
                identity.job, identity.rank
            )
        };
        if slots == 0 || slots > MAX_SLOTS || slot_bytes == 0 || slot_bytes > 1 << 48 {
            return Err(Error::invalid(format!("{}: 1 to {MAX_SLOTS} slots of 1 byte to 256 TiB", doing())));
        }
        let slot_bytes = slot_bytes.next_multiple_of(4096);
        let header = ArenaHeader { identity: identity.clone(), boot: boot_id()?, slots, slot_bytes };
        let promise = budget.promise(&self.path, header.file_bytes()).doing(doing)?;
        let path = self.file_path(identity);
        let (file, mapping) = self.publish(&path, header).doing(doing)?;
        Ok((Arena::new(path, file, mapping), promise))
    }

    fn publish(&self, path: &Path, header: ArenaHeader) -> Result<(File, std::sync::Arc<Mapping>)> {
        let temporary = path.with_extension("new");
        let outcome = (|| {
            let doing = || format!("writing {}", temporary.display());
            let _ = std::fs::remove_file(&temporary);
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)
                .doing(doing)?;
            if rustix::process::geteuid().as_raw() != self.uid {
                std::os::unix::fs::fchown(&file, Some(self.uid), None).doing(doing)?;
            }
            allocation::allocate_header(&file, &header).doing(doing)?;
            file.write_all_at(&header.encode(), 0).doing(doing)?;
            let mapping = Mapping::new(&file, header)?;
            allocation::begin(&mapping);
            // link(2) refuses an existing name, rename(2) would replace it.
            std::fs::hard_link(&temporary, path).doing(|| format!("publishing {}", path.display()))?;
            Ok((file, mapping))
        })();
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound && outcome.is_ok() => {
                Err(error).doing(|| format!("removing {}", temporary.display()))
            }
            _ => outcome,
        }
    }

    /// Every arena of this boot, by path, and an error for each file that is damaged (it stays where it is). An arena that
    /// an earlier sidecar left without all of its memory is given it. Files of an earlier boot and unpublished ones are
    /// removed.
    pub fn scan(&self) -> Result<(Vec<Arena>, Vec<Error>)> {
        let doing = || format!("scanning the arena directory {}", self.path.display());
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.path).doing(doing)? {
            paths.push(entry.doing(doing)?.path());
        }
        paths.sort();
        let (mut arenas, mut damaged) = (Vec::new(), Vec::new());
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(SUFFIX) => match open_mapping(&path) {
                    Ok(Opened::Arena(file, mapping)) if self.file_path(&mapping.header.identity) == path => {
                        let arena = Arena::new(path, file, mapping);
                        arena.allocate_in_background(Promise::default()).doing(doing)?;
                        arenas.push(arena);
                    }
                    Ok(Opened::Arena(..)) => damaged.push(
                        Error::corrupt(format!(
                            "opening the arena {}: its header names another file",
                            path.display()
                        ))
                        .hint("it was copied or renamed: remove it"),
                    ),
                    Ok(Opened::OldBoot) => remove(&path, &mut damaged),
                    Err(error) => damaged.push(error),
                },
                Some("new") => remove(&path, &mut damaged),
                _ => {}
            }
        }
        Ok((arenas, damaged))
    }

    /// `<job>.rank-<rank>.<file>.arena`
    fn file_path(&self, identity: &ArenaIdentity) -> PathBuf {
        self.path.join(format!("{}.rank-{}.{}.{SUFFIX}", identity.job, identity.rank, identity.file))
    }
}

fn remove(path: &Path, errors: &mut Vec<Error>) {
    if let Err(error) = std::fs::remove_file(path) {
        errors.push(Error::io(format!("removing the left-over arena {}", path.display()), &error));
    }
}

fn take_lock(path: &Path) -> Result<LockFile> {
    LockFile::take(path, |holder| {
        Error::conflict(format!("locking {}: a sidecar with pid {holder} has it", path.display())).hint(
            "one sidecar serves all jobs of a user on a node: use that one, or stop it first, or give this one its own \
             STRATA_ARENA_DIR",
        )
    })
}

/// Read under the lock, so nobody else writes it.
fn node_id(path: &Path) -> Result<NodeId> {
    let doing = || format!("reading the node's id {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => return text.trim().parse::<NodeId>().doing(doing),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).doing(doing),
    }
    let node = NodeId::new();
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, node.to_string()).doing(doing)?;
    std::fs::rename(&temporary, path).doing(doing)?;
    Ok(node)
}
