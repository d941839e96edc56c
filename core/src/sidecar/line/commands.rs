//! What the coordinator pushes down the line.

use std::sync::Arc;

use super::super::node::Node;
use super::super::state::{Meeting, State, Todo};
use crate::error::{Error, Result};
use crate::ids::{ClusterId, Generation, JobName};
use crate::proto::v1::{self, node_command::Command};
use crate::version;

/// An error ends the line.
pub(super) fn obey(node: &Arc<Node>, command: v1::NodeCommand) -> Result<()> {
    match command.command {
        Some(Command::Welcome(welcome)) => return welcomed(node, &welcome),
        Some(Command::Refused(refusal)) => return Err(super::refused(refusal)),
        Some(command) => node.change(|state| take(state, command)),
        // From a newer coordinator.
        None => {}
    }
    Ok(())
}

fn welcomed(node: &Arc<Node>, welcome: &v1::NodeWelcome) -> Result<()> {
    let theirs = welcome.version.as_ref().map(|version| version.version.as_str()).unwrap_or("unknown");
    if !version::work_together(crate::VERSION, theirs) {
        return Err(Error::invalid(format!(
            "sidecar {} can't speak to coordinator {theirs} at {}",
            crate::VERSION,
            node.uplink.url()
        ))
        .hint("run the same version of strata on all nodes"));
    }
    let registers_many = version::has(welcome.version.as_ref(), version::REGISTERS_MANY);
    let cluster: ClusterId = welcome.cluster.parse()?;
    node.metrics.coordinator_attached.set(1);
    node.metrics.coordinator_attaches.inc();
    tracing::info!(coordinator = node.uplink.url(), %cluster, "attached to the coordinator");
    node.change(|state| {
        if state.line.cluster.is_some_and(|known| known != cluster) {
            state.cluster_changed();
        }
        state.line.cluster = Some(cluster);
        state.line.registers_many = registers_many;
        state.line.attached = true;
        let jobs: Vec<JobName> = state.jobs.keys().cloned().collect();
        state.todo.extend(jobs.into_iter().map(Todo::LearnSteps));
    });
    Ok(())
}

fn take(state: &mut State, command: Command) {
    match command {
        Command::GenerationOpened(opened) => state.generation_opened(opened),
        Command::GenerationEnded(ended) => state.generation_ended(ended),
        Command::WriteCommit(order) => state.todo.push(Todo::Publish(order)),
        Command::Step(outcome) => state.step_outcome(outcome),
        Command::Barrier(released) => barrier_released(state, released),
        Command::StepQuery(query) => state.step_query(&query),
        Command::StepAgreed(agreed) => state.step_agreed(&agreed),
        Command::RemoveStep(order) => state.todo.push(Todo::Remove(order)),
        Command::Target(order) => state.todo.push(Todo::Target(order)),
        Command::Stack(order) => state.todo.push(Todo::Stack(order)),
        Command::Config(changed) => {
            if let (Ok(job), Some(config)) = (changed.job.parse::<JobName>(), changed.config) {
                state.job(&job).configured(config);
            }
        }
        Command::Welcome(_) | Command::Refused(_) => unreachable!("handled before"),
    }
}

fn barrier_released(state: &mut State, released: v1::BarrierReleased) {
    let Ok(job) = released.job.parse::<JobName>() else { return };
    let generation = Generation(released.generation);
    state.barriers.release(&Meeting { job, generation, name: released.name, round: released.round });
}
