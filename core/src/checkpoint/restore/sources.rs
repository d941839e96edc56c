//! Where the chunks of each tensor are: in the rank's own manifest, or for a replicated tensor in that of the rank whose
//! node stored it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::super::objects::read_manifest;
use super::super::parallel::each;
use super::super::store::Place;
use crate::error::{Error, Result};
use crate::format::{CommitRecord, RankManifest, manifest};
use crate::ids::Rank;
use crate::proto::format::{Manifest, Tensor};

/// A tensor of the rank's own manifest, and the chunks that hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// In the rank's own manifest.
    pub tensor: usize,
    /// Which manifest has its chunks.
    pub manifest: usize,
    /// Its number there.
    pub there: usize,
    pub chunks: Range<usize>,
}

/// The manifests read so far; the rank's own is the first.
pub struct Sources<'a> {
    place: &'a Place,
    record: &'a CommitRecord,
    manifests: Vec<Manifest>,
    /// Not read yet, the most promising last.
    unread: Vec<&'a RankManifest>,
}

impl<'a> Sources<'a> {
    /// Reads `rank`'s manifest. Corrupt when it is damaged or missing.
    pub fn open(place: &'a Place, record: &'a CommitRecord, rank: Rank) -> Result<Sources<'a>> {
        let own = record.ranks.iter().find(|named| named.rank == rank);
        let own = own.ok_or_else(|| Error::internal(format!("COMMIT names no manifest of rank {rank}")))?;
        let manifests = vec![read_manifest(place, record, own)?];
        let mut unread = by_promise(record);
        unread.retain(|named| named.rank != rank);
        unread.reverse();
        Ok(Sources { place, record, manifests, unread })
    }

    pub fn primary(&self) -> &Manifest {
        &self.manifests[0]
    }

    pub fn into_manifests(self) -> Vec<Manifest> {
        self.manifests
    }

    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// Reads further manifests until every selected tensor is found. Corrupt, naming the tensor, when one is nowhere.
    pub fn locate(&mut self, selected: &[usize]) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut missing: Vec<usize> = selected.to_vec();
        let mut looked_at = 0;
        loop {
            for number in looked_at..self.manifests.len() {
                missing = self.look_in(number, missing, &mut found);
            }
            looked_at = self.manifests.len();
            let Some(&first) = missing.first() else { break };
            let private = missing.iter().find(|&&number| !self.primary().tensors[number].replicated);
            if self.unread.is_empty() || private.is_some() {
                let name = &self.primary().tensors[*private.unwrap_or(&first)].name;
                return Err(Error::corrupt(format!(
                    "no manifest of step {} holds the bytes of tensor {name:?}",
                    self.record.step
                )));
            }
            let next = self.unread.split_off(self.unread.len().saturating_sub(self.place.threads));
            let next = next.into_iter().rev().collect();
            let read = each(self.place.threads, next, |named| read_manifest(self.place, self.record, named))?;
            self.manifests.extend(read);
        }
        found.sort_by_key(|found: &Found| found.tensor);
        Ok(found)
    }

    /// Takes what manifest `number` holds; what is still missing.
    fn look_in(&self, number: usize, wanted: Vec<usize>, found: &mut Vec<Found>) -> Vec<usize> {
        let (own, manifest) = (self.primary(), &self.manifests[number]);
        let names: HashMap<&str, usize> = match number {
            0 => HashMap::new(),
            _ => manifest.tensors.iter().enumerate().map(|(at, tensor)| (tensor.name.as_str(), at)).collect(),
        };
        let mut missing = Vec::new();
        for tensor in wanted {
            let there = match number {
                0 => Some(tensor),
                _ => names
                    .get(own.tensors[tensor].name.as_str())
                    .copied()
                    .filter(|&there| is_same(&own.tensors[tensor], &manifest.tensors[there])),
            };
            match there.and_then(|there| Some((there, covering(manifest, &manifest.tensors[there])?))) {
                Some((there, chunks)) => found.push(Found { tensor, manifest: number, there, chunks }),
                None => missing.push(tensor),
            }
        }
        missing
    }
}

/// Ranks of one node share the hex digits of their names, and its lowest rank most likely staged the node's replicated
/// tensors: first one of each node, then the rest. Only an order: all are read if need be.
fn by_promise(record: &CommitRecord) -> Vec<&RankManifest> {
    let node = |named: &RankManifest| named.path.rsplit('.').nth(1).unwrap_or_default().to_owned();
    let mut seen = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) = record.ranks.iter().partition(|named| seen.insert(node(named)));
    first.into_iter().chain(rest).collect()
}

fn is_same(own: &Tensor, other: &Tensor) -> bool {
    own.replicated
        && other.replicated
        && (&own.dtype, &own.shape, own.bytes) == (&other.dtype, &other.shape, other.bytes)
}

/// The chunks that hold all of a tensor's bytes, without a gap; None when they are not all there. Empty for an empty
/// tensor.
pub fn covering(manifest: &Manifest, tensor: &Tensor) -> Option<Range<usize>> {
    if tensor.bytes == 0 {
        return Some(0..0);
    }
    if !tensor.staged {
        return None;
    }
    manifest::covering(manifest, &(tensor.offset..tensor.offset + tensor.bytes))
}

/// Whether every tensor of every rank can be restored from these manifests, which are all of the step. Corrupt, naming
/// the first that can't.
pub fn check_whole(record: &CommitRecord, manifests: &[Manifest]) -> Result<()> {
    let mut replicated: HashMap<&str, Vec<&Tensor>> = HashMap::new();
    for manifest in manifests {
        for tensor in manifest.tensors.iter().filter(|tensor| tensor.replicated) {
            if covering(manifest, tensor).is_some() {
                replicated.entry(&tensor.name).or_default().push(tensor);
            }
        }
    }
    for manifest in manifests {
        for tensor in &manifest.tensors {
            let elsewhere = || {
                let others = replicated.get(tensor.name.as_str());
                others.is_some_and(|others| others.iter().any(|other| is_same(tensor, other)))
            };
            if covering(manifest, tensor).is_none() && !elsewhere() {
                return Err(Error::corrupt(format!(
                    "no manifest of step {} holds the bytes of rank {}'s tensor {:?}",
                    record.step, manifest.rank, tensor.name
                )));
            }
        }
    }
    Ok(())
}
