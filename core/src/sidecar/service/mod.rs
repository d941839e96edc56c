//! The gRPC faces on the node's socket: arguments in, the state or a task asked, answers out. No decision is taken here.

mod forward;
mod server;
mod session;
mod sidecar;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Status};

pub(super) use server::{READY, serve};

use super::node::Node;
use super::peer::Peer;
use crate::error::{Error, Result};
use crate::ids::SessionId;

#[derive(Clone)]
pub(super) struct Services {
    pub node: Arc<Node>,
}

impl Services {
    fn peer<T>(&self, request: &Request<T>) -> Result<Peer> {
        request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(|| Error::internal("serving a call: its connection has no peer"))
    }

    /// The session that a call names, if it is its caller's.
    fn session<T>(&self, request: &Request<T>, session: u64) -> Result<SessionId, Status> {
        let peer = self.peer(request)?;
        Ok(self.node.read(|state| state.session(session, peer.uid).map(|session| session.record.id))?)
    }

    /// The same for one that may have said goodbye.
    fn reader<T>(&self, request: &Request<T>, session: u64) -> Result<SessionId, Status> {
        let peer = self.peer(request)?;
        Ok(self.node.read(|state| state.reader(session, peer.uid).map(|session| session.record.id))?)
    }

    /// The same for a call that only a member whose generation lives may make (P6).
    fn member<T>(&self, request: &Request<T>, session: u64) -> Result<SessionId, Status> {
        let peer = self.peer(request)?;
        Ok(self.node.read(|state| state.member(session, peer.uid).map(|session| session.record.id))?)
    }

    fn deadline(&self, session: SessionId, milliseconds: u64) -> Instant {
        let given = match milliseconds {
            0 => self.node.read(|state| {
                let job = state.sessions.get(&session).and_then(|known| state.jobs.get(&known.record.job));
                job.map_or(Duration::from_secs(300), |job| job.timeout())
            }),
            given => Duration::from_millis(given),
        };
        Instant::now() + given
    }
}
