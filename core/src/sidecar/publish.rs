//! What the coordinator orders in the store: publishing a COMMIT, removing a step.

use std::sync::Arc;

use super::node::Node;
use super::targets;
use crate::checkpoint::JobStore;
use crate::error::{Doing, Error, Kind, Result};
use crate::ids::{JobName, JobUuid};
use crate::proto::v1::{self, node_report::Report};

pub(super) async fn commit(node: Arc<Node>, order: v1::WriteCommit) {
    let outcome = async {
        let store = job_store(&node, &order.job, None).await?;
        store.publish(&order.path, order.content.clone()).await
    };
    let outcome = outcome.await.doing(|| format!("publishing the COMMIT of step {}", order.step));
    let away = outcome.as_ref().is_err_and(|error| matches!(error.kind, Kind::Unavailable | Kind::Timeout));
    node.metrics.store_reachable.set(i64::from(!away));
    if let Err(error) = &outcome {
        node.metrics.store_failed("commit", error.kind);
        tracing::warn!(job = %order.job, "{error}");
    }
    let told = v1::CommitOutcome {
        job: order.job,
        step: order.step,
        generation: order.generation,
        committed: outcome.is_ok(),
        kind: outcome.as_ref().err().map(|error| error.kind.name().to_owned()).unwrap_or_default(),
        reason: outcome.err().map(|error| error.message).unwrap_or_default(),
    };
    node.change(|state| state.line.report(Report::Commit(told)));
}

pub(super) async fn remove(node: Arc<Node>, order: v1::RemoveStep) {
    // Else a copy to the target, ordered over a line that broke since, may still rely on what is deleted here.
    let turn = (!order.target.is_empty()).then(|| node.target_turns.of(&order.job, &order.target));
    let _turn = match &turn {
        Some(turn) => Some(turn.lock().await),
        None => None,
    };
    let outcome = async {
        let told = (!order.store.is_empty()).then(|| (order.store.clone(), order.job_uuid.clone()));
        match order.target.is_empty() {
            true => job_store(&node, &order.job, told).await?.remove(&order).await,
            false => {
                targets::place(&node, &order.job, &order.target, &order.job_uuid).await?.remove(&order).await
            }
        }
    };
    let outcome = outcome.await.doing(|| match order.target.is_empty() {
        true => format!("removing step {}", order.step),
        false => format!("removing step {} from target {}", order.step, order.target),
    });
    if let Err(error) = &outcome {
        node.metrics.store_failed("remove", error.kind);
        tracing::warn!(job = %order.job, "{error}");
    }
    let told = v1::RemovalDone {
        job: order.job.clone(),
        step: order.step,
        freed_bytes: outcome.as_ref().copied().unwrap_or_default(),
        kind: outcome.as_ref().err().map(|error| error.kind.name().to_owned()).unwrap_or_default(),
        reason: outcome.err().map(|error| error.message).unwrap_or_default(),
        target: order.target.clone(),
        generation: order.generation,
        committed: order.committed,
    };
    node.change(|state| {
        if order.committed
            && order.target.is_empty()
            && let Ok(job) = order.job.parse::<JobName>()
            && let Some(known) = state.jobs.get_mut(&job)
        {
            known.committed.remove(&order.step.into());
        }
        state.line.report(Report::Removal(told));
    });
}

/// The place that the coordinator tells, by URL and the job's uuid; else that of a job which this node takes, or has
/// taken, part in. Never the other way round: this node may remember a place that the job has left since.
pub(super) async fn job_store(
    node: &Arc<Node>,
    job: &str,
    told: Option<(String, String)>,
) -> Result<JobStore> {
    let job: JobName = job.parse()?;
    let (known, cluster, uid) = node.read(|state| {
        let known = state.jobs.get(&job);
        let place = known.and_then(|known| known.store.clone().zip(known.uuid));
        (place, state.line.cluster, known.map_or(0, |known| known.uid))
    });
    let told = told.map(|(url, uuid)| Ok::<_, Error>((url, uuid.parse::<JobUuid>()?))).transpose()?;
    let Some((url, uuid)) = told.or(known) else {
        return Err(Error::unavailable(format!("this node does not know the store of job {job}")));
    };
    node.stores.confirmed(&url, &job, cluster, uuid, uid).await
}
