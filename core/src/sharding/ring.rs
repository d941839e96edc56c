//! The consistent-hash ring: which rank a shard would go to if nothing else mattered.
//!
//! Karger et al. 1997, "Consistent Hashing and Random Trees". The ring itself is crate `consistent_hash`; the hash is
//! ours (xxh3 over little-endian bytes), because `std`'s hashes may change with the compiler and a placement must not.
//! [`super::Placement`] balances what the ring proposes; the bare ring is the answer of a client that has no map.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, RingHash, StaticHashRing};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::{Error, Result};
use crate::ids::{Rank, WorldSize};

/// Points of each rank on the ring. The load's deviation falls with 1/√points and the build grows with points; exact
/// quotas remove the deviation afterwards, so more points would only buy fewer corrections (150: 8 % of the shards).
pub const VIRTUAL_NODES: u32 = 150;

/// Virtual nodes that a look-up counts at once. A run holds one to two of them on average.
const WINDOW: usize = 4;

/// Separates the points of ranks from those of shards, which are hashed with their dataset's key.
const RANK_SEED: u64 = u64::from_le_bytes(*b"rank/v1\0");

/// A dataset's id, hashed once, so that a shard costs one short hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetKey(u64);

impl DatasetKey {
    pub fn new(dataset: &str) -> DatasetKey {
        DatasetKey(xxh3_64(dataset.as_bytes()))
    }

    /// Where a shard of this dataset lies on the ring.
    fn point(self, shard: u32) -> u64 {
        xxh3_64_with_seed(&shard.to_le_bytes(), self.0)
    }
}

/// A ring over a set of ranks, flattened for fast look-ups: a point's owner is the first virtual node at or after it.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Ascending.
    ranks: Vec<u32>,
    /// The virtual nodes by ascending point, and a window of the first one again, as if at the end of the ring: past the
    /// last the ring closes. A look-up reads these alone, but for points that agree in their upper half.
    nodes: Vec<VirtualNode>,
    /// Lower halves of their points; none for the window.
    lower: Vec<u32>,
    /// For each run of leading bits, the first virtual node that is not before it: a search becomes a step or two.
    index: Vec<u32>,
    shift: u32,
}

#[derive(Clone, Copy, Debug)]
struct VirtualNode {
    /// Of its point.
    upper: u32,
    /// Which of the ranks it belongs to.
    slot: u32,
}

impl Ring {
    /// A ring over these ranks; their order and repetitions don't matter.
    ///
    /// Fails with Invalid when there is no rank.
    pub fn new(ranks: &[Rank]) -> Result<Ring> {
        if ranks.is_empty() {
            return Err(Error::invalid("building the ring: no ranks")
                .hint("a world has at least one rank; check the declared world size"));
        }
        let mut ranks: Vec<u32> = ranks.iter().map(|rank| rank.0).collect();
        ranks.sort_unstable();
        ranks.dedup();

        let nodes = ranks.iter().enumerate().map(|(slot, rank)| {
            Node::new(u64::from(*rank)).value(slot as u32).quantity(VIRTUAL_NODES as usize)
        });
        let ring = StaticHashRing::new(Points, nodes);
        let mut points: Vec<u64> = ranks
            .iter()
            .flat_map(|rank| (0..VIRTUAL_NODES).map(|number| virtual_node(*rank, number)))
            .collect();
        points.sort_unstable();
        let owner = |point| ring.calc_candidates(&point).next().expect("a ring over at least one rank").value;
        let mut nodes = Vec::with_capacity(points.len() + WINDOW);
        nodes.extend(
            points.iter().map(|point| VirtualNode { upper: (point >> 32) as u32, slot: owner(*point) }),
        );
        nodes.resize(points.len() + WINDOW, VirtualNode { upper: u32::MAX, slot: nodes[0].slot });

        // About two virtual nodes a run: half the memory of one, and still within a cache line.
        let bits = points.len().next_power_of_two().trailing_zeros().saturating_sub(1).max(1);
        let shift = u64::BITS - bits;
        let index = (0..1u64 << bits)
            .map(|run| points.partition_point(|point| *point < run << shift) as u32)
            .collect();
        let lower = points.iter().map(|point| *point as u32).collect();
        Ok(Ring { ranks, nodes, lower, index, shift })
    }

    /// A ring over ranks 0 to `world` - 1. Fails with Invalid when the world is empty.
    pub fn of_world(world: WorldSize) -> Result<Ring> {
        Ring::new(&(0..world.0).map(Rank).collect::<Vec<_>>())
    }

    /// The rank that the bare ring gives this shard to.
    pub fn owner(&self, dataset: DatasetKey, shard: u32) -> Rank {
        Rank(self.ranks[self.slot(dataset, shard) as usize])
    }

    /// As [`Ring::owner`], as an index into [`Ring::ranks`].
    pub(super) fn slot(&self, dataset: DatasetKey, shard: u32) -> u32 {
        let point = dataset.point(shard);
        let upper = (point >> 32) as u32;
        let first = self.index[(point >> self.shift) as usize] as usize;
        // Counted instead of searched: how far to go is chance, and each wrong guess of a branch costs as much as the rest.
        let window = &self.nodes[first..first + WINDOW];
        let before = window.iter().filter(|node| node.upper < upper).count();
        match window.get(before) {
            Some(node) if node.upper > upper => node.slot,
            _ => self.slot_from(first + before, point),
        }
    }

    /// Of a point before which all nodes up to `first` lie, one by one.
    #[cold]
    fn slot_from(&self, first: usize, point: u64) -> u32 {
        let (upper, lower) = ((point >> 32) as u32, point as u32);
        for (node, at) in self.nodes.iter().zip(&self.lower).skip(first) {
            if (node.upper, *at) >= (upper, lower) {
                return node.slot;
            }
        }
        // Past the last virtual node the ring closes.
        self.nodes[0].slot
    }

    /// The ranks on the ring, ascending.
    pub(super) fn ranks(&self) -> &[u32] {
        &self.ranks
    }

    /// Bytes of heap that the ring occupies.
    pub fn heap_bytes(&self) -> usize {
        4 * (self.ranks.capacity() + self.lower.capacity() + self.index.capacity())
            + 8 * self.nodes.capacity()
    }
}

fn virtual_node(rank: u32, number: u32) -> u64 {
    xxh3_64_with_seed(&(u64::from(number) << 32 | u64::from(rank)).to_le_bytes(), RANK_SEED)
}

/// Our hash for the crate: items are points already, virtual nodes are hashed by [`virtual_node`].
struct Points;

impl RingHash for Points {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut point = Verbatim(0);
        item.hash(&mut point);
        point.finish()
    }

    fn hash_vnode<K: Hash>(&self, rank: &K, number: usize) -> u64 {
        virtual_node(self.hash_item(rank) as u32, number as u32)
    }
}

/// Hands a `u64` through unchanged, so that the crate's generic interface can carry a finished hash.
struct Verbatim(u64);

impl Hasher for Verbatim {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line n: the owner of shard n of dataset "imagenet" on the ring of a world of 7.
    const GOLDEN: &str = include_str!("../../tests/samples/sharding/ring-imagenet-7.txt");

    #[test]
    fn ring_gives_what_every_release_before_gave() {
        let ring = Ring::of_world(WorldSize(7)).unwrap();
        let owners: Vec<u32> =
            (0..256).map(|shard| ring.owner(DatasetKey::new("imagenet"), shard).0).collect();
        let golden: Vec<u32> = GOLDEN.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(owners, golden);
    }

    #[test]
    fn flattened_ring_agrees_with_the_crate() {
        for world in [1, 2, 3, 64] {
            let nodes = (0..world).map(|rank| Node::new(u64::from(rank)).quantity(VIRTUAL_NODES as usize));
            let plain = StaticHashRing::new(Points, nodes);
            let ring = Ring::of_world(WorldSize(world)).unwrap();
            let key = DatasetKey::new("d");
            for shard in 0..20_000 {
                let expected = plain.calc_candidates(&key.point(shard)).next().unwrap().key;
                assert_eq!(u64::from(ring.owner(key, shard).0), expected, "world {world}, shard {shard}");
            }
        }
    }

    #[test]
    fn ring_ignores_the_order_of_ranks() {
        let one = Ring::new(&[Rank(5), Rank(1), Rank(9), Rank(1)]).unwrap();
        let other = Ring::new(&[Rank(1), Rank(9), Rank(5)]).unwrap();
        let key = DatasetKey::new("d");
        assert!((0..5_000).all(|shard| one.owner(key, shard) == other.owner(key, shard)));
    }

    #[test]
    fn a_rank_that_leaves_moves_only_its_own_shards() {
        let all = Ring::of_world(WorldSize(20)).unwrap();
        let without: Vec<Rank> = (0..20).filter(|rank| *rank != 13).map(Rank).collect();
        let fewer = Ring::new(&without).unwrap();
        let key = DatasetKey::new("d");
        for shard in 0..20_000 {
            if all.owner(key, shard) != Rank(13) {
                assert_eq!(all.owner(key, shard), fewer.owner(key, shard), "shard {shard}");
            }
        }
    }

    #[test]
    fn empty_world_is_refused() {
        assert_eq!(Ring::of_world(WorldSize(0)).unwrap_err().kind, crate::error::Kind::Invalid);
    }
}
