//! Maps that were asked for, so that the engine need not be asked again: a hop to its task and back costs a third of an empty
//! call. A map stands as long as the coordinator has accepted no command since: no generation, no dataset has changed then.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::data::Assignment;
use crate::proto::v1;

/// A job asks for few datasets, its ranks all for the same.
const KEPT: usize = 64;

#[derive(Default)]
pub struct Assignments {
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Commands that had been accepted when the maps were asked for.
    accepted: u64,
    /// The question, for whatever rank and epoch.
    maps: Vec<(v1::GetShardsRequest, Arc<Assignment>)>,
}

impl Assignments {
    /// The answer to this question, if nothing has been accepted since it was asked.
    pub fn of(&self, request: &v1::GetShardsRequest, accepted: u64) -> Option<Arc<Assignment>> {
        let kept = self.kept.read();
        let maps = if kept.accepted == accepted { kept.maps.as_slice() } else { &[] };
        maps.iter().find(|(asked, _)| is_same(asked, request)).map(|(_, map)| map.clone())
    }

    pub fn keep(&self, request: v1::GetShardsRequest, accepted: u64, map: Arc<Assignment>) {
        let mut kept = self.kept.write();
        if kept.accepted != accepted || kept.maps.len() >= KEPT {
            *kept = Kept { accepted, maps: Vec::new() };
        }
        if !kept.maps.iter().any(|(asked, _)| is_same(asked, &request)) {
            kept.maps.push((request, map));
        }
    }
}

fn is_same(one: &v1::GetShardsRequest, other: &v1::GetShardsRequest) -> bool {
    (one.generation, one.world_size) == (other.generation, other.world_size)
        && one.dataset == other.dataset
        && one.job == other.job
}
