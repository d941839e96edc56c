//! Where things are found: the state directory, sockets, arenas, the coordinator, the store. One function per row of the
//! documented table, each taking the argument that overrides it.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use super::endpoint::Endpoint;
use super::environment::Environment;
use crate::error::{Doing, Error, Result};
use crate::ids::JobName;

/// A Unix socket's path in bytes, without its closing zero (unix(7)).
pub const SOCKET_PATH_LIMIT: usize = 107;

/// Where a coordinator listens when nobody says otherwise.
pub const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:50051";

/// This machine's name, as member lists show it.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map(|name| name.trim().to_owned()).unwrap_or_else(|_| "localhost".to_owned())
}

/// Argument > STRATA_JOB > "default".
pub fn job(env: &Environment, argument: Option<&str>) -> Result<JobName> {
    argument.map(str::to_owned).or_else(|| env.text("STRATA_JOB")).unwrap_or_else(|| "default".into()).parse()
}

/// STRATA_HOME > $XDG_STATE_HOME/strata > ~/.local/state/strata > /var/lib/strata as root without a home.
pub fn home(env: &Environment) -> Result<PathBuf> {
    if let Some(home) = env.path("STRATA_HOME") {
        return Ok(std::path::absolute(&home).unwrap_or(home));
    }
    if let Some(state) = env.path("XDG_STATE_HOME") {
        return Ok(state.join("strata"));
    }
    let home = env.home().map(|home| home.join(".local/state/strata"));
    home.or_else(|| (env.uid() == 0).then(|| "/var/lib/strata".into())).ok_or_else(|| {
        Error::not_found(format!("finding the state directory: user {} has no home directory", env.uid()))
            .hint("set STRATA_HOME to a directory on a local disk")
    })
}

/// The sockets a client tries, in this order. A named one is the only one.
pub fn socket_candidates(env: &Environment, argument: Option<&Path>) -> Vec<PathBuf> {
    if let Some(socket) = argument.map(Path::to_owned).or_else(|| env.path("STRATA_SOCKET")) {
        return vec![socket];
    }
    let mut candidates = Vec::new();
    candidates.extend(env.path("XDG_RUNTIME_DIR").map(|folder| folder.join("strata/sidecar.sock")));
    candidates.push("/run/strata/sidecar.sock".into());
    candidates.push(format!("/tmp/strata-{}/sidecar.sock", env.uid()).into());
    candidates
}

/// The socket that a sidecar serves: of the same list the first whose folder this user can have.
pub fn socket(env: &Environment, argument: Option<&Path>) -> Result<PathBuf> {
    let candidates = socket_candidates(env, argument);
    let named = candidates.len() == 1;
    let usable = |path: &&PathBuf| {
        named
            || env.uid() == 0
            || path.parent().is_some_and(|folder| !folder.starts_with("/run/strata") || writable(folder))
    };
    let socket = candidates.iter().find(usable).expect("the last candidate lies under /tmp").clone();
    check_socket_path(&socket)?;
    Ok(socket)
}

/// A path that the kernel can bind: Invalid with its length otherwise.
pub fn check_socket_path(socket: &Path) -> Result<()> {
    let bytes = socket.as_os_str().len();
    if bytes <= SOCKET_PATH_LIMIT {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "using the socket {}: the path has {bytes} bytes, a Unix socket's at most {SOCKET_PATH_LIMIT}",
        socket.display()
    ))
    .hint("set STRATA_SOCKET to a shorter path, such as /tmp/strata.sock"))
}

/// STRATA_ARENA_DIR > /dev/shm/strata-UID.
pub fn arenas(env: &Environment, configured: Option<&Path>) -> PathBuf {
    let named = configured.map(Path::to_owned).or_else(|| env.path("STRATA_ARENA_DIR"));
    named.unwrap_or_else(|| format!("/dev/shm/strata-{}", env.uid()).into())
}

/// Argument > STRATA_COORDINATOR > endpoint.json > the default address. A bare `host:port` is read as http. Of a set of coordinators all of
/// them, with commas between.
pub fn coordinator(env: &Environment, argument: Option<&str>) -> Result<String> {
    if let Some(url) = argument.map(str::to_owned).or_else(|| env.text("STRATA_COORDINATOR")) {
        return coordinator_url(&url);
    }
    let known = Endpoint::read(&home(env)?)?;
    Ok(known.map_or_else(|| DEFAULT_COORDINATOR.into(), |endpoint| endpoint.grpc))
}

/// As [`coordinator`] reads it: one address or several.
pub fn coordinator_url(list: &str) -> Result<String> {
    let each: Vec<String> =
        list.split(',').map(|text| one_coordinator_url(text.trim())).collect::<Result<_>>()?;
    Ok(each.join(","))
}

fn one_coordinator_url(text: &str) -> Result<String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
    if authority.trim_end_matches('/').is_empty() {
        return Err(Error::invalid(format!(
            "reading the coordinator's address {text:?}: not an http or https URL"
        ))
        .hint("write it like http://127.0.0.1:50051"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Where `strata up` and private sidecars keep checkpoints when nobody names a store.
pub fn default_store(home: &Path) -> PathBuf {
    home.join("store")
}

/// STRATA_DATA_CACHE or the file's data.cache_dir > a folder of the state directory.
pub fn data_cache(env: &Environment, configured: Option<&Path>) -> Result<PathBuf> {
    match configured {
        Some(folder) => std::path::absolute(folder).doing(|| format!("finding {}", folder.display())),
        None => Ok(home(env)?.join("data-cache")),
    }
}

/// The places of a private sidecar, one per (user, node, job), below those of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivatePlaces {
    pub home: PathBuf,
    pub socket: PathBuf,
    pub arenas: PathBuf,
}

/// Below the usual places, so that a container that mounts those holds these too. The store is the user's own.
pub fn private(env: &Environment, job: &JobName) -> Result<PrivatePlaces> {
    let usual = socket(env, None)?;
    let folder = usual.parent().map_or_else(|| PathBuf::from("/tmp"), Path::to_owned);
    let mut own = folder.join(format!("private-{job}.sock"));
    if own.as_os_str().len() > SOCKET_PATH_LIMIT {
        own = folder.join(format!("p-{:016x}.sock", xxhash_rust::xxh3::xxh3_64(job.as_str().as_bytes())));
    }
    check_socket_path(&own)?;
    Ok(PrivatePlaces {
        home: home(env)?.join("private").join(job.as_str()),
        socket: own,
        arenas: arenas(env, None).join("private").join(job.as_str()),
    })
}

/// File systems whose locks and fsync other machines see late or never (linux/magic.h, and the vendors' sources).
const NETWORK: [(u32, &str); 8] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x5346_414F, "AFS"),
];

/// Invalid when `folder` (which exists) lies on a network file system; `what` names its use, `setting` the remedy.
pub fn refuse_network(folder: &Path, what: &str, setting: &str) -> Result<()> {
    let found = statfs(folder)
        .map_err(|errno| Error::io(format!("looking at {}", folder.display()), &errno.into()))?;
    match network_name(found.f_type as u32) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "using {} for {what}: it lies on {name}, a network file system",
            folder.display()
        ))
        .hint(format!("set {setting} to a directory on a local disk"))),
    }
}

fn network_name(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

fn writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
