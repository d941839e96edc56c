//! Repair rebuilds exactly what was harmed, from what another place still has, and touches nothing else: over every kind
//! of object, in either place, two directories and a directory beside a real S3 server.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;

use super::fixture::*;
use crate::checkpoint::{Claimant, Fault, Holders, JobStore, Mending, RepairMode, Takeover};
use crate::error::{Kind, Result};
use crate::format::paths;
use crate::ids::{ClusterId, Step};
use crate::storage::conformance::TestServer;
use crate::storage::{Created, Listed, Reader, Store, StoreOptions, StoreUrl, Writer, open as open_store};
use crate::torture_tests::Campaign;

/// Notes what is written to.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn Store>,
    written: Mutex<Vec<String>>,
}

impl Noting {
    fn note(&self, path: &str) {
        self.written.lock().push(path.to_owned());
    }
}

impl Store for Noting {
    passes_on!(name_of, make_place, place_uid, read, reader, list, folders, sweep);
    fn create(&self, path: &str, content: Bytes) -> Result<Created> {
        self.note(path);
        self.inner.create(path, content)
    }
    fn replace(&self, path: &str, content: Bytes) -> Result<()> {
        self.note(path);
        self.inner.replace(path, content)
    }
    fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        self.note(path);
        self.inner.writer(path, at_most)
    }
    fn rewriter(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        self.note(path);
        self.inner.rewriter(path, at_most)
    }
    fn delete(&self, paths: &[String]) -> Result<()> {
        paths.iter().for_each(|path| self.note(path));
        self.inner.delete(paths)
    }
}

/// One of the two places, and what lay in it when all was well.
struct Kept {
    objects: Arc<Noting>,
    job: JobStore,
    whole: BTreeMap<String, Bytes>,
}

impl Kept {
    fn over(objects: Arc<dyn Store>) -> Kept {
        let objects = Arc::new(Noting { inner: objects, written: Mutex::default() });
        Kept { job: over(objects.clone()), objects, whole: BTreeMap::new() }
    }

    fn contents(&self) -> BTreeMap<String, Bytes> {
        let listed = self.objects.list("").unwrap();
        listed
            .into_iter()
            .map(|found| (found.path.clone(), self.objects.read(&found.path).unwrap()))
            .collect()
    }

    fn harm(&self, path: &str, content: Option<Bytes>) {
        match content {
            Some(content) => self.objects.inner.replace(path, content).unwrap(),
            None => self.objects.inner.delete(&[path.to_owned()]).unwrap(),
        }
    }

    fn is_whole(&self) -> bool {
        (1..=STEPS).all(|step| run(self.job.verify(Step(step), |_, _| ())).is_ok())
            && run(self.job.owner()).is_ok_and(|owner| owner.is_some())
    }
}

const STEPS: u64 = 3;
/// Enough for a chunk of its own.
const FROZEN: u64 = 400 << 10;

fn state(step: u64, frozen: u64) -> Vec<Spec> {
    vec![spec("frozen", frozen), spec("trained", 90 << 10).version(step), spec("small", 10).version(step)]
}

/// A FULL step and two INCREMENTAL ones on it, in both places.
fn pair(first: Arc<dyn Store>, second: Arc<dyn Store>, frozen: u64) -> [Kept; 2] {
    let (mut first, mut second) = (Kept::over(first), Kept::over(second));
    let (cluster, claimant) = (ClusterId::new(), Claimant::Own { uid: 1000 });
    let uuid = run(first.job.attach(cluster, Takeover::No, claimant)).unwrap().job_uuid;
    run(second.job.survey(cluster, uuid, Takeover::No, claimant)).unwrap();
    let mut before = None;
    for step in 1..=STEPS {
        let mut now = slot(0, 1, step, &state(step, frozen), true);
        now.base = before.as_ref().map(base_of);
        save(&first.job, uuid, step, 1, vec![vec![now]]);
        before = Some(slot(0, 1, step, &state(step, frozen), true));
        run(second.job.copy_from(&first.job, Step(step), "", |_| ())).unwrap();
    }
    for place in [&mut first, &mut second] {
        place.whole = place.contents();
        place.objects.written.lock().clear();
        assert!(place.is_whole());
    }
    [first, second]
}

fn repair(places: &[Kept; 2], mode: RepairMode) -> Vec<Fault> {
    let others = [places[1].job.clone()];
    let mut faults = run(places[0].job.repair_owners(&others, mode)).unwrap();
    for step in 1..=STEPS {
        let mended = run(places[0].job.repair(&others, Step(step), Holders::AndFirst, mode, |_, _| ()));
        faults.extend(mended.unwrap().faults);
    }
    faults
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Flip,
    Cut,
    Delete,
}

fn harmed(whole: &Bytes, harm: Harm, random: &mut StdRng) -> Option<Bytes> {
    let at = random.random_range(0..whole.len());
    match harm {
        Harm::Flip => {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << random.random_range(0..8);
            Some(bytes.into())
        }
        Harm::Cut => Some(whole.slice(..at)),
        Harm::Delete => None,
    }
}

fn kind(path: &str) -> &'static str {
    ["OWNER", "COMMIT", "manifest", "pack"].into_iter().find(|kind| path.ends_with(kind)).unwrap()
}

/// One object of one place after the other, harmed in each way.
fn each_object_is_rebuilt(name: &'static str, places: &[Kept; 2]) {
    let mut campaign = Campaign::new(name, 1);
    campaign.play(|campaign, random| {
        for (number, place) in places.iter().enumerate() {
            for (path, whole) in &place.whole {
                for harm in [Harm::Flip, Harm::Cut, Harm::Delete] {
                    println!("{harm:?} of {path} in place {number}");
                    place.harm(path, harmed(whole, harm, random));
                    let is_step = number == 1 && kind(path) == "COMMIT" && harm == Harm::Delete;
                    if is_step || (harm == Harm::Flip && place.is_whole()) {
                        // A target without a COMMIT does not have the step; padding is nobody's.
                        assert!(repair(places, RepairMode::Write).is_empty());
                        place.harm(path, Some(whole.clone()));
                        campaign.count("nothing to repair");
                        continue;
                    }
                    let told = repair(places, RepairMode::DryRun);
                    assert!(
                        !told.is_empty() && told.iter().all(|fault| fault.mending == Mending::Possible),
                        "{told:?}"
                    );
                    assert!(
                        places.iter().all(|place| place.objects.written.lock().is_empty()),
                        "a dry run wrote"
                    );
                    assert!(told.iter().all(|fault| fault.object.ends_with(path)), "{told:?}");
                    let done = repair(places, RepairMode::Write);
                    assert!(done.iter().all(|fault| fault.mending == Mending::Done), "{done:?}");
                    let written = std::mem::take(&mut *place.objects.written.lock());
                    assert!(written.iter().all(|object| object == path), "{written:?}: others were good");
                    assert!(places[1 - number].objects.written.lock().is_empty(), "the other place was good");
                    assert!(place.is_whole());
                    assert!(place.contents() == place.whole, "not as it was");
                    campaign.count(kind(path));
                }
            }
        }
    });
    campaign.held();
}

fn local_store(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    open_store(&StoreUrl::local(folder.path()).unwrap(), &StoreOptions::default(), JOB).unwrap()
}

#[test]
fn p2_each_kind_of_object_is_rebuilt_between_two_directories() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    each_object_is_rebuilt(
        "repairs-local",
        &pair(local_store(&folders[0]), local_store(&folders[1]), FROZEN),
    );
}

#[test]
fn p2_each_kind_of_object_is_rebuilt_between_a_directory_and_a_real_s3_server() {
    let Some(server) = TestServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let bucket = open_store(&server.url, &server.options, JOB).unwrap();
    each_object_is_rebuilt("repairs-s3", &pair(local_store(&folder), bucket, FROZEN));
}

#[test]
fn a_pack_damaged_in_both_places_is_rebuilt_in_both_where_no_chunk_is_bad_twice() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let places = pair(local_store(&folders[0]), local_store(&folders[1]), 5 << 20);
    let pack = places[0].whole.keys().find(|path| path.ends_with(".pack")).unwrap();
    let whole = &places[0].whole[pack];
    // The first chunk here, one far behind it there.
    for (place, at) in places.iter().zip([0, (4 << 20) + 5000]) {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        place.harm(pack, Some(bytes.into()));
        assert!(!place.is_whole());
    }
    let done = repair(&places, RepairMode::Write);
    assert!(done.iter().all(|fault| fault.mending == Mending::Done), "{done:?}");
    assert!(places.iter().all(|place| place.contents() == place.whole));
}

#[test]
fn what_no_place_has_is_said_to_be_lost_and_left_alone() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let places = pair(local_store(&folders[0]), local_store(&folders[1]), FROZEN);
    let path = paths::commit(Step(3));
    for place in &places {
        place.harm(&path, Some(Bytes::from_static(b"half")));
    }
    let told = repair(&places, RepairMode::Write);
    assert!(
        told.len() == 2 && told.iter().all(|fault| matches!(fault.mending, Mending::Lost(_))),
        "{told:?}"
    );
    assert!(places.iter().all(|place| place.objects.written.lock().is_empty()));
}

#[test]
fn p2_a_damaged_commit_stays_damaged_where_what_it_names_is_lost() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let places = pair(local_store(&folders[0]), local_store(&folders[1]), FROZEN);
    let pack = places[0].whole.keys().find(|path| path.ends_with(".pack")).unwrap();
    places.iter().for_each(|place| place.harm(pack, None));
    for step in 1..=STEPS {
        places[1].harm(&paths::commit(Step(step)), Some(Bytes::from_static(b"half")));
    }
    for mode in [RepairMode::DryRun, RepairMode::Write] {
        let told = repair(&places, mode);
        let lost = told.iter().filter(|fault| matches!(fault.mending, Mending::Lost(_)));
        let commits = lost.filter(|fault| kind(&fault.object) == "COMMIT").count();
        assert!(commits > 0, "{told:?}");
        let written = std::mem::take(&mut *places[1].objects.written.lock());
        let rewritten = written.iter().filter(|path| kind(path) == "COMMIT").count();
        assert!(mode == RepairMode::DryRun && written.is_empty() || rewritten + commits == STEPS as usize);
    }
}

#[test]
fn p4_two_attempts_of_one_number_are_not_mixed() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let places = pair(local_store(&folders[0]), local_store(&folders[1]), FROZEN);
    let uuid = run(places[0].job.owner()).unwrap().unwrap().job_uuid;
    for (number, place) in places.iter().enumerate() {
        save(&place.job, uuid, 9, 1, one_node(1, 9, &state(number as u64, FROZEN)));
    }
    let others = [places[1].job.clone()];
    let error = run(places[0].job.repair(&others, Step(9), Holders::AndFirst, RepairMode::Write, |_, _| ()));
    assert_eq!(error.unwrap_err().kind, Kind::Conflict);
    check(&places[1].job, 9, 0, 1, 0, &state(1, FROZEN));
}
