//! Making sealed slots durable: cut into chunks, sum, refer to equal bytes where there are some, write the rest into
//! packs, then write one manifest per rank.
//!
//! Who stores replicated tensors: over all nodes each of them is stored by one ([`NodeShare`](super::NodeShare)), from
//! the slot of a rank that staged it. A manifest lists a rank's whole state, and chunks only for what its node stored
//! from that rank's slot. A reader that finds no chunks for a replicated tensor takes them from the manifest of another
//! rank of the same COMMIT, which lists the tensor by the same name.

mod bases;
mod dedupe;
mod packs;

use std::sync::atomic::{AtomicBool, Ordering};

use self::bases::Bases;
use self::dedupe::{Met, Originals};
use self::packs::PackSet;
use super::parallel::each;
use super::store::Place;
use super::{Durable, PersistRequest, RankSlot};
use crate::error::{Doing, Error, Result};
use crate::format::{Span, chunks, manifest, paths};
use crate::ids::Rank;
use crate::proto::format::{Chunk, Manifest, Pack, Tensor};
use crate::storage::{Created, Piece, crc32c};

/// What a writer may hold for bytes that do not lie as the device wants them.
const WRITER_BYTES: u64 = 1 << 20;

/// A chunk of one rank's slot, by the rank's place in the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub slot: usize,
    pub span: Span,
}

/// Where a chunk's bytes are.
#[derive(Clone, Debug)]
pub(super) enum At {
    Stored {
        pack: usize,
        offset: u64,
    },
    /// In a pack of an older step.
    Base {
        pack: Pack,
        offset: u64,
    },
    /// The same as the chunk of this number.
    Same(usize),
}

pub fn persist(place: &Place, request: &PersistRequest, stop: &AtomicBool) -> Result<Vec<Durable>> {
    let lowest = check(request)?;
    let work = plan(request)?;
    let bases = Bases::load(place, request)?;
    let nonce: u32 = rand::random();
    let at_most = work.iter().map(|work| work.span.bytes.next_multiple_of(chunks::ALIGNMENT)).sum();
    let packs = PackSet::new(place, |number| paths::pack(&request.attempt, lowest, nonce, number), at_most);
    let originals = Originals::default();
    let numbered = work.iter().copied().enumerate().collect();
    let placed: Vec<(u32, At)> = each(place.threads, numbered, |(number, work)| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::cancelled("nobody waits for it any more"));
        }
        let slot = &request.ranks[work.slot];
        let bytes = slot.data.slice(work.span.offset as usize..(work.span.offset + work.span.bytes) as usize);
        let sum = crc32c(&bytes);
        if let Some((pack, offset)) = bases.find(place, slot, &bytes, sum)? {
            return Ok((sum, At::Base { pack, offset }));
        }
        if let Met::Before(original) = originals.meet(sum, number, &bytes) {
            return Ok((sum, At::Same(original)));
        }
        let _room = place.buffers.take(WRITER_BYTES);
        let (pack, offset) = packs.append(Piece { bytes, crc32c: sum })?;
        Ok((sum, At::Stored { pack, offset }))
    })
    .doing(|| format!("rank {lowest} and those with it"))?;
    let packs = packs.finish()?;
    let durable = write_manifests(place, request, nonce, &work, &placed, &packs);
    if durable.is_err() {
        take_back(place, request, nonce, &packs);
    }
    durable
}

/// What nobody will ever name: a disk without room for the manifests would otherwise fill up with packs, one try after
/// the other. What can't be deleted now goes with the attempt's folder.
fn take_back(place: &Place, request: &PersistRequest, nonce: u32, packs: &[Pack]) {
    let manifests = request.ranks.iter().map(|slot| paths::manifest(&request.attempt, slot.rank, nonce));
    let written: Vec<String> = packs.iter().map(|pack| pack.path.clone()).chain(manifests).collect();
    if let Err(error) = place.objects.delete(&written) {
        tracing::warn!(%error, attempt = %request.attempt, "leaving objects of a failed persist behind");
    }
}

/// The lowest rank. Internal for a slot that holds something else than the attempt says.
fn check(request: &PersistRequest) -> Result<Rank> {
    for slot in &request.ranks {
        if slot.index.rank != slot.rank.0 || slot.index.step != request.attempt.step.0 {
            return Err(Error::internal(format!(
                "the slot given for rank {} holds step {} of rank {}",
                slot.rank, slot.index.step, slot.index.rank
            )));
        }
    }
    let lowest = request.ranks.iter().map(|slot| slot.rank).min();
    lowest.ok_or_else(|| Error::internal("no rank was given"))
}

/// The chunks of all slots that this node stores. Invalid for slots that break the layout; Internal when this node
/// should store a replicated tensor that no rank of it staged: its bytes would be nowhere.
fn plan(request: &PersistRequest) -> Result<Vec<Work>> {
    let mut work = Vec::new();
    for (number, slot) in request.ranks.iter().enumerate() {
        let mine = request.replicated.of(&slot.index.tensors);
        let runs = chunks::runs(&slot.index.tensors, slot.data.len() as u64)
            .doing(|| format!("reading the layout of rank {}", slot.rank))?;
        for run in runs.iter().filter(|run| !run.replicated || mine[run.tensors[0]]) {
            work.extend(run.spans().map(|span| Work { slot: number, span }));
        }
        let lost =
            (0..mine.len()).find(|&number| mine[number] && !is_staged(request, &slot.index.tensors[number]));
        if let Some(lost) = lost {
            return Err(Error::internal(format!(
                "the replicated tensor {:?} is this node's to store, and no rank of it holds its bytes",
                slot.index.tensors[lost].name
            )));
        }
    }
    Ok(work)
}

fn is_staged(request: &PersistRequest, tensor: &Tensor) -> bool {
    let same = |other: &Tensor| other.staged && other.replicated && other.name == tensor.name;
    tensor.staged || tensor.bytes == 0 || request.ranks.iter().any(|slot| slot.index.tensors.iter().any(same))
}

fn write_manifests(
    place: &Place,
    request: &PersistRequest,
    nonce: u32,
    work: &[Work],
    placed: &[(u32, At)],
    packs: &[Pack],
) -> Result<Vec<Durable>> {
    let ranks: Vec<(usize, &RankSlot)> = request.ranks.iter().enumerate().collect();
    each(place.threads, ranks, |(number, slot)| {
        let (manifest, stored_bytes) = manifest_of(request, number, slot, work, placed, packs);
        let path = paths::manifest(&request.attempt, slot.rank, nonce);
        let encoded = manifest::encode(&manifest);
        let bytes = encoded.bytes.len() as u64;
        // Exists: an answer that got lost and a repeated request, for the name is this persist's own.
        let (Created::New | Created::Exists) = place.objects.create(&path, encoded.bytes.into())?;
        Ok(Durable {
            rank: slot.rank,
            manifest_path: path,
            blake3: encoded.blake3,
            bytes,
            state_bytes: manifest.state_bytes,
            stored_bytes,
        })
    })
}

/// A rank's manifest, and the pack bytes newly written from its slot.
fn manifest_of(
    request: &PersistRequest,
    number: usize,
    slot: &RankSlot,
    work: &[Work],
    placed: &[(u32, At)],
    packs: &[Pack],
) -> (Manifest, u64) {
    let mut named = NamedPacks::default();
    let mut stored = 0;
    let mut table = Vec::new();
    for (work, (sum, own)) in work.iter().zip(placed).filter(|(work, _)| work.slot == number) {
        let at = match own {
            At::Same(original) => &placed[*original].1,
            other => other,
        };
        let (pack, pack_offset) = match at {
            At::Stored { pack, offset } => (named.number(&packs[*pack]), *offset),
            At::Base { pack, offset } => (named.number(pack), *offset),
            At::Same(_) => unreachable!("an original is stored, or in a base, itself"),
        };
        if matches!(own, At::Stored { .. }) {
            stored += work.span.bytes.next_multiple_of(chunks::ALIGNMENT);
        }
        let Span { offset, bytes } = work.span;
        table.push(Chunk { slot_offset: offset, bytes, pack, pack_offset, crc32c: *sum });
    }
    table.sort_by_key(|chunk| chunk.slot_offset);
    let index = &slot.index;
    let manifest = Manifest {
        job_uuid: request.attempt.job_uuid.to_string(),
        step: request.attempt.step.0,
        generation: request.attempt.generation.0,
        rank: slot.rank.0,
        world_size: request.world_size.0,
        kind: index.kind,
        tree: index.tree.clone(),
        tensors: index.tensors.clone(),
        packs: named.packs,
        chunks: table,
        state_bytes: index.tensors.iter().map(|tensor| tensor.bytes).sum(),
        slot_bytes: slot.data.len() as u64,
    };
    (manifest, stored)
}

/// The packs of one manifest, in the order in which its chunks first name them.
#[derive(Default)]
struct NamedPacks {
    packs: Vec<Pack>,
    numbers: std::collections::HashMap<String, u32>,
}

impl NamedPacks {
    fn number(&mut self, pack: &Pack) -> u32 {
        if let Some(number) = self.numbers.get(&pack.path) {
            return *number;
        }
        let number = self.packs.len() as u32;
        self.packs.push(pack.clone());
        self.numbers.insert(pack.path.clone(), number);
        number
    }
}
