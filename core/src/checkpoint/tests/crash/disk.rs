//! A disk that keeps only what was synced: the changes that a local store makes are recorded, and after any of them the
//! directory is built as a crash may leave it. What a file system may do with changes that nobody synced is as free as
//! Pillai et al. found it ("All File Systems Are Not Created Equal", OSDI 2014, ALICE): each name and each content by
//! itself may have reached the disk or not, in any order; a rename is atomic; a synced content, and a name in a synced
//! directory, stay.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::io::Errno;

use crate::storage::{Change, Watcher};

/// What was done, in order; with contents, as they were right after it.
#[derive(Debug)]
pub enum Done {
    MakeFolder(PathBuf),
    RemoveFolder(PathBuf),
    SyncFolder(PathBuf),
    Create(PathBuf),
    Write(PathBuf, Arc<Vec<u8>>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    /// The caller was told that something is durable.
    Told(&'static str),
}

impl Done {
    pub fn told(&self) -> Option<&'static str> {
        match self {
            Done::Told(what) => Some(what),
            _ => None,
        }
    }
}

#[derive(Default)]
pub struct Recorder {
    log: Mutex<Vec<Done>>,
}

impl Recorder {
    pub fn told(&self, what: &'static str) {
        self.log.lock().push(Done::Told(what));
    }

    pub fn take(&self) -> Vec<Done> {
        std::mem::take(&mut *self.log.lock())
    }
}

impl Watcher for Recorder {
    fn before(&self, _: Change<'_>) -> Result<(), Errno> {
        Ok(())
    }

    fn after(&self, change: Change<'_>) {
        let mut log = self.log.lock();
        log.push(match change {
            Change::MakeFolder(path) => Done::MakeFolder(path.to_owned()),
            Change::RemoveFolder(path) => Done::RemoveFolder(path.to_owned()),
            Change::SyncFolder(path) => Done::SyncFolder(path.to_owned()),
            Change::Create(path) => Done::Create(path.to_owned()),
            Change::Write(path) => Done::Write(path.to_owned(), Arc::new(std::fs::read(path).unwrap())),
            Change::Sync(path) => Done::Sync(path.to_owned()),
            Change::Rename(from, to) => Done::Rename(from.to_owned(), to.to_owned()),
            Change::Link(from, to) => Done::Link(from.to_owned(), to.to_owned()),
            Change::Unlink(path) => Done::Unlink(path.to_owned()),
        });
    }
}

/// What of the changes that nobody synced is there after the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    Lost,
    /// Names without contents.
    NamesAlone,
    /// All of it: only the process was killed.
    Kept,
    /// Each by itself, contents also torn.
    AtRandom,
}

impl Unsynced {
    pub fn name(self) -> &'static str {
        match self {
            Unsynced::Lost => "lost",
            Unsynced::NamesAlone => "names alone",
            Unsynced::Kept => "kept",
            Unsynced::AtRandom => "at random",
        }
    }
}

type Id = usize;

#[derive(Clone)]
enum Node {
    Folder(Folder),
    File { synced: Arc<Vec<u8>>, now: Arc<Vec<u8>> },
}

#[derive(Clone, Default)]
struct Folder {
    synced: BTreeMap<OsString, Id>,
    now: BTreeMap<OsString, Id>,
    /// Since it was synced; each is atomic. None: the name goes.
    pending: Vec<Vec<(OsString, Option<Id>)>>,
}

/// A directory, as it is for a living process and as it is on the disk.
#[derive(Clone)]
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
}

const ROOT: Id = 0;

impl Disk {
    /// All that is there now is synced.
    pub fn of(root: &Path) -> Disk {
        let mut disk = Disk { root: root.to_owned(), nodes: Vec::new() };
        disk.take_in(root);
        disk
    }

    fn take_in(&mut self, path: &Path) -> Id {
        let id = self.nodes.len();
        if path.is_file() {
            let content = Arc::new(std::fs::read(path).unwrap());
            self.nodes.push(Node::File { synced: content.clone(), now: content });
            return id;
        }
        self.nodes.push(Node::Folder(Folder::default()));
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
        let entries: BTreeMap<OsString, Id> =
            entries.map(|entry| (entry.file_name(), self.take_in(&entry.path()))).collect();
        self.nodes[id] = Node::Folder(Folder { synced: entries.clone(), now: entries, pending: Vec::new() });
        id
    }

    pub fn apply(&mut self, done: &Done) {
        match done {
            Done::MakeFolder(path) => self.add(path, Node::Folder(Folder::default())),
            Done::Create(path) => self.add(path, Node::File { synced: Arc::default(), now: Arc::default() }),
            Done::RemoveFolder(path) | Done::Unlink(path) => {
                let (folder, name) = self.place(path);
                folder.change(vec![(name, None)]);
            }
            Done::SyncFolder(path) => {
                let folder = self.folder(path);
                folder.synced = folder.now.clone();
                folder.pending.clear();
            }
            Done::Write(path, content) => {
                let Node::File { now, .. } = self.file(path) else { unreachable!() };
                now.clone_from(content);
            }
            Done::Sync(path) => {
                let Node::File { synced, now } = self.file(path) else { unreachable!() };
                synced.clone_from(now);
            }
            Done::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "names move within their folder");
                let id = self.find(from);
                let (folder, name) = self.place(to);
                let old = from.file_name().unwrap().to_owned();
                folder.change(vec![(old, None), (name, Some(id))]);
            }
            Done::Link(from, to) => {
                let id = self.find(from);
                let (folder, name) = self.place(to);
                folder.change(vec![(name, Some(id))]);
            }
            Done::Told(_) => {}
        }
    }

    fn add(&mut self, path: &Path, node: Node) {
        let id = self.nodes.len();
        self.nodes.push(node);
        let (folder, name) = self.place(path);
        folder.change(vec![(name, Some(id))]);
    }

    fn find(&self, path: &Path) -> Id {
        path.strip_prefix(&self.root).unwrap().iter().fold(ROOT, |id, name| {
            let Node::Folder(folder) = &self.nodes[id] else { panic!("{} is no folder", path.display()) };
            *folder.now.get(name).unwrap_or_else(|| panic!("{} was never made", path.display()))
        })
    }

    fn folder(&mut self, path: &Path) -> &mut Folder {
        let id = self.find(path);
        let Node::Folder(folder) = &mut self.nodes[id] else { panic!("{} is no folder", path.display()) };
        folder
    }

    fn file(&mut self, path: &Path) -> &mut Node {
        let id = self.find(path);
        assert!(matches!(self.nodes[id], Node::File { .. }));
        &mut self.nodes[id]
    }

    fn place(&mut self, path: &Path) -> (&mut Folder, OsString) {
        (self.folder(path.parent().unwrap()), path.file_name().unwrap().to_owned())
    }

    /// Builds the directory that a crash now leaves.
    pub fn crash(&self, unsynced: Unsynced, random: &mut StdRng, target: &Path) {
        self.build(ROOT, unsynced, random, target);
    }

    fn build(&self, id: Id, unsynced: Unsynced, random: &mut StdRng, target: &Path) {
        match &self.nodes[id] {
            Node::File { synced, now } => {
                std::fs::write(target, content(synced, now, unsynced, random)).unwrap();
            }
            Node::Folder(folder) => {
                if id != ROOT {
                    std::fs::create_dir(target).unwrap();
                }
                let mut entries = folder.synced.clone();
                for change in &folder.pending {
                    let kept = match unsynced {
                        Unsynced::Lost => false,
                        Unsynced::NamesAlone | Unsynced::Kept => true,
                        Unsynced::AtRandom => random.random(),
                    };
                    if kept {
                        Folder::set(&mut entries, change);
                    }
                }
                for (name, id) in entries {
                    self.build(id, unsynced, random, &target.join(name));
                }
            }
        }
    }
}

fn content(synced: &[u8], now: &[u8], unsynced: Unsynced, random: &mut StdRng) -> Vec<u8> {
    if synced == now {
        return now.to_vec();
    }
    match unsynced {
        Unsynced::Lost | Unsynced::NamesAlone => synced.to_vec(),
        Unsynced::Kept => now.to_vec(),
        Unsynced::AtRandom => match random.random_range(0..5) {
            0 => synced.to_vec(),
            1 => now.to_vec(),
            2 => vec![0; now.len()],
            3 => now[..random.random_range(0..=now.len())].to_vec(),
            _ => {
                let mut torn = now.to_vec();
                let from = random.random_range(0..=torn.len());
                random.fill(&mut torn[from..]);
                torn
            }
        },
    }
}

impl Folder {
    fn change(&mut self, change: Vec<(OsString, Option<Id>)>) {
        Folder::set(&mut self.now, &change);
        self.pending.push(change);
    }

    fn set(entries: &mut BTreeMap<OsString, Id>, change: &[(OsString, Option<Id>)]) {
        for (name, id) in change {
            match id {
                Some(id) => drop(entries.insert(name.clone(), *id)),
                None => drop(entries.remove(name)),
            }
        }
    }
}
