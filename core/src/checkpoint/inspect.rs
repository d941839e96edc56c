//! What a step holds, from COMMIT and manifests alone.

use std::collections::BTreeSet;

use super::objects::read_manifests;
use super::store::Place;
use super::{Inspection, TensorInfo, commits};
use crate::error::Result;
use crate::ids::{Rank, Step};

pub fn inspect(place: &Place, step: Step) -> Result<Inspection> {
    let commit = commits::commit(place, step)?;
    let mut told = BTreeSet::new();
    let mut tensors = Vec::new();
    for manifest in read_manifests(place, &commit.record)? {
        for tensor in manifest.tensors {
            if tensor.replicated && !told.insert(tensor.name.clone()) {
                continue;
            }
            tensors.push(TensorInfo {
                rank: Rank(manifest.rank),
                name: tensor.name,
                dtype: tensor.dtype,
                shape: tensor.shape,
                bytes: tensor.bytes,
                replicated: tensor.replicated,
            });
        }
    }
    Ok(Inspection { commit, tensors })
}
