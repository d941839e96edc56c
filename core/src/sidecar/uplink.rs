//! Calls to the coordinator: one channel, TLS where it is set, repeated while the coordinator is being restarted.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Response, Status};

use super::settings::CoordinatorLink;
use crate::error::{Error, KIND_KEY, Result};
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::checkpoint_client::CheckpointClient;
use crate::proto::v1::coordinator_client::CoordinatorClient;
use crate::proto::v1::dataset_client::DatasetClient;
use crate::transport::{authorities, identity, refusal, refusal_of};

const CONNECT: Duration = Duration::from_secs(2);
/// A coordinator's machine that is gone without a word is noticed after two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How long a coordinator's own "unavailable" is not yet its last word.
const REFUSED: Duration = Duration::from_secs(5);
/// Registrations and listings carry thousands of steps.
const MESSAGE_LIMIT: usize = 64 << 20;

const IS_IT_RUNNING: &str = "is it running? set STRATA_COORDINATOR where this node's sidecar is started";

pub(super) struct Uplink {
    url: String,
    channel: Channel,
}

impl Uplink {
    /// Connects at the first call. Invalid for an address or certificates that can't be used. Must be called inside
    /// the runtime.
    pub fn new(link: &CoordinatorLink) -> Result<Uplink> {
        let doing = || format!("reaching the coordinator at {}", link.url);
        let invalid = |error: tonic::transport::Error| {
            Error::invalid(format!("{}: {}", doing(), refusal(&link.url, &error).why))
                .hint("write it like http://127.0.0.1:50051, or https:// with tls_ca")
        };
        let mut endpoint = Endpoint::from_shared(link.url.clone())
            .map_err(invalid)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        if link.url.starts_with("https://") {
            endpoint = endpoint.tls_config(tls(link)?).map_err(invalid)?;
        } else if link.ca.is_some() || link.identity.is_some() {
            return Err(Error::invalid(format!("{}: TLS is set, but the address is plain http", doing()))
                .hint(
                    "write the coordinator's address as https://…, or unset tls_ca, tls_cert and tls_key",
                ));
        }
        Ok(Uplink { url: link.url.clone(), channel: endpoint.connect_lazy() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn coordinator(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel.clone()).max_encoding_message_size(MESSAGE_LIMIT)
    }

    pub fn checkpoint(&self) -> CheckpointClient<Channel> {
        CheckpointClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    pub fn dataset(&self) -> DatasetClient<Channel> {
        DatasetClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_LIMIT)
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
            match timeout_at(deadline, make()).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) if is_transport(&status) => last = Some(status),
                // It is stopping, or waits for a sidecar that is being restarted.
                Ok(Err(status)) if status.code() == Code::Unavailable => {
                    if Instant::now() >= *refused_until.get_or_insert(Instant::now() + REFUSED) {
                        return Err(status.into());
                    }
                }
                Ok(Err(status)) => return Err(status.into()),
                Err(_) => return Err(self.unreachable(doing, last.as_ref())),
            }
            let wait = waits.next().unwrap_or(LAST_RETRY);
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
                self.url
            ))
            .hint(IS_IT_RUNNING),
        }
    }

    /// A call that did not reach it, or was cut off.
    pub fn away(&self, status: &Status) -> Error {
        let refusal = refusal_of(&self.url, status);
        Error::unavailable(format!("the coordinator at {} can't be reached: {}", self.url, refusal.why))
            .hint(refusal.hint.unwrap_or(IS_IT_RUNNING))
    }
}

/// Whether the coordinator did not answer at all; its own errors carry their kind.
pub(super) fn is_transport(status: &Status) -> bool {
    !status.metadata().contains_key(KIND_KEY)
        && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
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
