//! Calls to the sidecar that survive its restart: a call cut off by a broken connection is made again once the session
//! has been taken up. Every call of the service may be repeated.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::state::{Link, State};
use crate::error::{Error, Result};
use crate::proto::v1::sidecar_client::SidecarClient;
use crate::transport::is_broken;

/// The listener sees the same break a moment later or earlier than the call.
const SETTLE: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(super) struct Caller {
    pub channel: Channel,
    pub state: watch::Sender<State>,
}

impl Caller {
    /// Calls with the session's number; Fenced (or why the session ended) as soon as that is known.
    pub async fn call<T, F, Made>(&self, make: F) -> Result<T>
    where
        F: Fn(SidecarClient<Channel>, u64) -> Made,
        Made: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(|session| make(SidecarClient::new(self.channel.clone()), session)).await
    }

    /// The same for the other services of the socket.
    pub async fn repeat<T, F, Made>(&self, make: F) -> Result<T>
    where
        F: Fn(u64) -> Made,
        Made: Future<Output = Result<Response<T>, Status>>,
    {
        loop {
            let session = self.link_up().await?;
            let status = tokio::select! {
                biased;
                outcome = make(session) => match outcome {
                    Ok(reply) => return Ok(reply.into_inner()),
                    Err(status) => status,
                },
                error = self.ended() => return Err(error),
            };
            if !is_broken(&status) {
                return Err(status.into());
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn link_up(&self) -> Result<u64> {
        let mut changes = self.state.subscribe();
        let known = changes.wait_for(|state| state.ended().is_some() || matches!(state.link, Link::Up)).await;
        let state = known.expect("the sender lives in self");
        state.ended().map_or(Ok(state.welcome.session), Err)
    }

    async fn ended(&self) -> Error {
        let mut changes = self.state.subscribe();
        let state =
            changes.wait_for(|state| state.ended().is_some()).await.expect("the sender lives in self");
        state.ended().expect("just waited for")
    }
}
