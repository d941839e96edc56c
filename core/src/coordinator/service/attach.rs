//! A sidecar's line: its reports go to the engine in their order, the engine's commands go down.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::Services;
use crate::coordinator::compat;
use crate::coordinator::engine::{AttachId, Down, Handle, QUEUE, refusal};
use crate::error::{Error, Result};
use crate::proto::v1::{self, node_report::Report};

/// A line that says no Hello is cut.
const HELLO: Duration = Duration::from_secs(10);

/// Reports of one line that wait for the engine: it sends four a second, and a few of each save.
const UNREAD: usize = 64;

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
    let is_held = move || line.upgrade().is_some();
    if carry(&engine, &node, id, reports, is_held).await {
        engine.post(move |engine| engine.detach(&node, id));
    }
}

/// Takes reports no faster than the engine does: who sends faster finds the line full. False when the line is held no more.
async fn carry(
    engine: &Handle,
    node: &str,
    id: AttachId,
    mut reports: impl Stream<Item = Result<v1::NodeReport, Status>> + Unpin,
    is_held: impl Fn() -> bool,
) -> bool {
    let room = Arc::new(Semaphore::new(UNREAD));
    while let Some(Ok(report)) = reports.next().await {
        let Ok(place) = room.clone().acquire_owned().await else { unreachable!("nobody closes it") };
        if !is_held() {
            return false;
        }
        let node = node.to_owned();
        engine.post(move |engine| {
            engine.report(&node, id, report);
            drop(place);
        });
    }
    true
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// RAM is bounded: a sidecar that sends faster than the disk writes waits.
    #[tokio::test]
    async fn a_line_takes_no_more_reports_than_the_engine_reads() {
        let (engine, mut inbox) = Handle::new();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let reports = tokio_stream::iter(0..10_000).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(v1::NodeReport::default())
        });
        let line = tokio::spawn(async move { carry(&engine, "n", 1, reports, || true).await });
        let settled = async |expected: usize| {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(taken.load(Ordering::Relaxed), expected);
        };
        // The one that waits for room has been taken off the line.
        settled(UNREAD + 1).await;
        for read in 1..=10 {
            drop(inbox.recv().await);
            settled(UNREAD + 1 + read).await;
        }
        while inbox.recv().await.is_some() {}
        assert!(line.await.unwrap());
        assert_eq!(taken.load(Ordering::Relaxed), 10_000);
    }
}
