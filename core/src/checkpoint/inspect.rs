//! What a step holds, where each byte of it lies, and what changed since the step before: from COMMITs and manifests alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::objects::read_manifests;
use super::restore::covering;
use super::store::Place;
use super::types::{EncodingInfo, Piece, Run};
use super::{Inspection, TensorInfo, commits};
use crate::error::{Error, Result};
use crate::format::encoding::{Encoding, Stored, Whole};
use crate::format::paths;
use crate::ids::{Rank, Step};
use crate::proto::format::{Chunk, Manifest, Tensor};

pub fn inspect(place: &Place, step: Step) -> Result<Inspection> {
    let commit = commits::commit(place, step)?;
    let manifests = read_manifests(place, &commit.record)?;
    let before = step_before(place, step)?;
    let known = before.as_ref().map(|(_, manifests)| Known::of(manifests));
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut told: HashMap<String, usize> = HashMap::new();
    for manifest in &manifests {
        for tensor in &manifest.tensors {
            let pieces = pieces(manifest, tensor)?;
            if let Some(&first) = tensor.replicated.then(|| told.get(&tensor.name)).flatten() {
                // The rank that lists it may not be the one whose node stored it.
                if tensors[first].pieces.is_empty() {
                    tensors[first].changed = known.as_ref().and_then(|known| known.changed(manifest, tensor));
                    tensors[first].pieces = pieces;
                }
                continue;
            }
            if tensor.replicated {
                told.insert(tensor.name.clone(), tensors.len());
            }
            tensors.push(TensorInfo {
                rank: Rank(manifest.rank),
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
                bytes: tensor.bytes,
                replicated: tensor.replicated,
                changed: known.as_ref().and_then(|known| known.changed(manifest, tensor)),
                pieces,
            });
        }
    }
    let own = paths::attempt_folder(commit.record.step, commit.record.generation);
    let encodings = encodings(&manifests, &own)?;
    Ok(Inspection { commit, tensors, before: before.map(|(step, _)| step), encodings })
}

/// None when there is none, or it can't be read: what changed since is not known then.
fn step_before(place: &Place, step: Step) -> Result<Option<(Step, Vec<Manifest>)>> {
    let folders = place.objects.folders(paths::STEPS)?;
    let numbers = folders.iter().filter_map(|folder| folder.parse::<u64>().ok());
    let Some(number) = numbers.filter(|number| *number < step.0).max() else { return Ok(None) };
    let read = commits::commit(place, Step(number)).and_then(|commit| read_manifests(place, &commit.record));
    Ok(match read {
        Ok(manifests) => Some((Step(number), manifests)),
        Err(error) => {
            tracing::warn!("what changed since step {number} is not told: {error}");
            None
        }
    })
}

fn encoding(chunk: &Chunk) -> Result<Encoding<u32>> {
    Encoding::of(chunk)
        .map_err(|why| Error::corrupt(format!("reading the chunk at {}: {why}", chunk.slot_offset)))
}

fn name_of(encoding: &Encoding<u32>) -> &'static str {
    match encoding {
        Encoding::Whole(Whole { planes: None, .. }) => "raw",
        Encoding::Whole(_) => "planes",
        Encoding::Difference { .. } => "delta",
        Encoding::Rounded { .. } => "rounded",
    }
}

fn run(manifest: &Manifest, stored: &Stored<u32>) -> Result<Run> {
    let pack = manifest.packs.get(stored.pack as usize).ok_or_else(|| {
        Error::corrupt(format!(
            "a chunk lies in pack {}, of which there are {}",
            stored.pack,
            manifest.packs.len()
        ))
    })?;
    Ok(Run { object: pack.path.clone(), offset: stored.offset, bytes: stored.bytes })
}

/// Where a tensor's bytes lie; empty where another manifest has them.
fn pieces(manifest: &Manifest, tensor: &Tensor) -> Result<Vec<Piece>> {
    let chunks = covering(manifest, tensor).unwrap_or(0..0);
    let piece = |chunk: &Chunk| {
        let start = tensor.offset.max(chunk.slot_offset);
        let end = (tensor.offset + tensor.bytes).min(chunk.slot_offset + chunk.bytes);
        let encoding = encoding(chunk)?;
        let (stored, base) = match &encoding {
            // As they are: these very bytes.
            Encoding::Whole(Whole { stored, planes: None, .. }) => {
                let skip = start - chunk.slot_offset;
                let run = run(manifest, stored)?;
                (Some(Run { offset: run.offset + skip, bytes: end - start, ..run }), None)
            }
            Encoding::Whole(whole) => (Some(run(manifest, &whole.stored)?), None),
            Encoding::Difference { stored, base, .. } => {
                (Some(run(manifest, stored)?), Some(run(manifest, &base.stored)?))
            }
            Encoding::Rounded { .. } => (None, None),
        };
        Ok(Piece {
            at: start - tensor.offset,
            bytes: end - start,
            encoding: name_of(&encoding),
            stored,
            base,
        })
    };
    manifest.chunks[chunks].iter().map(piece).collect()
}

/// The chunks of a step, by rank and by where they begin in a tensor.
struct Known<'a> {
    own: HashMap<(u32, &'a str), (&'a Manifest, &'a Tensor)>,
    replicated: HashMap<&'a str, (&'a Manifest, &'a Tensor)>,
}

impl<'a> Known<'a> {
    fn of(manifests: &'a [Manifest]) -> Known<'a> {
        let mut known = Known { own: HashMap::new(), replicated: HashMap::new() };
        for manifest in manifests {
            for tensor in manifest.tensors.iter().filter(|tensor| covering(manifest, tensor).is_some()) {
                known.own.insert((manifest.rank, &tensor.name), (manifest, tensor));
                if tensor.replicated {
                    known.replicated.entry(&tensor.name).or_insert((manifest, tensor));
                }
            }
        }
        known
    }

    /// How many of a tensor's bytes lie in chunks that the step before did not hold; all, where it had no such tensor. A
    /// chunk is held where one of the same place and length has the same CRC32C, as every chunk has that refers to it (one
    /// that differs escapes notice once in 2^32 times: this tells, and decides nothing). Small tensors share chunks, and
    /// change together. None where this manifest does not say where the tensor lies.
    fn changed(&self, manifest: &Manifest, tensor: &Tensor) -> Option<u64> {
        let chunks = covering(manifest, tensor)?;
        let same = |(_, before): &&(&Manifest, &Tensor)| {
            (&before.dtype, &before.shape, before.bytes) == (&tensor.dtype, &tensor.shape, tensor.bytes)
        };
        let own = self.own.get(&(manifest.rank, tensor.name.as_str())).filter(same);
        let shared = || self.replicated.get(tensor.name.as_str()).filter(|_| tensor.replicated).filter(same);
        let Some((before, there)) = own.or_else(shared) else { return Some(tensor.bytes) };
        let held: HashSet<_> = before.chunks[covering(before, there)?]
            .iter()
            .map(|chunk| (chunk.slot_offset.wrapping_sub(there.offset), chunk.bytes, chunk.crc32c))
            .collect();
        let is_new = |chunk: &&Chunk| {
            !held.contains(&(chunk.slot_offset.wrapping_sub(tensor.offset), chunk.bytes, chunk.crc32c))
        };
        let bytes = |chunk: &Chunk| {
            let start = tensor.offset.max(chunk.slot_offset);
            (tensor.offset + tensor.bytes).min(chunk.slot_offset + chunk.bytes) - start
        };
        Some(manifest.chunks[chunks].iter().filter(is_new).map(bytes).sum())
    }
}

/// Each stored run counts once, whoever refers to it. `own`: the folder of what this step wrote.
fn encodings(manifests: &[Manifest], own: &str) -> Result<Vec<EncodingInfo>> {
    let mut found: BTreeMap<&'static str, EncodingInfo> = BTreeMap::new();
    let mut seen = HashSet::new();
    for manifest in manifests {
        for chunk in &manifest.chunks {
            let encoding = encoding(chunk)?;
            let encoding_name = name_of(&encoding);
            let entry = found.entry(encoding_name).or_insert_with(|| EncodingInfo::new(encoding_name));
            entry.state_bytes += chunk.bytes;
            let stored = match &encoding {
                Encoding::Whole(whole) => &whole.stored,
                Encoding::Difference { stored, .. } => stored,
                Encoding::Rounded { .. } => continue,
            };
            let run = run(manifest, stored)?;
            if !seen.insert((run.object.clone(), run.offset)) {
                continue;
            }
            entry.stored_bytes += run.bytes;
            if !run.object.starts_with(own) {
                entry.older_bytes += run.bytes;
            }
        }
    }
    Ok(found.into_values().collect())
}
