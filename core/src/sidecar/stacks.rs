//! What a rank of this node is doing: its Python stack as it tells it itself, and what the kernel says of its process.
//!
//! The trainer's own threads take the stack, none of them Python's: they answer also while the interpreter is held up in
//! C code. So no process is signalled from here, and no file of a user is read.

use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::process::{ProcessId, Stands};
use super::state::{Answer, Found};
use crate::proto::v1::{self, node_report::Report};
use crate::text::printable;

/// A trainer takes 3 s at most.
const ANSWER: Duration = Duration::from_secs(5);
const LONGEST: usize = 64 << 10;

/// Answers the coordinator in any case.
pub(super) async fn take(node: Arc<Node>, order: v1::TakeStack) {
    let stack = describe(&node, &order).await;
    let taken = v1::StackTaken { request: order.request, stack: Some(stack) };
    node.change(|state| state.line.report(Report::Stack(taken)));
}

async fn describe(node: &Arc<Node>, order: &v1::TakeStack) -> v1::RankStack {
    let Some(found) = node.read(|state| state.session_of(&order.job, order.rank)) else {
        let missing = "its sidecar knows no process of it".to_owned();
        return v1::RankStack { rank: order.rank, missing, ..Default::default() };
    };
    let answer = ask(node, &found, order.request).await;
    let stands = found.process.and_then(|process| process.stands());
    let waits = stands.filter(|stands| matches!(stands, Stands::Sleeping | Stands::Uninterruptible));
    let waits_in = waits.and(found.process).and_then(|process| process.waits_in());
    let (stack, missing) = match answer {
        Ok(stack) => (printable(&stack, LONGEST), String::new()),
        Err(missing) => (String::new(), printable(&missing, LONGEST)),
    };
    v1::RankStack {
        rank: order.rank,
        host: node.settings.host.clone(),
        process: stands.map(|stands| stands.to_string()).unwrap_or_default(),
        waits_in: waits_in.unwrap_or_default(),
        stack,
        missing,
    }
}

async fn ask(node: &Arc<Node>, found: &Found, request: u64) -> Answer {
    // Not even its stream would be read.
    if let Some(why) = found.process.and_then(stopped) {
        return Err(why);
    }
    let id = found.session;
    node.change(|state| state.ask_stack(id, request))?;
    let answered = node.wait(|state| state.take_stack(id, request));
    if let Ok(answer) = tokio::time::timeout(ANSWER, answered).await {
        return answer;
    }
    node.change(|state| state.give_up_stack(id, request));
    Err(found.process.and_then(stopped).unwrap_or_else(|| format!("it did not answer within {ANSWER:?}")))
}

fn stopped(process: ProcessId) -> Option<String> {
    match process.stands()? {
        Stands::Stopped => Some("its process is stopped (SIGSTOP); SIGCONT lets it go on".to_owned()),
        Stands::Traced => Some("its process is stopped by a debugger".to_owned()),
        Stands::Ended => Some("its process has ended".to_owned()),
        Stands::Running | Stands::Sleeping | Stands::Uninterruptible => None,
    }
}
