//! The line to the coordinator: attached, kept alive with frames, made anew when it breaks. Everything that the
//! coordinator must not miss is announced again on every new one.
//! Called by the sidecar's start alone. Takes no decision: pushes change the state, reports come from it.

mod commands;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::node::Node;
use crate::error::{Error, Result};
use crate::proto::v1::{self, node_report::Report};

/// Silence of six frames makes a member suspect.
const FRAME: Duration = Duration::from_millis(250);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Reports that wait on a line; beyond that the coordinator does not read, and the line is cut.
const QUEUE: usize = 16 << 10;
/// A coordinator that takes the stream and says nothing is tried again.
const WELCOME: Duration = Duration::from_secs(5);

pub(super) async fn run(node: Arc<Node>) {
    // The tries go on every second; each reason is worth one line until a line has stood.
    let mut told = String::new();
    loop {
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(LAST_RETRY)
            .without_max_times()
            .with_jitter()
            .build();
        // Until one stood: then the waits begin again.
        loop {
            let (stood, error) = attach(&node).await;
            node.metrics.coordinator_attached.set(0);
            if stood {
                tracing::warn!("the line to the coordinator is down: {}", error.message);
                told.clear();
            } else if error.message != told {
                told.clone_from(&error.message);
                let hint = error.hint.as_deref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
                tracing::warn!("not attached yet, tried again: {}{hint}", error.message);
            }
            node.change(|state| state.line.down(error));
            tokio::time::sleep(waits.next().unwrap_or(LAST_RETRY)).await;
            if stood {
                break;
            }
        }
    }
}

/// One life of the line: whether the coordinator welcomed us, and how it ended.
async fn attach(node: &Arc<Node>) -> (bool, Error) {
    let (queue, reports) = mpsc::channel(QUEUE);
    node.change(|state| state.line_up(queue, &node.incarnation, &node.settings));
    let from = node.uplink.at();
    let gone = |status: &Status| {
        node.uplink.turn(from, status);
        node.uplink.away(status)
    };
    // Whoever is silent may be the one that has lost its set.
    let silent = || {
        node.uplink.turn(from, &Status::unavailable("silent"));
        silent(node)
    };
    let mut coordinator = node.uplink.coordinator();
    let opened = coordinator.attach(ReceiverStream::new(reports));
    let mut commands = match tokio::time::timeout(WELCOME, opened).await {
        Ok(Ok(commands)) => commands.into_inner(),
        Ok(Err(status)) => return (false, gone(&status)),
        Err(_) => return (false, silent()),
    };
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut sequence, started) = (0, tokio::time::Instant::now());
    loop {
        let stands = node.read(|state| state.line.attached);
        tokio::select! {
            biased;
            command = commands.message() => match command {
                Ok(Some(command)) => {
                    if let Err(error) = commands::obey(node, command) {
                        return (false, error);
                    }
                }
                Ok(None) => return (stands, Error::unavailable("the coordinator ended the line")),
                Err(status) => return (stands, gone(&status)),
            },
            _ = frames.tick() => {
                sequence += 1;
                if let Err(error) = beat(node, sequence) {
                    return (stands, error);
                }
                if !stands && started.elapsed() > WELCOME {
                    return (false, silent());
                }
            }
        }
    }
}

fn beat(node: &Arc<Node>, sequence: u64) -> Result<()> {
    node.change(|state| {
        let frame = state.frame(sequence);
        state.line.report(Report::Frame(frame));
        match state.line.has_queue() {
            true => Ok(()),
            false => {
                Err(state.line.problem.clone().unwrap_or_else(|| Error::unavailable("the line was cut")))
            }
        }
    })
}

fn silent(node: &Node) -> Error {
    Error::unavailable(format!("the coordinator at {} takes the line and says nothing", node.uplink.url()))
}

/// A refusal in the coordinator's own words.
fn refused(refusal: v1::NodeRefused) -> Error {
    let kind = crate::error::Kind::from_name(&refusal.kind).unwrap_or(crate::error::Kind::Internal);
    let error = Error::new(kind, format!("attaching to the coordinator: {}", refusal.reason));
    if refusal.hint.is_empty() { error } else { error.hint(refusal.hint) }
}
