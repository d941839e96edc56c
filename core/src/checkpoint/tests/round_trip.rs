//! What is saved comes back, on every kind of store, to whom it belongs.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::fixture::*;
use crate::checkpoint::{JobStore, RankSlot, Takeover};
use crate::error::Kind;
use crate::format::StepKind;
use crate::ids::{ClusterId, JobUuid, Step};
use crate::storage::conformance::{Azurite, Fault, GcsDouble, TestServer};
use crate::storage::{BufferBudget, StoreOptions, StoreUrl, open as open_store, over_object_store};

fn round_trip(store: &JobStore) {
    let uuid = JobUuid::new();
    let specs = mixed(1);
    let record = save(store, uuid, 7, 3, one_node(3, 7, &specs));
    for rank in 0..3 {
        check(store, 7, rank, 3, rank, &specs);
    }
    let report = verify(store, 7).unwrap();
    assert_eq!(report.objects, 1 + 3 + 1);
    assert!(report.bytes >= specs.iter().map(|spec| spec.bytes).sum::<u64>());
    assert_eq!(record.state_bytes(), 3 * specs.iter().map(|spec| spec.bytes).sum::<u64>());

    let inspection = run(store.inspect(Step(7))).unwrap();
    assert_eq!(inspection.commit.record, record);
    let replicated = specs.iter().filter(|spec| spec.replicated).count();
    assert_eq!(inspection.tensors.len(), 3 * (specs.len() - replicated) + replicated);
    let steps = run(store.steps()).unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].commit.as_ref().unwrap(), &inspection.commit);
}

#[test]
fn every_rank_gets_its_state_back_from_a_directory() {
    round_trip(&local().store);
}

#[test]
fn every_rank_gets_its_state_back_from_s3_over_memory() {
    let options = StoreOptions { part_bytes: Some(5 << 20), ..StoreOptions::default() };
    round_trip(&over(over_object_store(Arc::new(InMemory::new()), "p", &options)));
}

/// Attached, saved, restored, and removed again.
fn whole_life(url: &StoreUrl, options: &StoreOptions) {
    let store = JobStore::open(url, options, &job()).unwrap();
    let cluster = ClusterId::new();
    let attached = run(store.attach(cluster, Takeover::No, OWN)).unwrap();
    assert!(attached.steps.is_empty());
    round_trip(&store);
    let stranger = run(store.attach(ClusterId::new(), Takeover::No, OWN)).unwrap_err();
    assert_eq!(stranger.kind, Kind::Conflict, "{stranger}");
    let steps = run(store.steps()).unwrap();
    let order = removal(7, steps[0].commit.as_ref().unwrap().record.generation.0, true, &[]);
    assert!(run(store.remove(&order)).unwrap() > 30 << 20);
    let attached = run(store.attach(cluster, Takeover::No, OWN)).unwrap();
    assert!(attached.steps.is_empty() && attached.highest_generation.0 == 0, "nothing is left");
}

#[test]
fn every_rank_gets_its_state_back_from_a_real_s3_server() {
    let Some(server) = TestServer::start() else { return };
    whole_life(&server.url, &server.options);
}

#[test]
fn every_rank_gets_its_state_back_from_a_real_azure_server() {
    let Some(server) = Azurite::start() else { return };
    whole_life(&server.url, &server.options);
}

#[test]
fn every_rank_gets_its_state_back_from_gcs() {
    let double = GcsDouble::start();
    whole_life(&double.url, &double.options);
}

/// P5, P1: while the store refuses, throttles or loses answers a save is Unavailable or whole, never half; then it commits.
#[test]
fn a_save_over_a_store_that_fails_at_random_is_whole_or_not_there() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    const STEPS: u64 = 4;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let double = GcsDouble::start();
    let options =
        StoreOptions { retry_budget: std::time::Duration::from_millis(200), ..double.options.clone() };
    let store = JobStore::open(&double.url, &options, &job()).unwrap();
    let (uuid, mut failed) = (JobUuid::new(), 0);
    for step in 1..=STEPS {
        let specs = mixed(step);
        let mut dice = StdRng::seed_from_u64(random.random());
        double.fail(move |_, _| match dice.random_range(0..100) {
            0..12 => Some(Fault::Refused([429, 500, 503][dice.random_range(0..3)])),
            12..20 => Some(Fault::LostAnswer),
            20..25 => Some(Fault::CutShort),
            _ => None,
        });
        let attempt = attempt(uuid, step, 1);
        let try_once = || {
            let durable = persist(&store, attempt, 2, one_node(2, step, &specs))?;
            publish(&store, &record(attempt, 2, StepKind::Full, &durable))
        };
        for _ in 0..3 {
            match try_once() {
                Ok(()) => break,
                Err(error) => {
                    // Another try's COMMIT whose answer was lost holds other names: that step is committed.
                    assert!(matches!(error.kind, Kind::Unavailable | Kind::Conflict), "{error}");
                    failed += 1;
                }
            }
        }
        double.fail(|_, _| None);
        if run(store.commit(Step(step))).is_err() {
            try_once().unwrap();
        }
    }
    for step in 1..=STEPS {
        (0..2).for_each(|rank| check(&store, step, rank, 2, rank, &mixed(step)));
    }
    println!("{failed} tries failed");
}

#[test]
fn little_memory_makes_it_slow_not_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions { buffers: BufferBudget::new(1 << 20), ..StoreOptions::default() };
    let objects = open_store(&StoreUrl::local(folder.path()).unwrap(), &options, JOB).unwrap();
    objects.make_place().unwrap();
    let store = JobStore::over(objects, &StoreUrl::local("/over").unwrap(), &options, &job());
    round_trip(&store);
    assert_eq!(options.buffers.in_use(), 0);
}

#[test]
fn slots_at_any_address_are_stored_alike() {
    let job = local();
    let specs = mixed(1);
    let mut shifted = slot(0, 1, 1, &specs, true);
    let mut bytes = vec![0; shifted.data.len() + 4096 + 8];
    let start = bytes.as_ptr().align_offset(4096) + 8;
    bytes[start..][..shifted.data.len()].copy_from_slice(&shifted.data);
    shifted.data = bytes::Bytes::from(bytes).slice(start..start + shifted.data.len());
    save(&job.store, job.uuid, 1, 1, vec![vec![shifted]]);
    check(&job.store, 1, 0, 1, 0, &specs);
}

#[test]
fn a_state_without_tensors_comes_back() {
    let job = local();
    save(&job.store, job.uuid, 1, 2, one_node(2, 1, &[]));
    check(&job.store, 1, 1, 2, 1, &[]);
    verify(&job.store, 1).unwrap();
}

#[test]
fn a_glob_reads_what_it_names_and_no_more() {
    let job = local();
    let specs = mixed(1);
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &specs));
    let whole = open_step(&job.store, 1, 0, 1, "").unwrap();
    let part = open_step(&job.store, 1, 0, 1, "optimizer.*").unwrap();
    assert!(part.slot_bytes() < whole.slot_bytes() / 4, "{} of {}", part.slot_bytes(), whole.slot_bytes());
    let found = read(&part).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["optimizer.exp_avg", "optimizer.step"]);
    for spec in specs.iter().filter(|spec| spec.name.starts_with("optimizer")) {
        assert!(found[&spec.name] == spec.content(0));
    }
    let unstaged = part.index().tensors.iter().filter(|tensor| !tensor.staged).count();
    assert_eq!(unstaged, specs.len() - 2);
    // A name that no tensor has may be one of the tree's.
    let none = open_step(&job.store, 1, 0, 1, "optimiser.*").unwrap();
    assert_eq!((none.slot_bytes(), none.index().tree.clone()), (0, tree(0, 1)));
    assert!(read(&none).unwrap().is_empty());
}

/// So that a restored slot serves as the base of the next INCREMENTAL save without a byte read back.
#[test]
fn a_whole_state_is_restored_to_the_places_it_was_saved_from() {
    let job = local();
    let saved = slot(0, 1, 1, &mixed(1), true);
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &mixed(1)));
    let restore = open_step(&job.store, 1, 0, 1, "").unwrap();
    assert_eq!(restore.index().tensors, saved.index.tensors);
    assert_eq!(restore.slot_bytes(), saved.data.len() as u64);
    let mut slot = vec![0xa5; saved.data.len()];
    restore.read_into(&mut slot).unwrap();
    assert!(slot == saved.data, "gaps are zero again");
}

#[test]
fn a_missing_step_is_not_found() {
    let job = local();
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &[]));
    assert_eq!(open_step(&job.store, 2, 0, 1, "").err().unwrap().kind, Kind::NotFound);
    assert_eq!(run(job.store.inspect(Step(2))).unwrap_err().kind, Kind::NotFound);
    assert_eq!(verify(&job.store, 2).unwrap_err().kind, Kind::NotFound);
}

#[test]
fn a_slot_too_small_is_refused() {
    let job = local();
    save(&job.store, job.uuid, 1, 1, one_node(1, 1, &mixed(0)));
    let restore = open_step(&job.store, 1, 0, 1, "").unwrap();
    let mut small = vec![0; restore.slot_bytes() as usize - 1];
    assert_eq!(restore.read_into(&mut small).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn a_slot_of_another_step_or_rank_is_refused() {
    let job = local();
    let wrong_step = slot(0, 1, 2, &mixed(0), true);
    let wrong_rank = RankSlot { rank: crate::ids::Rank(1), ..slot(0, 2, 1, &mixed(0), true) };
    for slot in [wrong_step, wrong_rank] {
        let error = persist(&job.store, attempt(job.uuid, 1, 1), 2, vec![vec![slot]]).unwrap_err();
        assert_eq!(error.kind, Kind::Internal);
    }
}

#[test]
fn an_opened_store_needs_no_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let objects =
        open_store(&StoreUrl::local(folder.path()).unwrap(), &StoreOptions::default(), "x").unwrap();
    objects.make_place().unwrap();
    let store = over(objects);
    save(&store, JobUuid::new(), 1, 1, one_node(1, 1, &[spec("a", 10)]));
    let steps = futures::executor::block_on(store.steps()).unwrap();
    assert_eq!(steps.len(), 1);
}
