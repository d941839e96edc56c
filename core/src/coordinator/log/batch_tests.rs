use super::super::tests::notify;
use super::*;
use crate::coordinator::log::record;
use crate::coordinator::state::{Command, State};

fn batch(life: u64, index: u64, count: u64) -> Vec<u8> {
    let commands: Vec<Command> = (0..count).map(|number| notify(index + number)).collect();
    let mut bytes = vec![7; 100];
    encode::<State>(life, index, &commands, &mut bytes);
    bytes
}

fn walked(bytes: &[u8], life: u64, index: u64) -> (Vec<u64>, Option<Gap>) {
    let mut walk = Walk::new(bytes, life, index);
    let found = walk.by_ref().map(|batch| batch.index).collect();
    (found, walk.gap())
}

/// `format:` what this build writes, every later one must read.
const GOLDEN: &[u8] = include_bytes!("../golden/batch-v1.bin");

#[test]
fn batch_is_written_as_it_was() {
    assert_eq!(batch(3, 17, 2), GOLDEN);
    let read = Batch::decode(GOLDEN).unwrap();
    assert_eq!((read.life, read.index, read.count, read.bytes()), (3, 17, 2, GOLDEN.len()));
    let lines: Vec<(u64, Command)> =
        read.lines().map(|(at, line)| (at, record::decode(at, line).unwrap())).collect();
    assert_eq!(lines, [(17, notify(17)), (18, notify(18))]);
}

#[test]
fn batch_with_any_byte_changed_or_missing_is_none() {
    let whole = batch(1, 5, 3);
    let summed = Batch::decode(&whole).unwrap().records.len() + HEADER;
    for at in 0..summed {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert_eq!(Batch::decode(&damaged), None, "byte {at}");
        assert_eq!(Batch::decode(&whole[..at]), None, "cut at {at}");
    }
    assert!(Batch::decode(&whole[..summed]).is_some(), "padding is no part of it");
}

#[test]
fn what_lies_behind_the_end_is_stale_or_proves_damage() {
    let zeros = vec![0; 4096];
    let good = [batch(2, 10, 1), batch(2, 11, 4), batch(2, 15, 2)].concat();
    assert_eq!(walked(&[&good[..], &zeros].concat(), 2, 10), (vec![10, 11, 15], None));
    // Of the same life before its newest snapshot, and of one before.
    for stale in [batch(2, 3, 1), batch(1, 17, 1), batch(1, 40, 1)] {
        assert_eq!(walked(&[&good[..], &stale, &zeros].concat(), 2, 10), (vec![10, 11, 15], None));
    }
    let (first, second) = (batch(2, 10, 1).len(), batch(2, 11, 4).len());
    for at in first..first + second {
        let mut damaged = [&good[..], &zeros].concat();
        let before = damaged[at];
        damaged[at] = 0xa5;
        let gap = Gap { bad: first, good: first + second, index: 15 };
        let padding = Batch::decode(&good[first..]).unwrap().records.len() + HEADER;
        let harmless = before == 0xa5 || at - first >= padding;
        assert_eq!(walked(&damaged, 2, 10).1, (!harmless).then_some(gap), "byte {at}");
    }
    // The last one damaged is a torn one.
    let mut torn = good.clone();
    torn[first + second + 20] ^= 1;
    assert_eq!(walked(&torn, 2, 10), (vec![10, 11], None));
}

#[test]
fn magic_is_in_no_record() {
    assert!(std::str::from_utf8(&MAGIC[..1]).is_err() && std::str::from_utf8(&MAGIC[3..]).is_err());
    let nested = String::from_utf8_lossy(&batch(2, 11, 1)).into_owned();
    let mut bytes = Vec::new();
    encode::<State>(2, 10, &[super::super::tests::notify_of(1, nested)], &mut bytes);
    bytes[20] ^= 1;
    assert_eq!(walked(&bytes, 2, 10), (vec![], None), "text that looks like a batch is none");
}
