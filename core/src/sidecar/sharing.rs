//! Whether all nodes of a job see one store: each leaves a token there that its neighbours look for. A directory of the
//! same name on every node is refused before a step is lost in it. Neighbours go round all nodes: where those see more than
//! one store, some two that stand side by side see different ones.

use std::sync::Arc;

use super::node::Node;
use crate::error::{Error, Kind};
use crate::ids::{JobName, NodeId};

pub(super) async fn check(node: Arc<Node>, job: JobName) {
    let (url, others, uid) = node.read(|state| {
        let Some(known) = state.jobs.get(&job) else { return (None, Vec::new(), 0) };
        let others = known.neighbours(&state.node).into_iter();
        (known.store.clone(), others.filter_map(|other| other.parse::<NodeId>().ok()).collect(), known.uid)
    });
    let Some(store) = url.and_then(|url| node.stores.open(&url.parse().ok()?, &job, uid).ok()) else {
        return;
    };
    for other in others {
        match store.sees_token(other).await {
            Ok(true) => {}
            Ok(false) => {
                let error = Error::conflict(format!(
                    "using the store {}: what node {other} wrote there is not seen on {}",
                    store.url(),
                    node.settings.host
                ))
                .hint("all nodes of a job must see the same directory or bucket: check the mount, or set STRATA_STORE");
                tracing::error!(%job, "{error}");
                node.change(|state| {
                    state.warn_trainers(&job, &error.message);
                    state.job(&job).problem = Some(error);
                });
                return;
            }
            // A store that does not answer shows itself where it is needed.
            Err(error) if error.kind == Kind::Unavailable => tracing::warn!(%job, "{error}"),
            Err(error) => tracing::error!(%job, "{error}"),
        }
    }
}
