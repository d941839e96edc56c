//! Ending well: nothing new is taken, what is Sealed is brought to its COMMIT.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::node::Node;
use super::state::{Save, State};
use crate::proto::v1::{self, node_report::Report};

const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub(super) async fn drain(node: &Arc<Node>, limit: Duration) -> Vec<String> {
    node.change(|state| {
        state.draining = true;
        state.note_all_sealed();
        state.line.report(Report::Draining(v1::Draining {}));
    });
    let settled = node.wait(|state| nothing_held(state).then_some(()));
    match timeout(limit, settled).await {
        Ok(()) => Vec::new(),
        Err(_) => node.change(|state| {
            state.note_all_sealed();
            only_in_memory(state)
        }),
    }
}

pub(super) async fn deserted(node: &Arc<Node>, first: Duration) {
    let came = node.wait(|state| (!state.sessions.is_empty()).then_some(()));
    if timeout(first, came).await.is_err() && !first.is_zero() {
        tracing::info!("no trainer came within {first:?}");
    }
    let empty = |state: &mut State| {
        let gone =
            !state.sessions.values().any(|session| session.is_vouched_for() || session.events.is_some());
        (gone && state.leaving == 0 && state.recent_deaths().is_empty() && nothing_held(state)).then_some(())
    };
    // A death that the coordinator never answers is forgotten by time alone, which wakes nobody.
    while timeout(LOOK_AGAIN, node.wait(empty)).await.is_err() {}
}

fn nothing_held(state: &mut State) -> bool {
    !state.saves.values().any(Save::is_held)
}

fn only_in_memory(state: &State) -> Vec<String> {
    let held: BTreeSet<String> = state
        .saves
        .iter()
        .filter(|(_, save)| save.is_only_in_memory())
        .map(|(id, save)| {
            let ranks: Vec<String> = save.parts.keys().map(|rank| rank.to_string()).collect();
            let why = save.last_error.as_ref().map_or(String::new(), |error| format!(": {}", error.message));
            format!("{id} (rank {}){why}", ranks.join(", "))
        })
        .collect();
    held.into_iter().collect()
}
