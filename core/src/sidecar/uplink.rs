//! Calls to the coordinator: one channel, TLS where it is set, repeated while the coordinator is being restarted.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Response, Status};

use super::settings::CoordinatorLink;
use crate::error::{Error, Result};
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::checkpoint_client::CheckpointClient;
use crate::proto::v1::coordinator_client::CoordinatorClient;
use crate::proto::v1::dataset_client::DatasetClient;
use crate::transport::{Route, authorities, identity, is_broken, is_follower, refusal, refusal_of};

const CONNECT: Duration = Duration::from_secs(2);
/// A coordinator's machine that is gone without a word is noticed after two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The same where another one takes its place: it gives every rank a lease of 10 s, counted from when it began.
const KEEP_ALIVE_OF_SET: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How long a coordinator's own "unavailable" is not yet its last word.
const REFUSED: Duration = Duration::from_secs(5);
/// Registrations and listings carry thousands of steps.
const MESSAGE_LIMIT: usize = 64 << 20;

const IS_IT_RUNNING: &str = "is it running? set STRATA_COORDINATOR where this node's sidecar is started";

pub(super) struct Uplink {
    route: Route,
    /// By index in the route.
    channels: Vec<Channel>,
}

impl Uplink {
    /// Connects at the first call. Invalid for an address or certificates that can't be used. Must be called inside
    /// the runtime.
    pub fn new(link: &CoordinatorLink) -> Result<Uplink> {
        let route = Route::of(&link.url);
        let alive = if route.urls().len() > 1 { KEEP_ALIVE_OF_SET } else { KEEP_ALIVE };
        let channels = route.urls().iter().map(|url| channel(url, link, alive)).collect::<Result<_>>()?;
        Ok(Uplink { route, channels })
    }

    /// As it is configured: of a set, all of them.
    pub fn url(&self) -> &str {
        self.route.list()
    }

    fn channel(&self) -> Channel {
        self.channels[self.route.at()].clone()
    }

    /// Which coordinator is asked now, for [`Uplink::turn`].
    pub fn at(&self) -> usize {
        self.route.at()
    }

    /// What that one answered: another one is asked from now on if it does not lead. Whether it knows who does.
    pub fn turn(&self, from: usize, status: &Status) -> bool {
        self.route.turn(from, status)
    }

    pub fn coordinator(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel()).max_encoding_message_size(MESSAGE_LIMIT)
    }

    pub fn checkpoint(&self) -> CheckpointClient<Channel> {
        CheckpointClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn dataset(&self) -> DatasetClient<Channel> {
        DatasetClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Makes a call that may be repeated, again and again until `deadline` while the coordinator can't be reached.
    /// Its own errors are passed on; Unavailable, with how it failed last, when it stays away.
    pub async fn call<T, F, Made>(&self, doing: &str, deadline: Instant, make: F) -> Result<T>
    where
        F: Fn() -> Made,
        Made: Future<Output = Result<Response<T>, Status>>,
    {
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(LAST_RETRY)
            .without_max_times()
            .with_jitter()
            .build();
        let mut last = None;
        let mut refused_until = None;
        loop {
            let from = self.route.at();
            let answer = timeout_at(deadline, make()).await;
            let is_named = matches!(&answer, Ok(Err(status)) if self.route.turn(from, status));
            match answer {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if is_broken(&status) || is_follower(&status) => last = Some(status),
                // It is stopping, or waits for a sidecar that is being restarted.
                Ok(Err(status)) if status.code() == Code::Unavailable => {
                    if Instant::now() >= *refused_until.get_or_insert(Instant::now() + REFUSED) {
                        return Err(status.into());
                    }
                }
                Ok(Err(status)) => return Err(status.into()),
                Err(_) => return Err(self.unreachable(doing, last.as_ref())),
            }
            let wait = if is_named { FIRST_RETRY } else { waits.next().unwrap_or(LAST_RETRY) };
            if Instant::now() + wait >= deadline {
                return Err(self.unreachable(doing, last.as_ref()));
            }
            sleep(wait).await;
        }
    }

    fn unreachable(&self, doing: &str, last: Option<&Status>) -> Error {
        match last {
            Some(status) => self.away(status).while_doing(doing),
            None => Error::unavailable(format!(
                "{doing}: the coordinator at {} can't be reached: it does not answer",
                self.url()
            ))
            .hint(IS_IT_RUNNING),
        }
    }

    /// A call that did not reach it, or was cut off.
    pub fn away(&self, status: &Status) -> Error {
        if is_follower(status) {
            return Error::from(status.clone());
        }
        let refusal = refusal_of(self.route.url(), status);
        Error::unavailable(format!("the coordinator at {} can't be reached: {}", self.url(), refusal.why))
            .hint(refusal.hint.unwrap_or(IS_IT_RUNNING))
    }
}

fn channel(url: &str, link: &CoordinatorLink, alive: Duration) -> Result<Channel> {
    let doing = || format!("reaching the coordinator at {url}");
    let invalid = |error: tonic::transport::Error| {
        Error::invalid(format!("{}: {}", doing(), refusal(url, &error).why))
            .hint("write it like http://127.0.0.1:50051, or https:// with tls_ca")
    };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(invalid)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(alive)
        .keep_alive_timeout(alive);
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(tls(link)?).map_err(invalid)?;
    } else if link.ca.is_some() || link.identity.is_some() {
        return Err(Error::invalid(format!("{}: TLS is set, but the address is plain http", doing()))
            .hint("write the coordinator's address as https://…, or unset tls_ca, tls_cert and tls_key"));
    }
    Ok(endpoint.connect_lazy())
}

fn tls(link: &CoordinatorLink) -> Result<ClientTlsConfig> {
    let mut config = match &link.ca {
        Some(authority) => ClientTlsConfig::new().ca_certificate(authorities(authority)?),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((cert, key)) = &link.identity {
        config = config.identity(identity(cert, key)?);
    }
    Ok(config)
}
