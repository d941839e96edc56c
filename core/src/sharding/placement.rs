//! Which rank holds which shard: the ring proposes, exact quotas decide, previous owners keep theirs up to quota.
//!
//! No two ranks differ by more than one shard, and a change moves exactly as many shards as that balance requires.
//! Bounded loads on a ring are from Mirrokni et al. 2018, "Consistent Hashing with Bounded Loads"; here the bound is
//! tight (floor or ceiling) and the spill goes to whoever has room, since the map is kept and need not be derived anew.

use serde::{Deserialize, Serialize};

use super::order::Order;
use super::ring::{DatasetKey, Ring};
use crate::error::{Error, Result};
use crate::ids::Rank;

/// The map of one dataset: a pure function of (previous map, ranks of the world, dataset id, shard count). It never
/// depends on the order in which ranks registered. 8 bytes a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Record", into = "Record")]
pub struct Placement {
    /// Ascending.
    ranks: Vec<u32>,
    /// By shard: an index into `ranks`.
    slots: Vec<u32>,
    /// By index into `ranks`, and one more: where its shards begin in `held`.
    starts: Vec<u32>,
    /// Shards by rank, ascending within each.
    held: Vec<u32>,
}

/// One shard that changes hands; `from` is `None` for a shard whose owner is gone from the world or that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub shard: u32,
    pub from: Option<Rank>,
    pub to: Rank,
}

const NOBODY: u32 = u32::MAX;

impl Placement {
    /// The map for the ranks on `ring`. With `previous`, shards stay where they are as far as balance allows, and only
    /// those that move are looked up on the ring.
    pub fn new(previous: Option<&Placement>, ring: &Ring, dataset: DatasetKey, shards: u32) -> Placement {
        let ranks = ring.ranks().to_vec();
        let mut slots = match previous {
            Some(previous) => previous.kept(&ranks, shards),
            None => vec![NOBODY; shards as usize],
        };
        let (mut load, mut demand) = (vec![0; ranks.len()], vec![0; ranks.len()]);
        let mut orphans = Vec::new();
        for (shard, slot) in (0..).zip(&slots) {
            match load.get_mut(*slot as usize) {
                Some(load) => *load += 1,
                None => {
                    let proposal = ring.slot(dataset, shard);
                    demand[proposal as usize] += 1;
                    orphans.push(proposal);
                }
            }
        }
        let quota = quotas(&load, &demand, shards);

        // What somebody holds beyond the quota, or nobody holds, goes where the ring says if there is room.
        let (mut orphans, mut rest) = (orphans.into_iter(), Vec::new());
        for (shard, slot) in (0..).zip(&mut slots) {
            let from = *slot as usize;
            let to = match load.get(from) {
                Some(held) if *held <= quota[from] => continue,
                Some(_) => ring.slot(dataset, shard) as usize,
                None => orphans.next().expect("one for each shard that nobody holds") as usize,
            };
            if load[to] >= quota[to] {
                rest.push(shard);
                continue;
            }
            if let Some(load) = load.get_mut(from) {
                *load -= 1;
            }
            load[to] += 1;
            *slot = to as u32;
        }
        // The rest fills the remaining room in the order of ranks.
        let mut to = 0;
        for shard in rest {
            let slot: &mut u32 = &mut slots[shard as usize];
            if let Some(held) = load.get_mut(*slot as usize) {
                if *held <= quota[*slot as usize] {
                    continue;
                }
                *held -= 1;
            }
            while load[to] >= quota[to] {
                to += 1;
            }
            load[to] += 1;
            *slot = to as u32;
        }
        Placement::index(ranks, slots, &load)
    }

    /// The rank that holds this shard, or `None` beyond the last shard.
    pub fn owner(&self, shard: u32) -> Option<Rank> {
        self.slots.get(shard as usize).map(|slot| Rank(self.ranks[*slot as usize]))
    }

    /// The shards of this rank, ascending; empty for a rank outside the world.
    pub fn shards_of(&self, rank: Rank) -> &[u32] {
        match self.ranks.binary_search(&rank.0) {
            Ok(slot) => &self.held[self.starts[slot] as usize..self.starts[slot + 1] as usize],
            Err(_) => &[],
        }
    }

    /// The shards of this rank in the order in which `order`'s epoch reaches them (ascending where it doesn't
    /// shuffle). Ownership is the same in every epoch, so what a node has cached stays useful.
    pub fn epoch_shards(&self, rank: Rank, order: &Order) -> Vec<u32> {
        let mut shards = self.shards_of(rank).to_vec();
        shards.sort_by_cached_key(|shard| order.place_of_shard(u64::from(*shard)));
        shards
    }

    pub fn shards(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The ranks of the world, ascending.
    pub fn ranks(&self) -> impl ExactSizeIterator<Item = Rank> + '_ {
        self.ranks.iter().copied().map(Rank)
    }

    /// What changes hands on the way from `self` to `next`, by ascending shard: the difference a generation sends.
    pub fn moves(&self, next: &Placement) -> Vec<Move> {
        let moved = |shard| {
            let (from, to) = (self.owner(shard), next.owner(shard)?);
            let from = from.filter(|from| *from == to || next.ranks.binary_search(&from.0).is_ok());
            (from != Some(to)).then_some(Move { shard, from, to })
        };
        (0..next.shards()).filter_map(moved).collect()
    }

    /// Bytes of heap that the map occupies.
    pub fn heap_bytes(&self) -> usize {
        4 * (self.ranks.capacity() + self.slots.capacity() + self.starts.capacity() + self.held.capacity())
    }

    /// Owners as indices into `ranks`, with nobody for ranks that are gone and for shards that are new.
    fn kept(&self, ranks: &[u32], shards: u32) -> Vec<u32> {
        let now: Vec<u32> = self
            .ranks
            .iter()
            .map(|rank| ranks.binary_search(rank).map_or(NOBODY, |slot| slot as u32))
            .collect();
        let mut slots: Vec<u32> =
            self.slots.iter().take(shards as usize).map(|slot| now[*slot as usize]).collect();
        slots.resize(shards as usize, NOBODY);
        slots
    }

    /// Sorts shards by rank (counting sort, so ascending within each); `load` is how many each has.
    fn index(ranks: Vec<u32>, slots: Vec<u32>, load: &[u32]) -> Placement {
        let mut starts = Vec::with_capacity(ranks.len() + 1);
        let mut begin = 0;
        starts.push(begin);
        for load in load {
            begin += load;
            starts.push(begin);
        }
        let mut next = starts.clone();
        let mut held = vec![0; slots.len()];
        for (shard, slot) in (0..).zip(&slots) {
            let place = &mut next[*slot as usize];
            held[*place as usize] = shard;
            *place += 1;
        }
        Placement { ranks, slots, starts, held }
    }
}

/// Floor of the mean for everybody, and one more for as many ranks as the remainder says: first for those that hold
/// more than the floor already (each saves a move), then for those the ring proposes most of the shards for that nobody
/// holds.
fn quotas(load: &[u32], demand: &[u32], shards: u32) -> Vec<u32> {
    let ranks = load.len() as u32;
    let floor = shards / ranks;
    let mut by_claim: Vec<usize> = (0..load.len()).collect();
    by_claim.sort_by_key(|slot| std::cmp::Reverse((load[*slot] > floor, demand[*slot])));
    let mut quota = vec![floor; load.len()];
    for slot in by_claim.into_iter().take((shards % ranks) as usize) {
        quota[slot] += 1;
    }
    quota
}

/// What is stored of a map: the rest is derived.
#[derive(Serialize, Deserialize)]
struct Record {
    ranks: Vec<u32>,
    slots: Vec<u32>,
}

impl From<Placement> for Record {
    fn from(placement: Placement) -> Record {
        Record { ranks: placement.ranks, slots: placement.slots }
    }
}

impl TryFrom<Record> for Placement {
    type Error = Error;

    fn try_from(record: Record) -> Result<Placement> {
        let ascending = record.ranks.is_sorted_by(|a, b| a < b);
        let mut load = vec![0; record.ranks.len()];
        let known = record.slots.iter().all(|slot| match load.get_mut(*slot as usize) {
            Some(load) => {
                *load += 1;
                true
            }
            None => false,
        });
        if !ascending || !known {
            return Err(Error::corrupt("reading a placement: it names ranks outside its world"));
        }
        Ok(Placement::index(record.ranks, record.slots, &load))
    }
}

#[cfg(test)]
mod tests;
