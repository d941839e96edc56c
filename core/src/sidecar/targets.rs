//! Further targets: what the coordinator orders there, and whose identity a job takes up that has lost its first store.
//! Called by the node and by a join. Decides nothing: which step is copied or removed is the coordinator's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use prost::Message;

use super::node::Node;
use super::publish;
use super::settings::TargetSettings;
use crate::checkpoint::{Claimant, JobStore};
use crate::error::{Doing, Error, Result};
use crate::ids::{ClusterId, Generation, JobName, JobUuid, Step};
use crate::proto::v1::{self, node_report::Report};

/// One order at a time for each target of a job: after a broken line the same one may come again.
#[derive(Default)]
pub(super) struct TargetTurns(Mutex<HashMap<(String, String), Turn>>);

type Turn = Arc<tokio::sync::Mutex<()>>;

impl TargetTurns {
    pub(super) fn of(&self, job: &str, target: &str) -> Turn {
        self.0.lock().entry((job.to_owned(), target.to_owned())).or_default().clone()
    }
}

pub(super) async fn obey(node: Arc<Node>, order: v1::TargetOrder) {
    let turn = node.target_turns.of(&order.job, &order.target);
    let _turn = turn.lock().await;
    let mut told = v1::TargetReport {
        job: order.job.clone(),
        target: order.target.clone(),
        copied: order.copy,
        ..Default::default()
    };
    let outcome = match order.copy {
        Some(step) => copy(&node, &order, Step(step), &mut told).await,
        None => list(&node, &order, &mut told).await,
    };
    if let Err(error) = outcome {
        node.metrics.store_failed("copy", error.kind);
        tracing::warn!(job = %order.job, target = %order.target, "{error}");
        (told.kind, told.reason) = (error.kind.name().to_owned(), error.message);
    }
    // Under one lock, so that they go out over one line, or not at all.
    node.change(|state| pages(told).into_iter().for_each(|page| state.line.report(Report::Target(page))));
}

/// A message of the line has 64 MiB at most, and each step carries its user's metrics and meta.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_LEFTOVERS: usize = 32 << 10;

/// A report in as many messages as it takes: steps by their size, then what has no COMMIT.
fn pages(mut rest: v1::TargetReport) -> Vec<v1::TargetReport> {
    let (steps, leftovers) = (std::mem::take(&mut rest.steps), std::mem::take(&mut rest.leftovers));
    let mut pages = vec![rest.clone()];
    let mut bytes = 0;
    for step in steps {
        let more = step.encoded_len();
        if bytes > 0 && bytes + more > PAGE_BYTES {
            pages.push(rest.clone());
            bytes = 0;
        }
        bytes += more;
        pages.last_mut().expect("one was made above").steps.push(step);
    }
    let mut leftovers = leftovers.chunks(PAGE_LEFTOVERS);
    pages.last_mut().expect("one was made above").leftovers = leftovers.next().unwrap_or_default().to_vec();
    pages.extend(leftovers.map(|some| v1::TargetReport { leftovers: some.to_vec(), ..rest.clone() }));
    let last = pages.len() - 1;
    for (number, page) in pages.iter_mut().enumerate() {
        (page.page, page.more) = (number as u32, number < last);
    }
    pages
}

async fn list(node: &Arc<Node>, order: &v1::TargetOrder, told: &mut v1::TargetReport) -> Result<()> {
    let (store, claimant) = open(node, &order.job, &order.target)?;
    let cluster = cluster(node)?;
    if order.taken && store.owner().await.is_ok_and(|owner| owner.is_none()) {
        return Err(Error::unavailable(format!(
            "{} was a target of job {} before, and nothing of the job is there now: is it mounted, and where it was? \
             (one that was emptied on purpose needs another name in [[store.target]])",
            store.url(),
            order.job
        )));
    }
    let found = store.survey(cluster, order.job_uuid.parse()?, node.settings.takeover, claimant).await?;
    for listed in found.steps {
        match listed.commit {
            Ok(commit) => told.steps.push(commit.to_proto()),
            // It is not there for a restore; the first store's rules and `repair` see to it.
            Err(error) => {
                tracing::error!(target = %order.target, "step {} is damaged there: {error}", listed.step)
            }
        }
    }
    let leftover =
        |(step, generation): (Step, Generation)| v1::Attempt { step: step.0, generation: generation.0 };
    told.leftovers = found.uncommitted.into_iter().map(leftover).collect();
    Ok(())
}

async fn copy(
    node: &Arc<Node>,
    order: &v1::TargetOrder,
    step: Step,
    told: &mut v1::TargetReport,
) -> Result<()> {
    let known = (order.store.clone(), order.job_uuid.clone());
    let from = publish::job_store(node, &order.job, Some(known)).await?;
    let to = place(node, &order.job, &order.target, &order.job_uuid).await?;
    let counting = node.clone();
    let wrote = move |bytes| {
        counting.copied.fetch_add(bytes, Ordering::Relaxed);
    };
    let copied = to.copy_from(&from, step, &order.commit_blake3, wrote).await?;
    tracing::info!(job = %order.job, step = step.0, target = %order.target, bytes = copied.bytes, "copied");
    told.steps.push(copied.commit.to_proto());
    told.copied_bytes = copied.bytes;
    Ok(())
}

fn cluster(node: &Node) -> Result<ClusterId> {
    let cluster = node.read(|state| state.line.cluster);
    cluster.ok_or_else(|| Error::unavailable("the coordinator has not said yet which cluster this is"))
}

fn open(node: &Node, job: &str, name: &str) -> Result<(JobStore, Claimant)> {
    let job: JobName = job.parse()?;
    let uid = node.read(|state| state.jobs.get(&job).map_or(0, |known| known.uid));
    let target = settings(node, name)?;
    let store = node.stores.target(target, &job)?;
    let claimant = match node.directories.serves_everyone() {
        true => Claimant::Served { uid },
        false => Claimant::Own { uid: node.directories.uid() },
    };
    Ok((store, claimant))
}

fn settings<'a>(node: &'a Node, name: &str) -> Result<&'a TargetSettings> {
    let found = node.settings.targets.iter().find(|target| target.name == name);
    found.ok_or_else(|| Error::invalid(format!("this node's configuration has no target {name:?}")))
}

/// A target's place of a job, proved to be still the job's and the cluster's.
pub(super) async fn place(node: &Arc<Node>, job: &str, name: &str, uuid: &str) -> Result<JobStore> {
    let (store, _) = open(node, job, name)?;
    store.confirm(node.read(|state| state.line.cluster), uuid.parse()?).await?;
    Ok(store)
}

/// All of a job's further places, in the order of the configuration.
pub(super) fn places(node: &Node, job: &JobName) -> Vec<(String, Result<JobStore>)> {
    let targets = node.settings.targets.iter();
    targets.map(|target| (target.name.clone(), node.stores.target(target, job))).collect()
}

/// Whose steps lie in the targets of a job that its first store knows nothing of: a new one, or one that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    pub job_uuid: JobUuid,
    pub highest_generation: Generation,
}

/// None: no target knows the job. An error when one can't be asked: who begins anew while it is away would lose what it has.
/// Denied for another user's job (P9).
pub(super) async fn inherited(node: &Arc<Node>, job: &JobName, uid: u32) -> Result<Option<Inherited>> {
    let mut found: Option<(String, Inherited)> = None;
    for (name, store) in places(node, job) {
        let doing =
            || format!("asking target {name} whether it knows job {job}, which the first store does not");
        let store = store?;
        let Some(owner) = store.owner().await.doing(doing)? else { continue };
        let of_other = owner.uid.filter(|of| node.directories.serves_everyone() && *of != uid && uid != 0);
        if let Some(of) = of_other {
            return Err(Error::denied(format!(
                "target {name} holds a job {job} of uid {of}, this is uid {uid}"
            ))
            .hint("use another job name (STRATA_JOB)"));
        }
        let steps = store.steps().await.doing(doing)?;
        let commits = steps.into_iter().filter_map(|listed| listed.commit.ok());
        let highest = commits.map(|commit| commit.record.generation.max(commit.record.authority)).max();
        let highest = highest.unwrap_or_default();
        match &mut found {
            None => {
                found = Some((name, Inherited { job_uuid: owner.job_uuid, highest_generation: highest }));
            }
            Some((other, known)) if known.job_uuid != owner.job_uuid => {
                return Err(Error::conflict(format!(
                    "targets {other} and {name} hold different jobs called {job}: {} and {}",
                    known.job_uuid, owner.job_uuid
                ))
                .hint("take one of them out of the configuration ([[store.target]])"));
            }
            Some((_, known)) => known.highest_generation = known.highest_generation.max(highest),
        }
    }
    if let Some((name, _)) = &found {
        tracing::warn!(%job, "the first store does not know the job, target {name} does: it goes on from there");
    }
    Ok(found.map(|(_, known)| known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_listing_goes_out_in_pages_that_hold_all_of_it() {
        let step = |step: u64| v1::StepInfo {
            step,
            meta_json: "x".repeat(if step.is_multiple_of(7) { 2 << 20 } else { 300 << 10 }),
            ..v1::StepInfo::default()
        };
        let told = v1::TargetReport {
            job: "j".into(),
            target: "far".into(),
            steps: (1..40).map(step).collect(),
            leftovers: (0..70_000).map(|step| v1::Attempt { step, generation: 1 }).collect(),
            ..v1::TargetReport::default()
        };
        let sent = pages(told.clone());
        assert!(sent.iter().all(|page| page.encoded_len() < 4 << 20 && page.target == "far"));
        assert!(sent.iter().enumerate().all(|(number, page)| page.page as usize == number));
        assert!(sent.iter().rev().skip(1).all(|page| page.more) && !sent.last().unwrap().more);
        assert_eq!(sent.iter().flat_map(|page| page.steps.clone()).collect::<Vec<_>>(), told.steps);
        assert_eq!(sent.iter().flat_map(|page| page.leftovers.clone()).collect::<Vec<_>>(), told.leftovers);
        let copied = v1::TargetReport { steps: vec![step(1)], copied: Some(1), ..told };
        assert_eq!(pages(v1::TargetReport { leftovers: Vec::new(), ..copied }).len(), 1);
    }
}
