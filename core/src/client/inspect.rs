//! What a step holds, read from the store alone: no sidecar, no coordinator.

use std::time::Duration;

use super::interrupt::{Interrupt, block_on};
use crate::checkpoint::{Inspection, JobStore};
use crate::config::Environment;
use crate::error::{Error, Kind, Result};
use crate::ids::{JobName, Step};
use crate::proto::v1::SaveKind;
use crate::storage::{StoreOptions, StoreUrl};

/// The store's own retries end sooner; this is for one that neither answers nor fails.
const LONGEST: Duration = Duration::from_secs(600);

/// The step's tensors and sizes. `url` is the job's place, `<store>/<job>`; None: the newest step that holds the whole
/// state. NotFound when there is none; Corrupt, naming the object, when it is damaged.
pub fn inspect(
    env: &Environment,
    url: &str,
    step: Option<Step>,
    interrupt: &dyn Interrupt,
) -> Result<Inspection> {
    let (store, job) = split(url)?;
    let options = StoreOptions::from_environment(|name| env.text(name))?;
    let doing = format!("inspecting {url}");
    block_on(&doing, LONGEST, interrupt, async {
        let store = JobStore::open(&store, &options, &job)?;
        let step = match step {
            Some(step) => step,
            None => newest(&store).await?,
        };
        store.inspect(step).await
    })
    .map_err(|error| error.while_doing(&doing))
}

/// The last segment is the job.
fn split(url: &str) -> Result<(StoreUrl, JobName)> {
    let whole = url.trim_end_matches('/');
    let invalid = || {
        Error::invalid(format!("inspecting {url:?}: it does not name a job in a store"))
            .hint("write <store>/<job>, such as /data/checkpoints/default or s3://bucket/prefix/default")
    };
    let (store, job) = whole.rsplit_once('/').ok_or_else(invalid)?;
    if store.ends_with(":/") {
        return Err(invalid());
    }
    Ok((if store.is_empty() { "/" } else { store }.parse()?, job.parse().map_err(|_| invalid())?))
}

/// A damaged COMMIT is an error here, never an absent step.
async fn newest(store: &JobStore) -> Result<Step> {
    for listed in store.steps().await?.into_iter().rev() {
        let info = listed.commit?.to_proto();
        if matches!(info.kind(), SaveKind::Full | SaveKind::Incremental) {
            return Ok(listed.step);
        }
    }
    Err(Error::new(Kind::NotFound, format!("job {} has no committed step", store.job()))
        .hint("check the path: steps lie under <store>/<job>/steps"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_names_a_store_and_a_job() {
        for (url, store, job) in [
            ("/data/ckpt/default", "/data/ckpt", "default"),
            ("s3://bucket/p/job-1/", "s3://bucket/p", "job-1"),
            ("s3://bucket/job", "s3://bucket", "job"),
            ("/job", "/", "job"),
        ] {
            let (found, name) = split(url).unwrap();
            assert_eq!((found.to_string().as_str(), name.as_str()), (store, job));
        }
        for url in ["s3://bucket", "", "/", "job"] {
            assert_eq!(split(url).unwrap_err().kind, Kind::Invalid, "{url}");
        }
    }
}
