//! Files that ranks have found damaged while they read them, for people who look. Not in the log: whoever meets one after a restart
//! reports it again.

use std::collections::BTreeMap;

use super::Engine;
use crate::error::Result;
use crate::ids::JobName;
use crate::proto::v1;

/// Of one job. More are counted in the metric and named in the log alone.
const FILES: usize = 256;
const HOSTS: usize = 16;

/// By job, dataset and path.
#[derive(Default)]
pub struct Damage {
    found: BTreeMap<JobName, BTreeMap<(String, String), v1::DamagedFile>>,
}

impl Engine {
    /// Fails with NotFound for a dataset that is not registered, Denied for a wrong token.
    pub fn report_damage(&mut self, request: v1::ReportDamageRequest) -> Result<v1::ReportDamageReply> {
        let v1::ReportDamageRequest { job, token, dataset, host, files } = request;
        let (job, _) = self.dataset(&job, &dataset)?;
        self.state.job(&job)?.check_token(&job, &token)?;
        for v1::QuarantinedFile { path, reason } in files {
            let found = self.damage.found.entry(job.clone()).or_default();
            let (count, key) = (found.len(), (dataset.clone(), path.clone()));
            if let Some(known) = found.get_mut(&key) {
                if !known.hosts.contains(&host) && known.hosts.len() < HOSTS {
                    known.hosts.push(host.clone());
                }
                continue;
            }
            if count < FILES {
                let (dataset, reason, hosts) = (dataset.clone(), reason.clone(), vec![host.clone()]);
                found.insert(key, v1::DamagedFile { dataset, path: path.clone(), reason, hosts });
            }
            self.metrics.damaged_files.inc();
            self.warn(&job, format!("dataset {dataset:?} goes on without {path} on host {host}: {reason}"));
        }
        Ok(v1::ReportDamageReply {})
    }

    pub(super) fn damaged(&self, job: &JobName) -> Vec<v1::DamagedFile> {
        self.damage.found.get(job).map(|found| found.values().cloned().collect()).unwrap_or_default()
    }
}
