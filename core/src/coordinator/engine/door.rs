//! The services' way to the engine that runs now: of a set's coordinators there is one on the leader alone, and another one after each
//! change of who leads.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::super::set::Standing;
use super::{Engine, Handle, Reply};
use crate::error::{Error, Result};

#[derive(Clone)]
pub struct Door {
    handle: Arc<RwLock<Handle>>,
    /// None: a coordinator that is alone.
    standing: Option<(String, watch::Receiver<Standing>)>,
}

impl Door {
    /// To an engine that is there for good.
    pub fn to(handle: Handle) -> Door {
        Door { handle: Arc::new(RwLock::new(handle)), standing: None }
    }

    /// To whichever engine [`Door::lead`] names last; closed while `url`, as it stands in its set, does not lead.
    pub fn of_a_set(url: String, standing: watch::Receiver<Standing>) -> Door {
        let (nobody, _) = Handle::new();
        Door { handle: Arc::new(RwLock::new(nobody)), standing: Some((url, standing)) }
    }

    pub fn lead(&self, handle: Handle) {
        *self.handle.write() = handle;
    }

    /// Where this coordinator stands; None: it is alone.
    pub fn standing(&self) -> Option<Standing> {
        self.standing.as_ref().map(|(_, standing)| standing.borrow().clone())
    }

    /// How many commands its engine has accepted: what was read of the state stands while it is the same. None: one of a set, which
    /// may have lost the lead meanwhile and not know it.
    pub fn accepted(&self) -> Option<u64> {
        self.standing.is_none().then(|| self.handle.read().accepted())
    }

    /// Unavailable where this one does not lead, with who does.
    pub fn open(&self) -> Result<()> {
        let Some((url, standing)) = &self.standing else { return Ok(()) };
        let error = |what: String| Error::unavailable(format!("calling the coordinator at {url}: {what}"));
        match &*standing.borrow() {
            Standing::Leads => Ok(()),
            Standing::Follows(leader) => Err(error(format!("it follows {leader}"))
                .hint(format!(
                    "ask {leader}, or name all coordinators of the set: STRATA_COORDINATOR=URL,URL,URL"
                ))
                .led_by(leader)),
            Standing::Leaderless => Err(error("no majority of its set agrees on a leader".to_owned())
                .hint("are the others running, and reached from there? a new leader is there within seconds")
                .led_by("")),
            Standing::Forming(why) => Err(error(format!("it is not yet one of its set: {why}")).led_by("")),
        }
    }

    /// The engine that runs now, and no other: what is bound to it ends with it.
    pub fn handle(&self) -> Result<Handle> {
        self.open()?;
        Ok(self.handle.read().clone())
    }

    /// As [`Handle::call`].
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let answer = self.handle()?.call(work).await;
        self.told(answer)
    }

    /// As [`Handle::wait`].
    pub async fn wait<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine, Reply<T>) + Send + 'static,
    ) -> Result<T> {
        let answer = self.handle()?.wait(work).await;
        self.told(answer)
    }

    /// An engine that ended while it was asked says no more than that; who leads now says where to ask again.
    fn told<T>(&self, answer: Result<T>) -> Result<T> {
        match answer {
            Err(error) if error == super::stopping() && self.standing.is_some() => {
                self.open()?;
                Err(error.led_by(""))
            }
            answer => answer,
        }
    }
}
