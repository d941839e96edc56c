//! The lease on a restored slot, and its way back.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tonic::transport::Channel;

use super::call::Caller;
use super::runtime;
use super::session::Inner;
use crate::error::{Error, Kind};
use crate::proto::v1;
use crate::proto::v1::sidecar_client::SidecarClient;

/// A lease that outlives its session is given back to whichever sidecar answers, within a minute.
const TRIES: u32 = 60;
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is asked whether a session whose line is down still lives.
const LOOK_UP: Duration = Duration::from_secs(30);

/// Dropped, it is given back in the background, also after the session's end. The sidecar drops what a dead process held.
pub(super) struct Lease {
    pid: u32,
    number: u64,
    caller: ManuallyDrop<Caller>,
    session: Weak<Inner>,
}

impl Lease {
    pub fn new(session: &Arc<Inner>, number: u64) -> Lease {
        let caller = ManuallyDrop::new(session.caller.clone());
        Lease { pid: std::process::id(), number, caller, session: Arc::downgrade(session) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A forked child holds no lease of its own, and everything here belongs to the parent's runtime.
        if self.pid != std::process::id() {
            return;
        }
        // SAFETY: taken once, here, and not used afterwards.
        let caller = unsafe { ManuallyDrop::take(&mut self.caller) };
        let given_back = give_back(caller, self.session.clone(), self.number);
        match self.session.upgrade() {
            Some(session) => session.spawn(given_back),
            None => match runtime::handle() {
                Ok(runtime) => drop(runtime.spawn(given_back)),
                Err(error) => tracing::warn!("giving a lease back: {error}"),
            },
        }
    }
}

async fn give_back(caller: Caller, session: Weak<Inner>, lease: u64) {
    let release = |mut client: SidecarClient<Channel>, session| async move {
        client.release_lease(v1::ReleaseLeaseRequest { session, lease }).await
    };
    let mut outcome = loop {
        match tokio::time::timeout(LOOK_UP, caller.call(release)).await {
            Ok(outcome) => break outcome.map(drop),
            // The line will be up again.
            Err(_) if session.strong_count() > 0 => {}
            Err(_) => break Err(Error::unavailable("giving a lease back: the session was dropped")),
        }
    };
    for _ in 0..TRIES {
        match &outcome {
            Err(error) if matches!(error.kind, Kind::Fenced | Kind::Unavailable) => {}
            _ => break,
        }
        let session = caller.state.borrow().welcome.session;
        outcome =
            release(SidecarClient::new(caller.channel.clone()), session).await.map(drop).map_err(Error::from);
        if outcome.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }
    if let Err(error) = outcome {
        tracing::debug!(%error, lease, "a lease is not given back before this process ends");
    }
}
