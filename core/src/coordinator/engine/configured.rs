//! Settings that change while the coordinator runs: from the next question on they are the new ones, and who works by them is
//! told.

use super::super::settings::LiveSettings;
use super::Engine;
use crate::error::Result;
use crate::ids::JobName;
use crate::proto::v1::worker_command::Command as Told;
use crate::proto::v1::{self, node_command::Command as Push};

impl Engine {
    /// Fails with Invalid, and changes nothing, for settings that can't work.
    pub fn reconfigure(&mut self, live: LiveSettings) -> Result<()> {
        let settings = self.settings.clone().with(live);
        settings.check()?;
        let jobs: Vec<JobName> = self.state.jobs.keys().cloned().collect();
        let before: Vec<v1::WorkerConfig> = jobs.iter().map(|job| self.worker_config(job)).collect();
        self.settings = settings;
        for (job, before) in jobs.iter().zip(before) {
            let config = self.worker_config(job);
            if config != before {
                self.push_config(job, &before, config);
            }
        }
        Ok(())
    }

    fn push_config(&mut self, job: &JobName, before: &v1::WorkerConfig, config: v1::WorkerConfig) {
        for who in self.direct_members(job) {
            self.tell(&who, Told::Config(config.clone()));
        }
        // Sidecars have a configuration of their own for these: it stands until somebody changes the coordinator's.
        let news = |new: u64, old: u64| if new == old { 0 } else { new };
        let changed = v1::WorkerConfig {
            save_wait_ms: news(config.save_wait_ms, before.save_wait_ms),
            commit_timeout_ms: news(config.commit_timeout_ms, before.commit_timeout_ms),
            ..config
        };
        self.push_job(
            job,
            Push::Config(v1::WorkerConfigChanged { job: job.to_string(), config: Some(changed) }),
        );
    }

    /// Workers without a sidecar, as members and as registrations.
    fn direct_members(&self, job: &JobName) -> Vec<String> {
        let Ok(known) = self.state.job(job) else { return Vec::new() };
        let open = known.open.iter().flat_map(|open| open.living()).map(|(_, member)| member);
        let all = open.chain(known.forming.values()).filter(|member| member.node.is_none());
        all.map(|member| member.incarnation.clone()).collect()
    }
}
