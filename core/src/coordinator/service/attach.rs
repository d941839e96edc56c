//! A sidecar's line: its reports go to the engine in their order, the engine's commands go down.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::Services;
use crate::coordinator::compat;
use crate::coordinator::engine::{Down, Handle, QUEUE, refusal};
use crate::error::{Error, Result};
use crate::proto::v1::{self, node_report::Report};

/// A line that says no Hello is cut.
const HELLO: Duration = Duration::from_secs(10);

impl Services {
    pub(super) fn attached(
        &self,
        reports: Streaming<v1::NodeReport>,
    ) -> Result<impl Stream<Item = Result<v1::NodeCommand, Status>> + Send + use<>> {
        let (send, receive) = mpsc::channel(QUEUE);
        tokio::spawn(run(self.engine.handle()?, reports, send));
        Ok(ReceiverStream::new(receive).map(|told| told.map(|command| *command)))
    }
}

async fn run(engine: Handle, mut reports: Streaming<v1::NodeReport>, send: Down) {
    let hello = match hello(&mut reports).await {
        Ok(hello) => hello,
        Err(error) => {
            tracing::warn!("refused a sidecar: {}", error.message);
            // The peer may be gone already.
            let _ = send.send(Ok(Box::new(refusal(&error)))).await;
            let _ = send.send(Err(error.into())).await;
            return;
        }
    };
    let node = hello.node.clone();
    let line = send.downgrade();
    let Ok(id) = engine.call(move |engine| Ok(engine.attach(hello, send))).await else { return };
    // The engine holds the only sender: when it drops the line (a newer one, a full queue), so do we.
    while let Some(Ok(report)) = reports.next().await {
        if line.upgrade().is_none() {
            return;
        }
        let node = node.clone();
        engine.post(move |engine| engine.report(&node, id, report));
    }
    engine.post(move |engine| engine.detach(&node, id));
}

async fn hello(reports: &mut Streaming<v1::NodeReport>) -> Result<v1::NodeHello> {
    let first = tokio::time::timeout(HELLO, reports.next())
        .await
        .map_err(|_| Error::timeout("attaching a sidecar: it did not say hello"))?;
    let report = first.and_then(std::result::Result::ok).and_then(|first| first.report);
    let Some(Report::Hello(hello)) = report else {
        return Err(Error::invalid("attaching a sidecar: its first report is no hello"));
    };
    compat::check(&format!("sidecar on {}", hello.host), hello.version.as_ref())?;
    if hello.node.is_empty() || hello.incarnation.is_empty() {
        return Err(Error::invalid("attaching a sidecar: its hello names no node or no incarnation"));
    }
    Ok(hello)
}
