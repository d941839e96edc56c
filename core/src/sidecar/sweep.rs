//! Arenas that nobody needs any more: removed at once when their job was closed or a larger file took their place,
//! after `arena_ttl` when their trainers are gone. What has not reached the store stays.

use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::records;
use super::state::{Fate, State, Todo, Use};
use super::sums::Sums;
use crate::ids::JobName;
use crate::telemetry::SlotLabels;

const EVERY: Duration = Duration::from_secs(30);
const STATES: [&str; 5] = ["free", "filling", "sealed", "persisting", "clean"];

pub(super) async fn run(node: Arc<Node>) {
    loop {
        once(&node);
        tokio::time::sleep(EVERY).await;
    }
}

pub(super) fn once(node: &Arc<Node>) {
    let ttl = node.settings.arena_ttl;
    node.metrics.persist_buffer_bytes.set(node.stores.buffers_in_use() as i64);
    // What it removes asks for another sweep: that would go on for ever.
    node.change(|state| {
        sweep(state, ttl);
        count(state);
        state.todo.retain(|todo| !matches!(todo, Todo::Sweep));
    });
}

fn sweep(state: &mut State, ttl: Duration) {
    state.forget_idle_sessions();
    let now = state.now();
    let mut going = Vec::new();
    for (id, entry) in &mut state.arenas.by_id {
        let writer = entry.writer.and_then(|writer| state.sessions.get(&writer));
        if writer.is_some_and(|session| session.is_vouched_for()) {
            entry.idle_since = now;
        }
        let over = entry.fate == Fate::Going || now.saturating_sub(entry.idle_since) >= ttl;
        if over && !entry.is_needed() {
            going.push(*id);
        }
    }
    for id in going {
        let Some(entry) = state.arenas.by_id.remove(&id) else { continue };
        for slot in &entry.slots {
            Sums::remove(&slot.slot);
        }
        if let Err(error) = entry.arena.remove() {
            tracing::error!("{error}");
            continue;
        }
        // A trainer may still be in the middle of a copy into one that was given up.
        for slot in entry.slots.iter().filter(|slot| !matches!(slot.used, Use::Vacated(_))) {
            if let Err(error) = slot.slot.discard() {
                tracing::warn!("{error}");
            }
        }
        forget_job(state, &entry.arena.identity().job.clone(), entry.uid);
    }
}

/// With the last arena and session of a job goes its record.
fn forget_job(state: &mut State, job: &JobName, uid: u32) {
    let used = state.arenas.by_id.values().any(|entry| entry.arena.identity().job == *job)
        || state.sessions.values().any(|session| session.record.job == *job)
        || state.saves.keys().any(|save| save.job == *job);
    if used {
        return;
    }
    if let Some(folder) = state.folders.get(&uid)
        && let Err(error) = records::remove_job(folder, job)
    {
        tracing::error!("{error}");
    }
}

fn count(state: &State) {
    let metrics = &state.metrics;
    let slots = || state.arenas.by_id.values().flat_map(|entry| &entry.slots);
    for label in STATES {
        let number = slots().filter(|slot| slot.used.name() == label).count();
        metrics.slots.get_or_create(&SlotLabels { state: label }).set(number as i64);
    }
    metrics.slot_leases.set(slots().map(|slot| i64::from(slot.leases)).sum());
    state.count_sessions();
    let bytes: u64 = state.arenas.by_id.values().map(|entry| entry.arena.file_bytes()).sum();
    metrics.arena_bytes.set(bytes as i64);
}
