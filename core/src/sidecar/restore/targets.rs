//! The same step from a further target, when the first store lacks it or has it damaged: not an earlier one, so that it
//! needs nobody's leave; the caller is told which object was wrong.

use super::super::targets;
use super::{Fetched, Resolved, Restore};
use crate::checkpoint::JobStore;
use crate::error::{Error, Kind, Result};

impl Restore {
    pub(super) fn may_be_elsewhere(&self, resolved: &Resolved, error: &Error) -> bool {
        resolved.committed
            && matches!(error.kind, Kind::NotFound | Kind::Corrupt)
            && !self.node.settings.targets.is_empty()
    }

    /// The first target that has it whole. When none has, what was wrong in the first store, and in each of them.
    pub(super) async fn out_of_targets(&self, resolved: &Resolved, first: Error) -> Result<Fetched> {
        let mut tried = Vec::new();
        for (name, store) in targets::places(&self.node, &self.record.job) {
            match self.out_of_target(resolved, store).await {
                Ok((fetched, url)) => {
                    if first.kind == Kind::Corrupt {
                        self.node.metrics.restores_damaged.inc();
                    }
                    let why = format!(
                        "step {} was read from target {name} ({url}): {}",
                        resolved.step, first.message
                    );
                    tracing::warn!(job = %self.record.job, rank = self.record.rank.0, "{why}");
                    self.notes.lock().push(why);
                    return Ok(fetched);
                }
                // Somebody waits for a slot, or for a slow store: another target changes nothing about that.
                Err(error) if matches!(error.kind, Kind::Overloaded | Kind::Timeout | Kind::Fenced) => {
                    return Err(error);
                }
                Err(error) => tried.push(format!("target {name}: {}", error.message)),
            }
        }
        let elsewhere = tried.join("; ");
        Err(Error { message: format!("{} ({elsewhere})", first.message), ..first })
    }

    async fn out_of_target(&self, resolved: &Resolved, store: Result<JobStore>) -> Result<(Fetched, String)> {
        let store = store?;
        let cluster = self.node.read(|state| state.line.cluster);
        store.confirm(cluster, self.record.job_uuid).await?;
        let commit = store.commit(resolved.step).await?;
        let meant = resolved.info.as_ref().map(|info| info.commit_blake3.as_str()).unwrap_or_default();
        let is_other = match meant.is_empty() {
            false => commit.blake3 != meant,
            // Its COMMIT could not be read when it was found: the attempt is all there is to tell by.
            true => resolved.generation.0 > 0 && commit.record.generation != resolved.generation,
        };
        if is_other {
            return Err(Error::not_found("it has another attempt of this number"));
        }
        Ok((self.load_from(&store, resolved).await?, store.url().to_string()))
    }
}
