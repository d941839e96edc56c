//! Files that ranks have found damaged while they read them, for people who look. Not in the log: ranks report what they leave out
//! with every loop that they begin, so that a coordinator that was started anew hears of it.

use std::collections::BTreeMap;

use super::Engine;
use crate::error::Result;
use crate::ids::JobName;
use crate::proto::v1;

/// Of one job; of more it is said once that there are more.
const FILES: usize = 256;
const HOSTS: usize = 16;
/// Letters of a path or a reason.
const LENGTH: usize = 1024;

#[derive(Default)]
pub struct Damage {
    found: BTreeMap<JobName, Found>,
}

/// By dataset and path.
#[derive(Default)]
struct Found {
    files: BTreeMap<(String, String), v1::DamagedFile>,
    has_more: bool,
}

impl Engine {
    /// Fails with NotFound for a dataset that is not registered, Denied for a wrong token.
    pub fn report_damage(&mut self, request: v1::ReportDamageRequest) -> Result<v1::ReportDamageReply> {
        let v1::ReportDamageRequest { job, token, dataset, host, files } = request;
        let (job, _) = self.dataset(&job, &dataset)?;
        self.state.job(&job)?.check_token(&job, &token)?;
        for file in files {
            if let Some(news) = self.damage.found.entry(job.clone()).or_default().add(&dataset, &host, file) {
                self.metrics.damaged_files.inc();
                self.warn(&job, news);
            }
        }
        Ok(v1::ReportDamageReply {})
    }

    pub(super) fn damaged(&self, job: &JobName) -> Vec<v1::DamagedFile> {
        let found = self.damage.found.get(job);
        found.map(|found| found.files.values().cloned().collect()).unwrap_or_default()
    }
}

impl Found {
    /// What is new of it, for the log.
    fn add(&mut self, dataset: &str, host: &str, file: v1::QuarantinedFile) -> Option<String> {
        let [path, reason] =
            [file.path, file.reason].map(|text| text.chars().take(LENGTH).collect::<String>());
        let key = (dataset.to_owned(), path.clone());
        if let Some(known) = self.files.get_mut(&key) {
            if known.hosts.len() < HOSTS && !known.hosts.iter().any(|one| one == host) {
                known.hosts.push(host.to_owned());
            }
            return None;
        }
        if self.files.len() == FILES {
            let is_first = !std::mem::replace(&mut self.has_more, true);
            return is_first
                .then(|| format!("more than {FILES} files are left out: the others are not listed"));
        }
        let news = format!("dataset {dataset:?} goes on without {path} on host {host}: {reason}");
        let (dataset, hosts) = (dataset.to_owned(), vec![host.to_owned()]);
        self.files.insert(key, v1::DamagedFile { dataset, path, reason, hosts });
        Some(news)
    }
}
