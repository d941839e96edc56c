//! What operators ask: status, committed steps and their keeping, from a coordinator or through a node's sidecar.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::interrupt::{Interrupt, block_on};
use super::socket;
use super::steps::MAX_REPLY;
use super::tls::ClientTls;
use crate::error::{Error, Kind, Result};
use crate::ids::{JobName, Rank, Step};
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::checkpoint_client::CheckpointClient;
use crate::proto::v1::dataset_client::DatasetClient;
use crate::proto::v1::{self, StepInfo};
use crate::transport::{self, Refusal, is_broken};

/// An address that does not answer by then is taken for silent.
const ANSWER: Duration = Duration::from_secs(2);
/// For the coordinator's own words about a time-out to arrive.
const GRACE: Duration = Duration::from_secs(2);
/// A set of coordinators that has lost its leader has another one by then.
const ELECTION: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(200);

/// Where a service may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Coordinator(String),
    Socket(PathBuf),
}

impl Place {
    /// Of a set of coordinators each.
    fn each(&self) -> Vec<Place> {
        match self {
            Place::Coordinator(list) => {
                list.split(',').map(|url| Place::Coordinator(url.to_owned())).collect()
            }
            Place::Socket(_) => vec![self.clone()],
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Coordinator(url) => url.fmt(f),
            Place::Socket(path) => path.display().fmt(f),
        }
    }
}

/// A connection for an operator's questions. Every call blocks up to `timeout` and asks the interrupt every 50 ms.
pub struct Operator {
    channel: Channel,
    place: Place,
    timeout: Duration,
}

impl Operator {
    /// Connects to the first place that answers; of a set of coordinators to its leader, for which it waits some seconds where none is known.
    /// Unavailable, with each place and what it said, when none does.
    pub fn connect(
        places: &[Place],
        tls: &ClientTls,
        timeout: Duration,
        interrupt: &dyn Interrupt,
    ) -> Result<Operator> {
        let places: Vec<Place> = places.iter().flat_map(Place::each).collect();
        let limit = ANSWER * (places.len() as u32 + 1) + ELECTION;
        block_on("connecting", limit, interrupt, async {
            let until = Instant::now() + ELECTION;
            let (tried, hint) = loop {
                let (mut asked, mut tried, mut hint) = (VecDeque::from(places.clone()), Vec::new(), None);
                let (mut leaders, mut is_led) = (BTreeSet::new(), true);
                while let Some(place) = asked.pop_front() {
                    match dial(&place, tls).await {
                        Ok(channel) => return Ok(Operator { channel, place, timeout }),
                        Err(error) if error.kind == Kind::Invalid => return Err(error),
                        Err(error) => {
                            is_led &= error.leader.as_deref() != Some("");
                            let leader = error.leader.filter(|leader| !leader.is_empty());
                            if let Some(leader) = leader.filter(|leader| leaders.insert(leader.clone())) {
                                asked.push_front(Place::Coordinator(leader));
                            }
                            tried.push(format!("{place}: {}", error.message));
                            hint = hint.or(error.hint);
                        }
                    }
                }
                if is_led || Instant::now() >= until {
                    break (tried, hint);
                }
                tokio::time::sleep(AGAIN).await;
            };
            let usual = || {
                "start one with `strata up`, or name it with --coordinator or STRATA_COORDINATOR".to_owned()
            };
            Err(Error::unavailable(format!("connecting: nothing answers ({})", tried.join("; ")))
                .hint(hint.unwrap_or_else(usual)))
        })
    }

    /// The place that answered.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Of one job, or of all. NotFound for a job that is not known.
    pub fn status(&self, job: Option<&JobName>, interrupt: &dyn Interrupt) -> Result<v1::Status> {
        let job = job.map(JobName::to_string).unwrap_or_default();
        let mut client = AdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY);
        self.ask("asking for the status", interrupt, client.get_status(v1::GetStatusRequest { job }))
    }

    /// Where the time of one job has gone, or of all. NotFound for a job that is not known.
    pub fn goodput(&self, job: Option<&JobName>, interrupt: &dyn Interrupt) -> Result<v1::Goodput> {
        let job = job.map(JobName::to_string).unwrap_or_default();
        let mut client = AdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY);
        self.ask("asking where time went", interrupt, client.get_goodput(v1::GetGoodputRequest { job }))
    }

    /// What ranks of a running job are doing; without `ranks` the stalled ones, and where none is all of them. Conflict for
    /// a job that is not running, NotFound for a rank that is not there.
    pub fn stacks(
        &self,
        job: &JobName,
        ranks: &[Rank],
        interrupt: &dyn Interrupt,
    ) -> Result<v1::GetStacksReply> {
        let ranks = ranks.iter().map(|rank| rank.0).collect();
        let request = v1::GetStacksRequest { job: job.to_string(), ranks };
        let mut client = AdminClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY);
        self.ask("asking what ranks are doing", interrupt, client.get_stacks(request))
    }

    /// Has all ranks save at one common step, or save and stop at it: the step that they have agreed on. Conflict when
    /// nothing runs; Timeout naming the ranks that have not said where they stand.
    pub fn ask_save(&self, job: &JobName, stop: bool, interrupt: &dyn Interrupt) -> Result<v1::AskSaveReply> {
        let timeout_ms = super::session::milliseconds(self.timeout);
        let request = v1::AskSaveRequest { job: job.to_string(), stop, timeout_ms };
        let mut client = AdminClient::new(self.channel.clone());
        block_on("asking for a checkpoint", self.timeout + GRACE, interrupt, async {
            Ok(client.ask_save(request).await?.into_inner())
        })
    }

    /// The datasets that the job has registered, and which of their files were found damaged since.
    pub fn datasets(&self, job: &JobName, interrupt: &dyn Interrupt) -> Result<v1::ListDatasetsReply> {
        let request = v1::ListDatasetsRequest { job: job.to_string() };
        let mut client = DatasetClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY);
        self.ask("listing the datasets", interrupt, client.list_datasets(request))
    }

    /// Every committed step, ascending.
    pub fn steps(&self, job: &JobName, interrupt: &dyn Interrupt) -> Result<Vec<StepInfo>> {
        let request = v1::ListStepsRequest { job: job.to_string() };
        let mut client = self.checkpoints();
        Ok(self.ask("listing the steps", interrupt, client.list_steps(request))?.steps)
    }

    /// Pins a step, or takes the pin back. Durable. `holder` names work that needs the step meanwhile, such as a repair, and
    /// takes back its own pin alone; empty: a person, who takes back all there are.
    pub fn set_pinned(
        &self,
        job: &JobName,
        step: Step,
        pinned: bool,
        holder: &str,
        interrupt: &dyn Interrupt,
    ) -> Result<StepInfo> {
        let request =
            v1::PinStepRequest { job: job.to_string(), step: step.0, pinned, holder: holder.to_owned() };
        let mut client = self.checkpoints();
        self.ask(&format!("pinning step {step}"), interrupt, client.pin_step(request))
    }

    /// Removes a step: bytes freed. Conflict for a pinned one and for the newest whole one, both without `force`. A dry run
    /// only says whether it would be refused, and the bytes that the step stored.
    pub fn delete(
        &self,
        job: &JobName,
        step: Step,
        force: bool,
        dry_run: bool,
        interrupt: &dyn Interrupt,
    ) -> Result<u64> {
        let request = v1::DeleteStepRequest { job: job.to_string(), step: step.0, force, dry_run };
        let mut client = self.checkpoints();
        let doing = format!("removing step {step}");
        Ok(self.ask(&doing, interrupt, client.delete_step(request))?.freed_bytes)
    }

    fn checkpoints(&self) -> CheckpointClient<Channel> {
        CheckpointClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    fn ask<T>(
        &self,
        doing: &str,
        interrupt: &dyn Interrupt,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        block_on(doing, self.timeout, interrupt, async { Ok(call.await?.into_inner()) })
    }
}

/// A channel that has answered one call.
async fn dial(place: &Place, tls: &ClientTls) -> Result<Channel> {
    let asked = async {
        let (channel, url) = match place {
            Place::Coordinator(url) => {
                let dialled = tls.endpoint(url)?.connect().await;
                (dialled.map_err(|error| refused(transport::refusal(url, &error)))?, url.as_str())
            }
            Place::Socket(path) => {
                socket::probe(path).await?;
                (socket::channel(path), "")
            }
        };
        let asked = AdminClient::new(channel.clone()).get_version(v1::GetVersionRequest {}).await;
        asked.map_err(|status| match is_broken(&status) {
            true => refused(transport::refusal_of(url, &status)),
            false => Error::from(status),
        })?;
        Ok(channel)
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(done) => done,
        Err(_) => Err(Error::timeout(format!("no answer within {ANSWER:?}"))),
    }
}

fn refused(refusal: Refusal) -> Error {
    Error { hint: refusal.hint.map(str::to_owned), ..Error::unavailable(refusal.why) }
}
