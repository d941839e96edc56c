//! How much memory the cgroups of this process still allow: version 1 (`memory.limit_in_bytes`) and version 2
//! (`memory.max`), each ancestor included. Everything is read below an injected root.

use std::path::{Path, PathBuf};

use crate::error::{Doing, Result};

/// From here a version 1 limit means "none" (it is the largest page-aligned i64).
const V1_UNLIMITED: u64 = 1 << 62;

/// One cgroup that limits this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its directory.
    pub path: PathBuf,
    pub limit: u64,
    /// Charged and not given up under pressure: usage less the inactive page cache.
    pub used: u64,
}

impl Room {
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

struct Mount {
    version: u8,
    /// The cgroup that is visible at `point`.
    root: PathBuf,
    point: PathBuf,
}

/// Every limiting memory cgroup above this process, innermost first; empty when nothing limits it.
pub fn memory_room(root: &Path) -> Result<Vec<Room>> {
    let read = |name: &str| {
        let path = root.join(name);
        std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))
    };
    let memberships = read("proc/self/cgroup")?;
    let mut rooms = Vec::new();
    for mount in read("proc/self/mountinfo")?.lines().filter_map(memory_mount) {
        let Some(path) = memberships.lines().find_map(|line| membership(line, mount.version)) else {
            continue;
        };
        // Inside a container the mount shows only our own subtree, while the membership may be the host's path.
        let inside = path.strip_prefix(&mount.root).unwrap_or(Path::new(""));
        let point = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        let innermost = point.join(inside.strip_prefix("/").unwrap_or(inside));
        let innermost = if innermost.is_dir() { innermost } else { point.clone() };
        let within = innermost.ancestors().take_while(|directory| directory.starts_with(&point));
        rooms.extend(within.filter_map(|directory| room(directory, mount.version)));
    }
    Ok(rooms)
}

/// `mountinfo` fields: id, parent, device, root, mount point, options…, "-", type, source, super options (proc(5)).
fn memory_mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let version = match (kind.next()?, kind.nth(1)?) {
        ("cgroup2", _) => 2,
        ("cgroup", options) if options.split(',').any(|option| option == "memory") => 1,
        _ => return None,
    };
    Some(Mount { version, root: root.into(), point: point.into() })
}

/// `hierarchy:controllers:path`; version 2 is hierarchy 0 with no controllers (cgroups(7)).
fn membership(line: &str, version: u8) -> Option<&Path> {
    let mut parts = line.splitn(3, ':');
    let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let ours = match version {
        2 => hierarchy == "0" && controllers.is_empty(),
        _ => controllers.split(',').any(|controller| controller == "memory"),
    };
    ours.then(|| Path::new(path))
}

/// None where this cgroup sets no limit (the root has no such files).
fn room(directory: &Path, version: u8) -> Option<Room> {
    let (limit, usage, inactive) = match version {
        2 => ("memory.max", "memory.current", "inactive_file "),
        _ => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
    };
    let number = |name: &str| std::fs::read_to_string(directory.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number(limit).filter(|limit| *limit < V1_UNLIMITED)?;
    let stat = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let reclaimable =
        stat.lines().find_map(|line| line.strip_prefix(inactive)?.parse::<u64>().ok()).unwrap_or(0);
    Some(Room { path: directory.to_owned(), limit, used: number(usage)?.saturating_sub(reclaimable) })
}
