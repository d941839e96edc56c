//! What a sidecar answers its ranks with: each asks for the shards of its epoch, again after every restart of a loader, so the
//! last answer of each rank is kept.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::assignment::Assignment;
use crate::error::Result;
use crate::ids::Rank;
use crate::proto::v1;

/// A map and the last answer to each rank that has asked.
pub struct HeldShards {
    map: Assignment,
    last: Mutex<HashMap<Rank, (u64, Arc<v1::GetShardsReply>)>>,
}

impl HeldShards {
    pub fn new(map: Assignment) -> HeldShards {
        HeldShards { map, last: Mutex::default() }
    }

    /// As [`Assignment::shards`].
    pub fn of(&self, rank: Rank, epoch: u64) -> Result<Arc<v1::GetShardsReply>> {
        if let Some((of, answer)) = self.last.lock().get(&rank)
            && *of == epoch
        {
            return Ok(answer.clone());
        }
        let answer = Arc::new(self.map.shards(rank, epoch)?);
        self.last.lock().insert(rank, (epoch, answer.clone()));
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WorldSize;

    fn map() -> Assignment {
        let spec = v1::DatasetSpec {
            id: "d".into(),
            total_samples: 1_000,
            shard_size: 10,
            shuffle: true,
            version: 3,
            ..Default::default()
        };
        Assignment::new(spec, WorldSize(4)).unwrap()
    }

    #[test]
    fn every_question_gets_the_maps_answer_whatever_was_asked_before() {
        let held = HeldShards::new(map());
        for (rank, epoch) in [(0, 0), (0, 0), (1, 0), (0, 1), (1, 0), (0, 0), (0, 0)] {
            let (rank, expected) = (Rank(rank), map().shards(Rank(rank), epoch).unwrap());
            assert_eq!(*held.of(rank, epoch).unwrap(), expected, "rank {rank}, epoch {epoch}");
        }
        assert!(held.of(Rank(4), 0).is_err());
    }
}
