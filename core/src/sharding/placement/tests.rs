use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;
use crate::ids::WorldSize;

fn key() -> DatasetKey {
    DatasetKey::new("d")
}

fn ring(ranks: impl IntoIterator<Item = u32>) -> Ring {
    Ring::new(&ranks.into_iter().map(Rank).collect::<Vec<_>>()).unwrap()
}

fn fresh(world: u32, shards: u32) -> Placement {
    Placement::new(None, &Ring::of_world(WorldSize(world)).unwrap(), key(), shards)
}

fn loads(placement: &Placement) -> Vec<u32> {
    placement.ranks().map(|rank| placement.shards_of(rank).len() as u32).collect()
}

fn assert_balanced(placement: &Placement) {
    let loads = loads(placement);
    let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
    assert!(most - least <= 1, "loads {least} to {most}");
    assert_eq!(loads.iter().sum::<u32>(), placement.shards());
    for rank in placement.ranks() {
        assert!(placement.shards_of(rank).is_sorted());
        assert!(placement.shards_of(rank).iter().all(|shard| placement.owner(*shard) == Some(rank)));
    }
}

/// The fewest moves that any exactly balanced map needs, from first principles: all orphans move; of those who
/// stay, everything beyond the floor moves, except one shard for each of as many ranks as may hold one more.
fn fewest_moves(previous: &Placement, ranks: &[u32], shards: u32) -> u32 {
    let floor = shards / ranks.len() as u32;
    let extra = shards % ranks.len() as u32;
    let held: Vec<u32> = ranks
        .iter()
        .map(|rank| previous.shards_of(Rank(*rank)).iter().filter(|shard| **shard < shards).count() as u32)
        .collect();
    let above: u32 = held.iter().map(|held| held.saturating_sub(floor)).sum();
    let spared = extra.min(held.iter().filter(|held| **held > floor).count() as u32);
    shards - held.iter().sum::<u32>() + above - spared
}

proptest! {
    // A ring of 40 ranks is slow to build without optimisation.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_chain_of_changes_stays_balanced_and_moves_no_more_than_needed(
        shards in 0u32..3_000,
        worlds in proptest::collection::vec(btree_set(0u32..60, 1..40), 1..6),
    ) {
        let mut previous: Option<Placement> = None;
        for world in worlds {
            let ranks: Vec<u32> = world.into_iter().collect();
            let ring = ring(ranks.iter().copied());
            let next = Placement::new(previous.as_ref(), &ring, key(), shards);
            assert_balanced(&next);
            prop_assert_eq!(&next, &Placement::new(previous.as_ref(), &ring, key(), shards));
            if let Some(previous) = previous {
                let moved = previous.moves(&next).len() as u32;
                prop_assert_eq!(moved, fewest_moves(&previous, &ranks, shards));
            }
            previous = Some(next);
        }
    }

    #[test]
    fn a_change_of_shard_count_moves_no_more_than_needed(world in 1u32..40, before in 0u32..2_000, after in 0u32..2_000) {
        let previous = fresh(world, before);
        let next = Placement::new(Some(&previous), &ring(0..world), key(), after);
        assert_balanced(&next);
        let ranks: Vec<u32> = (0..world).collect();
        prop_assert_eq!(previous.moves(&next).len() as u32, fewest_moves(&previous, &ranks, after));
    }
}

#[test]
fn one_of_a_hundred_workers_moves_one_percent() {
    let before = fresh(100, 10_000);
    let fewer = Placement::new(Some(&before), &ring((0..100).filter(|rank| *rank != 42)), key(), 10_000);
    let moves = before.moves(&fewer);
    assert_eq!(moves.len(), 100);
    assert!(moves.iter().all(|one| before.owner(one.shard) == Some(Rank(42)) && one.from.is_none()));

    let more = Placement::new(Some(&before), &ring(0..101), key(), 10_000);
    let moves = before.moves(&more);
    assert_eq!(moves.len(), 99);
    assert!(moves.iter().all(|one| one.to == Rank(100) && one.from == before.owner(one.shard)));
}

#[test]
fn most_shards_go_where_the_ring_says() {
    let ring = ring(0..100);
    let placement = Placement::new(None, &ring, key(), 10_000);
    let agreed =
        (0..10_000).filter(|shard| placement.owner(*shard) == Some(ring.owner(key(), *shard))).count();
    assert!(agreed > 8_500, "{agreed} of 10,000");
}

#[test]
fn same_world_again_moves_nothing() {
    let before = fresh(7, 1_003);
    let again = Placement::new(Some(&before), &ring(0..7), key(), 1_003);
    assert_eq!(before, again);
}

#[test]
fn more_ranks_than_shards_leaves_ranks_empty_not_shards() {
    let placement = fresh(10, 3);
    assert_balanced(&placement);
    assert_eq!(placement.owner(3), None);
    assert!(placement.shards_of(Rank(10)).is_empty());
}

#[test]
fn an_epoch_holds_every_shard_once_and_reorders_only_within_ranks() {
    let placement = fresh(8, 129);
    let order = |shuffle, epoch| Order::new(1, 7, epoch, 129 * 10 - 3, 10, shuffle);
    let all = |epoch| -> Vec<Vec<u32>> {
        placement.ranks().map(|rank| placement.epoch_shards(rank, &order(true, epoch))).collect()
    };
    let mut seen: Vec<u32> = all(0).concat();
    seen.sort_unstable();
    assert_eq!(seen, (0..129).collect::<Vec<_>>());
    assert_eq!(all(3), all(3));
    assert_ne!(all(3), all(4));
    for rank in placement.ranks() {
        assert_eq!(placement.epoch_shards(rank, &order(false, 5)), placement.shards_of(rank));
        let places = |shard: &u32| order(true, 5).place_of_shard(u64::from(*shard));
        assert!(placement.epoch_shards(rank, &order(true, 5)).is_sorted_by_key(places));
    }
}

#[test]
fn a_thousand_ranks_fit_in_a_megabyte() {
    assert!(fresh(1_000, 100_000).heap_bytes() <= 1 << 20);
}

#[test]
fn a_stored_map_reads_back_and_a_damaged_one_is_refused() {
    let placement = fresh(5, 33);
    let text = serde_json::to_string(&placement).unwrap();
    assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), placement);
    assert!(serde_json::from_str::<Placement>(r#"{"ranks":[0,1],"slots":[0,2]}"#).is_err());
    assert!(serde_json::from_str::<Placement>(r#"{"ranks":[1,0],"slots":[0,1]}"#).is_err());
}
