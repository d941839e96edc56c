//! What a sidecar must know again after its own restart and the slot headers don't say: who its sessions are, and where
//! a job's checkpoints go. Small files beside the arenas: they live exactly as long.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use crate::error::{Doing, Error, Result};
use crate::format::sealed_json;
use crate::ids::{Generation, JobName, JobUuid, Rank, SessionId, WorldSize};
use crate::proto::v1;

const FORMAT: u32 = 1;
const SESSION: &str = "session";
const LIFE: &str = "life";
const JOB: &str = "job";

/// A trainer's session. Never holds its token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SessionRecord {
    pub id: SessionId,
    pub job: JobName,
    pub job_uuid: JobUuid,
    pub rank: Rank,
    pub world: WorldSize,
    pub uid: u32,
    pub process: Option<ProcessId>,
    pub store: String,
    /// Names its registration at the coordinator; empty until that is answered.
    pub incarnation: String,
    pub joining: Generation,
    pub generation: Option<Generation>,
    /// The file it is granted slots of.
    pub arena: Option<PathBuf>,
    /// What it may be reading: by lease, the arena's file and the slot.
    pub leases: BTreeMap<u64, LeasedSlot>,
    /// It said goodbye; kept for its leases.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeasedSlot {
    pub arena: PathBuf,
    pub slot: u32,
    pub fill: u64,
}

/// Where a job's steps go and who was in its newest generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub job: JobName,
    pub job_uuid: JobUuid,
    pub store: String,
    pub generation: Generation,
    /// By node, its ranks: decides which node stores which replicated tensor. Of this node alone where `place` is known.
    pub nodes: BTreeMap<String, Vec<Rank>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<NodePlace>,
}

/// Where this node stands among those of a generation, as the coordinator told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodePlace {
    /// None: it has no rank there.
    pub number: Option<usize>,
    pub nodes: usize,
    pub neighbours: Vec<String>,
}

impl From<v1::Place> for NodePlace {
    fn from(told: v1::Place) -> NodePlace {
        let number = told.number.map(|number| number as usize);
        NodePlace { number, nodes: told.nodes as usize, neighbours: told.neighbours }
    }
}

pub(super) fn save_session(folder: &Path, record: &SessionRecord) -> Result<()> {
    write(&session_path(folder, record.id), record)
}

/// With its life line.
pub(super) fn remove_session(folder: &Path, id: SessionId) -> Result<()> {
    remove(&session_path(folder, id))?;
    remove(&life_path(folder, id))
}

pub(super) fn save_job(folder: &Path, record: &JobRecord) -> Result<()> {
    write(&job_path(folder, &record.job), record)
}

pub(super) fn remove_job(folder: &Path, job: &JobName) -> Result<()> {
    remove(&job_path(folder, job))
}

fn session_path(folder: &Path, id: SessionId) -> PathBuf {
    folder.join(format!("{id}.{SESSION}"))
}

/// The session's life line: see [`crate::handoff::life`].
pub(super) fn life_path(folder: &Path, id: SessionId) -> PathBuf {
    folder.join(format!("{id}.{LIFE}"))
}

fn job_path(folder: &Path, job: &JobName) -> PathBuf {
    folder.join(format!("{job}.{JOB}"))
}

/// All records of a folder. One that can't be read is logged and removed: its trainer joins anew. So is a life line whose
/// session is gone.
pub(super) fn read_all(folder: &Path) -> Result<(Vec<SessionRecord>, Vec<JobRecord>)> {
    let (mut sessions, mut jobs, mut lives) = (Vec::<SessionRecord>::new(), Vec::new(), Vec::new());
    let doing = || format!("reading the records in {}", folder.display());
    for entry in std::fs::read_dir(folder).doing(doing)? {
        let path = entry.doing(doing)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SESSION) => sessions.extend(read(&path)),
            Some(JOB) => jobs.extend(read(&path)),
            Some(LIFE) => lives.push(path),
            _ => {}
        }
    }
    let known: Vec<PathBuf> = sessions.iter().map(|record| life_path(folder, record.id)).collect();
    for path in lives.into_iter().filter(|path| !known.contains(path)) {
        if let Err(error) = remove(&path) {
            tracing::error!("{error}");
        }
    }
    Ok((sessions, jobs))
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    format: u32,
    record: T,
}

pub(super) fn encode(record: &impl Serialize) -> Vec<u8> {
    sealed_json::encode(&File { format: FORMAT, record })
}

/// Corrupt when a byte is not what was written. Before records were sealed they were one line of JSON without an end.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bytes.last() {
        Some(b'}') => serde_json::from_slice(bytes).map_err(|error| Error::corrupt(error.to_string())),
        _ => Ok(sealed_json::decode::<File<T>>(bytes, FORMAT, "the record")?.record),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let parsed = read_file(path).doing(|| "reading it").and_then(|bytes| decode(&bytes));
    match parsed {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!("forgetting the record {}: {}", path.display(), error.message);
            if let Err(error) = remove(path) {
                tracing::error!("{error}");
            }
            None
        }
    }
}

/// A user may have put anything there: no link is followed, and no pipe waited for.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    replace(path, &encode(record))
}

/// Writes a small file whole. Atomic; as durable as the tmpfs it lies on. Follows no link: as root this is done in
/// folders of other users.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".tmp");
    let fresh = PathBuf::from(fresh);
    remove(&fresh)?;
    let file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&fresh);
    file.and_then(|mut file| file.write_all(bytes)).doing(doing)?;
    std::fs::rename(&fresh, path).doing(doing)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.doing(|| format!("removing {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they were written before they were sealed.
    const PLAIN_JOB: &[u8] = include_bytes!("golden/plain.job");
    const PLAIN_SESSION: &[u8] = include_bytes!("golden/plain.session");

    #[test]
    fn a_record_without_a_seal_still_loads() {
        let job: JobRecord = decode(PLAIN_JOB).unwrap();
        assert_eq!((job.generation, &job.nodes["n"]), (Generation(2), &vec![Rank(3)]));
        let session: SessionRecord = decode(PLAIN_SESSION).unwrap();
        assert_eq!((session.id, session.leases[&7].fill), (SessionId(u64::MAX), 4));
        assert_eq!(serde_json::to_vec(&session).unwrap(), PLAIN_SESSION);
        assert_eq!(serde_json::to_vec(&job).unwrap(), PLAIN_JOB);
    }

    #[test]
    fn records_read_back_and_a_damaged_one_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let lease = LeasedSlot { arena: "/dev/shm/a.arena".into(), slot: 1, fill: 4 };
        let session = SessionRecord {
            id: SessionId(u64::MAX),
            job: "j".parse().unwrap(),
            job_uuid: JobUuid::new(),
            rank: Rank(3),
            world: WorldSize(4),
            uid: 1000,
            process: None,
            store: "/data".into(),
            incarnation: "i".into(),
            joining: Generation(2),
            generation: None,
            arena: None,
            leases: BTreeMap::from([(7, lease)]),
            closed: false,
        };
        let job = JobRecord {
            job: "j".parse().unwrap(),
            job_uuid: session.job_uuid,
            store: "/data".into(),
            generation: Generation(2),
            nodes: BTreeMap::from([("n".into(), vec![Rank(3)])]),
            place: Some(NodePlace { number: Some(1), nodes: 2, neighbours: vec!["m".into()] }),
        };
        save_session(folder.path(), &session).unwrap();
        save_job(folder.path(), &job).unwrap();
        for id in [session.id, SessionId(5)] {
            std::fs::write(life_path(folder.path(), id), "").unwrap();
        }
        std::fs::write(folder.path().join("5.session"), "{").unwrap();
        std::fs::write(folder.path().join("6.session"), &encode(&session)[1..]).unwrap();
        // What else a user may put there.
        std::fs::create_dir(folder.path().join("7.life")).unwrap();
        let pipe =
            std::process::Command::new("mkfifo").arg(folder.path().join("8.session")).status().unwrap();
        assert!(pipe.success());
        assert_eq!(read_all(folder.path()).unwrap(), (vec![session.clone()], vec![job.clone()]));
        std::fs::remove_dir(folder.path().join("7.life")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "the life line is its session's");
        remove_session(folder.path(), session.id).unwrap();
        remove_job(folder.path(), &job.job).unwrap();
        remove_job(folder.path(), &job.job).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
