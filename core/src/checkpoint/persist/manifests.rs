//! One manifest per rank: what its state is, and where each chunk of it lies.

use super::{At, InPack, Work};
use crate::checkpoint::parallel::each;
use crate::checkpoint::store::Place;
use crate::checkpoint::{Durable, PersistRequest, RankSlot};
use crate::error::Result;
use crate::format::{chunks, manifest, paths};
use crate::proto::format::{Manifest, Pack};
use crate::storage::Created;

pub fn write(
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
        let (At::Stored(encoding, _) | At::Known(encoding)) = at else {
            unreachable!("an original is stored, or in a base, itself")
        };
        if let At::Stored(_, bytes) = own {
            stored += bytes.next_multiple_of(chunks::ALIGNMENT);
        }
        let encoding = encoding.clone().map(|pack| match pack {
            InPack::New(number) => named.number(&packs[number].path, packs[number].bytes),
            InPack::Old((path, bytes)) => named.number(&path, bytes),
        });
        table.push(encoding.into_chunk(work.span, *sum));
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
    fn number(&mut self, path: &str, bytes: u64) -> u32 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.packs.len() as u32;
        self.packs.push(Pack { path: path.to_owned(), bytes });
        self.numbers.insert(path.to_owned(), number);
        number
    }
}
