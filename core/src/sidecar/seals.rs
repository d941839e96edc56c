//! Seals that nobody tells: a fenced trainer is refused, but what it was copying may be the last part of a step that the
//! next generation adopts. Its slot's header says when it is sealed.

use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::state::{SaveId, Stage, State};
use crate::ids::{Generation, JobName, Rank};

const LOOK: Duration = Duration::from_millis(50);
/// A copy of a whole node's memory takes less; after that the coordinator has decided anyway.
const FOR: Duration = Duration::from_secs(30);

pub(super) async fn await_seals(node: Arc<Node>, job: JobName, generation: Generation) {
    let until = tokio::time::Instant::now() + FOR;
    while tokio::time::Instant::now() < until {
        let open = node.read(|state| filling(state, &job, generation));
        if open.is_empty() {
            return;
        }
        let sealed = node.read(|state| open.iter().any(|(id, rank)| state.is_sealed(id, *rank)));
        if sealed {
            node.change(|state| {
                for (id, rank) in &open {
                    if let Err(error) = state.note_sealed(id, *rank) {
                        tracing::error!("looking for a seal: {error}");
                    }
                }
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn filling(state: &State, job: &JobName, generation: Generation) -> Vec<(SaveId, Rank)> {
    let saves = state.saves.iter().filter(|(id, _)| id.job == *job && id.generation == generation);
    let parts = saves.flat_map(|(id, save)| save.parts.iter().map(move |(rank, part)| (id, *rank, part)));
    parts
        .filter(|(.., part)| matches!(part.stage, Stage::Filling))
        .map(|(id, rank, _)| (id.clone(), rank))
        .collect()
}
