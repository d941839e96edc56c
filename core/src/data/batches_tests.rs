//! What batches hold, whoever reads them and whenever they are asked for.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Batch, Batches, DatasetSpec, Dtype, Format, OnDamage, Rows, Share, resolve};
use crate::error::{Error, Kind, Result};
use crate::ids::{Rank, WorldSize};
use crate::proto::v1;
use crate::sharding::{Cursor, Segment, Tail};

/// 101 samples of two uint16: the sample's number, and its number plus 1000.
fn dataset() -> (TempDir, DatasetSpec) {
    let folder = TempDir::new().unwrap();
    for (name, samples) in [("a.bin", 0..40u16), ("b.bin", 40..101)] {
        let bytes: Vec<u8> = samples.flat_map(|n| [n, n + 1000]).flat_map(u16::to_le_bytes).collect();
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let format = Format::Tokens { dtype: Dtype::Uint16, sample_len: 2 };
    let spec = DatasetSpec { shuffle: true, seed: 5, ..DatasetSpec::new("d", folder.path(), format, 7) };
    (folder, resolve(spec, OnDamage::Raise).unwrap().0)
}

fn start(spec: &DatasetSpec, world: u32) -> Cursor {
    Cursor::new(&spec.id, spec.version, 0, 10, WorldSize(world)).unwrap()
}

fn share(spec: &DatasetSpec, rank: u32, at: &Cursor) -> Arc<Share> {
    let Segment { batch, world, .. } = at.segment;
    Arc::new(Share::new(spec.clone(), Rank(rank), world, batch, Tail::Short, OnDamage::Raise).unwrap())
}

/// With as much read ahead as any test's seed says: it must not matter.
fn batches(spec: &DatasetSpec, rank: u32, cursor: Cursor) -> Batches {
    Batches::new(share(spec, rank, &cursor), cursor, 1, rank as usize % 4)
}

fn next(batches: &mut Batches) -> Result<Option<Batch>> {
    batches.next_batch(|| Ok(()))
}

/// To the epoch's end.
fn rest(batches: &mut Batches) -> Vec<Batch> {
    std::iter::from_fn(|| next(batches).unwrap()).collect()
}

/// Checks the bytes against the indices, and counts how often each sample comes.
fn tally(seen: &mut BTreeMap<u64, u32>, batch: &Batch) {
    let Rows::Fixed(bytes) = &batch.rows else { panic!("tokens have one size") };
    assert_eq!(bytes.len(), batch.indices.len() * 4);
    for (index, sample) in batch.indices.iter().zip(bytes.chunks(4)) {
        let items = [0, 2].map(|at| u64::from(u16::from_le_bytes([sample[at], sample[at + 1]])));
        assert_eq!(items, [*index, *index + 1000]);
        *seen.entry(*index).or_default() += 1;
    }
}

fn each_once() -> BTreeMap<u64, u32> {
    (0..101).map(|sample| (sample, 1)).collect()
}

#[test]
fn p8_all_ranks_together_read_every_sample_once_an_epoch() {
    let (_folder, spec) = dataset();
    let mut orders = Vec::new();
    let mut at = start(&spec, 3);
    for _epoch in 0..2 {
        let (mut seen, mut order, mut steps) = (BTreeMap::new(), Vec::new(), Vec::new());
        for rank in 0..3 {
            let taken = rest(&mut batches(&spec, rank, at.clone()));
            taken.iter().for_each(|batch| tally(&mut seen, batch));
            order.extend(taken.iter().flat_map(|batch| batch.indices.clone()));
            steps.push(taken.len());
        }
        at = at.next_epoch();
        assert_eq!(seen, each_once());
        assert_eq!(steps, [11, 11, 11], "ranks step together, also where the last slice is empty");
        orders.push(order);
    }
    assert_ne!(orders[0], orders[1]);
}

#[test]
fn p8_a_resumed_job_replays_identically_and_may_change_its_world() {
    let (_folder, spec) = dataset();
    let mut seen = BTreeMap::new();
    let mut committed = start(&spec, 2);
    for rank in 0..2 {
        let mut uninterrupted = batches(&spec, rank, start(&spec, 2));
        for _ in 0..4 {
            let batch = next(&mut uninterrupted).unwrap().unwrap();
            tally(&mut seen, &batch);
            committed = batch.at.advanced();
        }
        let remaining = rest(&mut uninterrupted);
        let resumed: Vec<Batch> = rest(&mut batches(&spec, rank, committed.clone()));
        assert_eq!(remaining, resumed);
    }
    let resized = committed.resized(16, WorldSize(5)).unwrap();
    for rank in 0..5 {
        for batch in rest(&mut batches(&spec, rank, resized.clone())) {
            tally(&mut seen, &batch);
        }
    }
    assert_eq!(seen, each_once());
}

#[test]
fn a_batch_that_can_not_be_read_is_not_skipped() {
    let (folder, spec) = dataset();
    let mut one = batches(&spec, 0, start(&spec, 1));
    let whole = fs::read(folder.path().join("b.bin")).unwrap();
    fs::write(folder.path().join("b.bin"), b"").unwrap();
    let error = loop {
        match next(&mut one) {
            Ok(batch) => assert!(batch.is_some(), "an epoch without b.bin ended"),
            Err(error) => break error,
        }
    };
    assert!(error.kind == Kind::Corrupt && error.message.contains("b.bin"), "{error}");
    let at = one.cursor();
    fs::write(folder.path().join("b.bin"), whole).unwrap();
    assert_eq!(next(&mut one).unwrap().unwrap().at, at);
}

#[test]
fn a_position_in_another_version_is_refused() {
    let (_folder, spec) = dataset();
    let at = v1::DataPosition::from(&start(&spec, 1));
    let other = DatasetSpec { version: spec.version ^ 1, ..spec.clone() };
    let error = share(&other, 0, &start(&other, 1)).cursor(Some(&at)).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    let outside =
        Share::new(spec.clone(), Rank(1), WorldSize(1), 10, Tail::Short, OnDamage::Raise).err().unwrap();
    assert_eq!(outside.kind, Kind::Invalid);
}

#[test]
fn p8_readers_in_turn_take_each_step_once() {
    let (_folder, spec) = dataset();
    let at = start(&spec, 2);
    let share = share(&spec, 1, &at);
    let expected = rest(&mut batches(&spec, 1, at.clone()));
    assert_eq!(expected.len(), 11);
    let mut in_turn: Vec<Batches> =
        (0..3).map(|first| Batches::new(share.clone(), at.skipped(first), 3, first as usize)).collect();
    let taken: Vec<Batch> = (0..11).map(|step| next(&mut in_turn[step % 3]).unwrap().unwrap()).collect();
    assert_eq!(taken, expected);
    in_turn.iter_mut().for_each(|reader| assert_eq!(next(reader).unwrap(), None));
}

#[test]
fn a_batch_that_was_read_ahead_is_tried_again_after_an_error_and_nothing_behind_it_is_lost() {
    let (folder, spec) = dataset();
    let path = folder.path().join("b.bin");
    let whole = fs::read(&path).unwrap();
    let expected = rest(&mut batches(&spec, 0, start(&spec, 1)));
    for depth in 0..6 {
        let at = start(&spec, 1);
        let mut one = Batches::new(share(&spec, 0, &at), at, 1, depth);
        let mut taken = vec![next(&mut one).unwrap().unwrap()];
        fs::write(&path, b"").unwrap();
        while let Ok(batch) = next(&mut one) {
            taken.push(batch.expect("an epoch without b.bin ended"));
        }
        next(&mut one).unwrap_err();
        fs::write(&path, &whole).unwrap();
        taken.extend(rest(&mut one));
        assert_eq!(taken, expected, "with {depth} read ahead");
    }
}

#[test]
fn a_wait_for_a_thread_ends_when_it_is_interrupted() {
    let (_folder, spec) = dataset();
    let pipe = TempDir::new().unwrap();
    let path = pipe.path().join("p");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let mut stuck = spec.clone();
    stuck.files.iter_mut().for_each(|file| file.path.clone_from(&path));
    let at = start(&stuck, 1);
    let mut one = Batches::new(share(&stuck, 0, &at), at.clone(), 1, 1);
    // Opening a pipe waits for its other end: the thread that took the first step on is there until the test is over.
    while !one.is_reading() {
        one.start_threads();
        std::thread::yield_now();
    }
    let error = one.next_batch(|| Err(Error::cancelled("enough"))).unwrap_err();
    assert_eq!(error.kind, Kind::Cancelled);
    assert_eq!(one.cursor(), at, "it is still due");
    drop(one);
    fs::OpenOptions::new().write(true).open(&path).unwrap();
}

#[test]
fn files_found_damaged_are_left_out_where_that_is_asked_for_and_each_missing_sample_is_counted() {
    for depth in 0..4 {
        let (folder, spec) = dataset();
        let at = start(&spec, 1);
        let share =
            Share::new(spec.clone(), Rank(0), WorldSize(1), 10, Tail::Short, OnDamage::Quarantine).unwrap();
        let mut one = Batches::new(Arc::new(share), at, 1, depth);
        let (mut seen, mut missing, mut steps) = (BTreeMap::new(), 0, 0);
        while let Some(batch) = next(&mut one).unwrap() {
            tally(&mut seen, &batch);
            let left_out: u64 = batch.left_out.iter().map(|left_out| left_out.samples).sum();
            let names_it = |text: &str| text.contains("b.bin");
            let told = batch.left_out.iter().map(|left_out| &left_out.file);
            assert!(told.clone().all(|file| names_it(&file.reason) && names_it(file.path.to_str().unwrap())));
            assert_eq!(batch.weight + left_out, batch.positions.end - batch.positions.start);
            assert_eq!(batch.weight as usize, batch.indices.len());
            (missing, steps) = (missing + left_out, steps + 1);
            if steps == 3 {
                fs::write(folder.path().join("b.bin"), b"").unwrap();
            }
        }
        assert_eq!(steps, 11, "no step is left out");
        assert!((0..40).all(|sample| seen.contains_key(&sample)), "a.bin is whole");
        assert!(missing > 0 && seen.len() as u64 + missing == 101 && seen.values().all(|times| *times == 1));
    }
}

#[test]
fn padding_that_is_left_out_does_not_count_as_real() {
    let (folder, spec) = dataset();
    fs::write(folder.path().join("b.bin"), b"").unwrap();
    let share = Share::new(spec.clone(), Rank(0), WorldSize(1), 64, Tail::Pad, OnDamage::Quarantine).unwrap();
    let at = share.cursor(None).unwrap();
    let taken = rest(&mut Batches::new(Arc::new(share), at, 1, 0));
    assert_eq!(taken.iter().map(|batch| batch.weight).sum::<u64>(), 40, "a.bin's samples, each once");
    let all = taken.iter().map(|batch| batch.indices.len() as u64 + batch.left_out[0].samples).sum::<u64>();
    assert_eq!(all, 128);
}

#[test]
fn a_file_that_is_gone_is_no_damage() {
    let (folder, spec) = dataset();
    let at = start(&spec, 1);
    fs::remove_file(folder.path().join("b.bin")).unwrap();
    let share =
        Share::new(spec.clone(), Rank(0), WorldSize(1), 10, Tail::Short, OnDamage::Quarantine).unwrap();
    let error = next(&mut Batches::new(Arc::new(share), at, 1, 0)).unwrap_err();
    assert!(error.kind == Kind::NotFound && error.message.contains("b.bin"), "{error}");
}
