//! P2 over an arena directory: whatever bit, page, file or name changes in it, what a restarted sidecar would restore from
//! memory is exactly what was sealed, under the step it was sealed as; its records are what was written, or forgotten.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::records::{self, JobRecord, LeasedSlot, SessionRecord};
use super::sums::Sums;
use crate::error::Kind;
use crate::handoff::{
    Arena, ArenaDirectory, ArenaIdentity, ArenaView, Begin, CopyIn, MachineMemory, Slot, SlotState,
};
use crate::ids::{Generation, JobUuid, Rank, SessionId, Step, WorldSize};
use crate::proto::format::{SlotIndex, Tensor};
use crate::torture_tests::Campaign;

const PAGE: usize = 4096;
const SLOT_BYTES: u64 = 96 << 10;

#[test]
fn any_change_in_an_arena_directory_is_found_before_a_value_reaches_the_caller() {
    let mut campaign = Campaign::new("arena-mutations", 300);
    let sealed = Sealed::new(campaign.seed());
    assert_eq!(sealed.served_from(&sealed.files), sealed.slots.len(), "all is served that is whole");
    campaign.play(|campaign, random| {
        let mutation = Mutation::draw(&sealed, random);
        println!("{mutation}");
        let mut files = sealed.files.clone();
        mutation.changes.iter().for_each(|(name, new)| match new {
            Some(new) => drop(files.insert(name.clone(), new.clone())),
            None => drop(files.remove(name)),
        });
        let served = sealed.served_from(&files);
        campaign.count(mutation.kind);
        campaign.count(mutation.class);
        campaign.count(if served < sealed.slots.len() { "not served" } else { "served whole" });
    });
    campaign.held();
}

/// What one filling was sealed with.
#[derive(Clone, PartialEq, Debug)]
struct Filling {
    rank: Rank,
    session: SessionId,
    generation: Generation,
    step: Step,
    index: SlotIndex,
    data: Vec<u8>,
}

/// The directory as a killed sidecar left it: two ranks with two slots each, one Clean, one Sealed, both summed.
struct Sealed {
    files: BTreeMap<String, Vec<u8>>,
    slots: Vec<Filling>,
    sessions: Vec<SessionRecord>,
    jobs: Vec<JobRecord>,
}

fn tmpfs() -> TempDir {
    tempfile::Builder::new().prefix("strata-test-").tempdir_in("/dev/shm").unwrap()
}

fn open(folder: &Path) -> ArenaDirectory {
    ArenaDirectory::open(folder, rustix::process::geteuid().as_raw()).unwrap()
}

impl Sealed {
    fn new(seed: u64) -> Sealed {
        let folder = tmpfs();
        let directory = open(folder.path());
        let job_uuid = JobUuid::new();
        let (mut slots, mut sessions) = (Vec::new(), Vec::new());
        for rank in [0, 1] {
            let identity =
                ArenaIdentity { job: "run-1".parse().unwrap(), job_uuid, rank: Rank(rank), file: 1 };
            let arena = directory.create(&identity, 2, SLOT_BYTES, &MachineMemory::default()).unwrap();
            for (number, step) in [(0, 5), (1, 6)] {
                slots.push(fill(&arena.slot(number), Rank(rank), step, seed));
            }
            sessions.push(session(job_uuid, rank, arena.path()));
        }
        let nodes = BTreeMap::from([("here".to_owned(), vec![Rank(0), Rank(1)])]);
        let (job, store) = ("run-1".parse().unwrap(), "/data".to_owned());
        let jobs = vec![JobRecord { job, job_uuid, store, generation: Generation(3), nodes, place: None }];
        sessions.iter().for_each(|record| records::save_session(folder.path(), record).unwrap());
        jobs.iter().for_each(|record| records::save_job(folder.path(), record).unwrap());
        drop(directory);
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if class(&name).is_some() {
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
        assert_eq!(files.len(), 2 + 4 + 2 + 1, "arenas, checksums, sessions, a job");
        Sealed { files, slots, sessions, jobs }
    }

    /// How many slots a sidecar that starts on these files would restore from; wrong bytes fail.
    fn served_from(&self, files: &BTreeMap<String, Vec<u8>>) -> usize {
        let folder = tmpfs();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let (sessions, jobs) = records::read_all(folder.path()).unwrap();
        assert!(sessions.iter().all(|record| self.sessions.contains(record)), "{sessions:?}");
        assert!(jobs.iter().all(|record| self.jobs.contains(record)), "{jobs:?}");
        let (arenas, errors) = open(folder.path()).scan().unwrap();
        for error in errors {
            assert!(matches!(error.kind, Kind::Corrupt | Kind::Invalid), "{error}");
        }
        let slots: Vec<Slot> = arenas.iter().flat_map(Arena::all_slots).collect();
        slots.iter().filter(|slot| self.serves(slot)).count()
    }

    /// As a restore from memory does.
    fn serves(&self, slot: &Slot) -> bool {
        let found = match slot.snapshot() {
            Ok(found) => found,
            Err(error) => {
                assert_eq!(error.kind, Kind::Corrupt, "{error}");
                slot.reset();
                return false;
            }
        };
        if matches!(found.state, SlotState::Free | SlotState::Filling) {
            return false;
        }
        let Some(sums) = Sums::read(slot, found.fill) else { return false };
        if let Err(error) = sums.check_for(slot, "") {
            assert!(matches!(error.kind, Kind::Corrupt | Kind::Invalid), "{error}");
            return false;
        }
        let served = Filling {
            rank: found.rank,
            session: found.session,
            generation: found.generation,
            step: found.step,
            index: slot.index().unwrap(),
            data: slot.data().unwrap().as_ref().to_vec(),
        };
        assert!(self.slots.contains(&served), "{slot} would be served with other bytes");
        true
    }
}

fn session(job_uuid: JobUuid, rank: u32, arena: &Path) -> SessionRecord {
    let lease = LeasedSlot { arena: arena.to_owned(), slot: 0, fill: 1 };
    SessionRecord {
        id: SessionId(40 + u64::from(rank)),
        job: "run-1".parse().unwrap(),
        job_uuid,
        rank: Rank(rank),
        world: WorldSize(2),
        uid: 1000,
        process: None,
        store: "/data".into(),
        incarnation: "i".into(),
        joining: Generation(3),
        generation: Some(Generation(3)),
        arena: Some(PathBuf::from(arena)),
        leases: BTreeMap::from([(7, lease)]),
        closed: false,
    }
}

/// As a trainer seals a step, and its sidecar sums it.
fn fill(slot: &Slot, rank: Rank, step: u64, seed: u64) -> Filling {
    let begin =
        Begin { session: SessionId(40 + u64::from(rank.0)), generation: Generation(3), step: Step(step) };
    let fill = slot.begin_fill(&begin).unwrap();
    let seed = seed ^ u64::from(rank.0) << 8 ^ step;
    let sizes = [("small", 77, 0), ("large", 70_000, 4096)];
    let mut data = vec![0; 19 * PAGE];
    let mut index = SlotIndex {
        step,
        rank: rank.0,
        world_size: 2,
        tree: format!("{{\"rank\":{rank},\"step\":{step}}}").into_bytes(),
        ..SlotIndex::default()
    };
    for (name, bytes, offset) in sizes {
        let content = crate::storage::conformance::noise(seed ^ bytes, bytes as usize);
        data[offset..offset + bytes as usize].copy_from_slice(&content);
        let (name, offset, dtype) = (name.to_owned(), offset as u64, "uint8".to_owned());
        let tensor =
            Tensor { name, dtype, offset, bytes, shape: vec![bytes], staged: true, ..Default::default() };
        index.tensors.push(tensor);
    }
    let writer = ArenaView::open(slot.arena().path()).unwrap().writer(slot.number(), fill).unwrap();
    let copies = [CopyIn { source: data.as_ptr(), bytes: data.len() as u64, offset: 0 }];
    // SAFETY: `data` outlives the call.
    unsafe { writer.fill(&copies, data.len() as u64, 1).unwrap() };
    writer.seal(&index, data.len() as u64).unwrap();
    Sums::of(slot, fill).unwrap().write(slot).unwrap();
    if slot.number() == 0 {
        slot.take_for_persist(fill).unwrap();
        slot.mark_clean(fill).unwrap();
    }
    Filling { rank, session: begin.session, generation: begin.generation, step: begin.step, index, data }
}

const CLASSES: [&str; 4] = ["arena", "sums", "session", "job"];

fn class(name: &str) -> Option<&'static str> {
    CLASSES.into_iter().find(|class| name.rsplit('.').next() == Some(class))
}

struct Mutation {
    what: String,
    kind: &'static str,
    class: &'static str,
    /// None: gone.
    changes: Vec<(String, Option<Vec<u8>>)>,
}

impl Mutation {
    /// Never one that leaves everything as it is.
    fn draw(sealed: &Sealed, random: &mut StdRng) -> Mutation {
        loop {
            let mutation = Mutation::try_draw(sealed, random);
            let is_new = |(name, new): &(String, Option<Vec<u8>>)| sealed.files.get(name) != new.as_ref();
            if mutation.changes.iter().any(is_new) {
                return mutation;
            }
        }
    }

    fn try_draw(sealed: &Sealed, random: &mut StdRng) -> Mutation {
        // Every second one hits an arena: most of what is read lies there.
        let class = if random.random() { "arena" } else { CLASSES[random.random_range(1..CLASSES.len())] };
        let of_class = |of: &str| {
            let names = sealed.files.keys().filter(|name| self::class(name) == Some(of));
            names.cloned().collect::<Vec<_>>()
        };
        let names = of_class(class);
        let name = &names[random.random_range(0..names.len())];
        let old = &sealed.files[name];
        let mut new = old.clone();
        let one = |kind, what: String, new| Mutation {
            what: format!("{what} of {name}"),
            kind,
            class,
            changes: vec![(name.clone(), new)],
        };
        match random.random_range(0..8) {
            0..=2 => {
                let (at, bit) = (place(class, old.len(), random), random.random_range(0..8));
                new[at] ^= 1 << bit;
                one("flips", format!("bit {bit} of byte {at}"), Some(new))
            }
            3 => {
                let length = random.random_range(0..new.len());
                new.truncate(length);
                one("truncations", format!("all but {length} bytes"), Some(new))
            }
            4 => {
                new.resize(old.len() + random.random_range(1..9000), random.random());
                one("lengthenings", "bytes after the end".to_owned(), Some(new))
            }
            5 => one("deletions", "all".to_owned(), None),
            6 => {
                let others = match random.random_ratio(3, 4) {
                    true => names.clone(),
                    false => of_class(CLASSES[random.random_range(0..CLASSES.len())]),
                };
                let other = &others[random.random_range(0..others.len())];
                let changes = vec![
                    (name.clone(), sealed.files.get(other).cloned()),
                    (other.clone(), sealed.files.get(name).cloned()),
                ];
                Mutation { what: format!("{name} and {other} swapped"), kind: "swaps", class, changes }
            }
            _ => {
                let pages = old.len().div_ceil(PAGE);
                let [to, from] = [0, 1].map(|_| random.random_range(0..pages) * PAGE);
                let bytes = PAGE.min(old.len() - to).min(old.len() - from);
                match random.random() {
                    true => new[to..to + bytes].fill(0),
                    false => new[to..to + bytes].copy_from_slice(&old[from..from + bytes]),
                }
                one("pages", format!("the page at {to} (zeros, or that at {from})"), Some(new))
            }
        }
    }
}

/// A byte of a file; in an arena as often one of the identity or of a slot's header as one of the data.
fn place(class: &str, bytes: usize, random: &mut StdRng) -> usize {
    match (class, random.random_range(0..4)) {
        ("arena", 0) => random.random_range(0..256),
        ("arena", 1) => PAGE * random.random_range(1..3) + random.random_range(0..80),
        _ => random.random_range(0..bytes),
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.what)
    }
}
