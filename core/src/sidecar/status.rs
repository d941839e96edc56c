//! How this node stands, for /readyz, `/api/v1/status` and `strata status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::node::Node;
use super::state::{Session, Stage, State};
use crate::ids::JobName;
use crate::proto::v1;

/// Each condition of being usable, and what is wrong with it.
pub(super) fn checks(node: &Arc<Node>) -> Vec<(&'static str, Option<String>)> {
    let line = node.read(line_down);
    let socket =
        (!node.settings.socket.exists()).then(|| format!("{} is gone", node.settings.socket.display()));
    let arenas = access(&node.settings.arenas, Access::WRITE_OK | Access::EXEC_OK)
        .err()
        .map(|errno| format!("{}: {errno}", node.settings.arenas.display()));
    let draining = node.read(|state| state.draining).then(|| "this sidecar is being stopped".to_owned());
    vec![
        ("socket served", socket),
        ("coordinator reached", line),
        ("arenas writable", arenas),
        ("taking saves", draining),
    ]
}

/// Why the line to the coordinator is not up, if it isn't.
fn line_down(state: &State) -> Option<String> {
    let why = || state.line.problem.as_ref().map_or("not attached yet".to_owned(), |e| e.message.clone());
    (!state.line.attached).then(why)
}

pub(super) fn status(node: &Arc<Node>) -> v1::Status {
    node.read(|state| {
        let own = v1::NodeStatus {
            node: state.node.clone(),
            host: node.settings.host.clone(),
            attached: state.line.attached,
            silent_ms: 0,
            version: crate::VERSION.to_owned(),
            problem: line_down(state).unwrap_or_default(),
        };
        v1::Status {
            version: Some(crate::version::ours()),
            role: "sidecar".to_owned(),
            cluster: state.line.cluster.map(|cluster| cluster.to_string()).unwrap_or_default(),
            uptime_ms: state.now().saturating_sub(node.started).as_millis() as u64,
            nodes: vec![own],
            jobs: state.jobs.keys().map(|job| job_status(state, job)).collect(),
            coordinators: Vec::new(),
        }
    })
}

fn job_status(state: &State, name: &JobName) -> v1::JobStatus {
    let job = &state.jobs[name];
    let members = state.sessions.values().filter(|session| session.record.job == *name);
    let open = job.open.as_ref();
    let last_warning = state
        .saves
        .iter()
        .filter(|(id, _)| id.job == *name)
        .find_map(|(_, save)| save.last_error.as_ref().map(|error| error.message.clone()));
    v1::JobStatus {
        job: name.to_string(),
        job_uuid: job.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
        store: job.store.clone().unwrap_or_default(),
        generation: open.map_or(0, |open| open.generation),
        world_size: open.map_or(0, |open| open.world_size),
        ranks: members.map(|session| rank_status(state, session)).collect(),
        missing_ranks: Vec::new(),
        pending: pending(state, name),
        latest_step: job
            .committed
            .iter()
            .rev()
            .find(|(_, base)| base.kind.holds_whole_state())
            .map(|(s, _)| s.0),
        committed_steps: job.committed.len() as u32,
        last_warning: last_warning.unwrap_or_default(),
        // The coordinator's to say.
        targets: Vec::new(),
    }
}

fn rank_status(state: &State, session: &Session) -> v1::RankStatus {
    let record = &session.record;
    let standing = match () {
        () if session.record.closed => "left",
        () if session.fenced.is_some() => "lost",
        () if session.events.is_none() => "suspect",
        () if record.generation.is_none() => "joining",
        () => "live",
    };
    v1::RankStatus {
        rank: record.rank.0,
        host: String::new(),
        node: state.node.clone(),
        state: standing.to_owned(),
        progress: session.progress(),
        // The coordinator's to say, which sees the other ranks too.
        stack: None,
    }
}

fn pending(state: &State, job: &JobName) -> Vec<v1::PendingStep> {
    let mut steps = BTreeMap::new();
    for (id, save) in state.saves.iter().filter(|(id, _)| id.job == *job) {
        let ranks = |wanted: fn(&Stage) -> bool| -> Vec<u32> {
            save.parts.iter().filter(|(_, part)| wanted(&part.stage)).map(|(rank, _)| rank.0).collect()
        };
        let step = v1::PendingStep {
            step: id.step.0,
            generation: id.generation.0,
            sealed: ranks(|stage| matches!(stage, Stage::Sealed { .. })),
            durable: ranks(|stage| matches!(stage, Stage::Durable(_))),
            missing: ranks(|stage| !matches!(stage, Stage::Durable(_))),
        };
        steps.insert(id.clone(), step);
    }
    steps.into_values().collect()
}
