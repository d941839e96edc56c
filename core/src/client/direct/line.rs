//! The way to the coordinator: a channel by its URL, and calls that are made again when the connection broke.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::OnceLock;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::super::interrupt::{Interrupt, block_on};
use super::super::runtime;
use super::super::steps::MAX_REPLY;
use super::super::tls::ClientTls;
use crate::error::{Error, Kind, Result};
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;
use crate::transport::{Refusal, Route, is_broken, refusal_of};

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// A connection whose other end is gone without a word is given up after twice this, and dialled again: a lease lasts
/// 10 s by default, so the beats of a living worker come in time.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// The coordinator keeps the time-out and knows more about its cause; ours is for one that does not answer.
const GRACE: Duration = Duration::from_secs(1);

/// Channels to the coordinator, or to each of a set, dialled at the first call and again after a break. A forked child gets its own.
pub struct Line {
    route: Route,
    tls: ClientTls,
    pid: u32,
    /// By index in the route.
    channels: ManuallyDrop<Vec<Channel>>,
    child: OnceLock<(u32, Vec<Channel>)>,
}

impl Line {
    /// Dials nothing yet. Invalid for a URL or certificates that can't be used; NotFound for files that aren't there.
    pub fn open(url: &str, tls: ClientTls) -> Result<Line> {
        let _inside = runtime::handle()?.enter();
        let route = Route::of(url);
        let channels = ManuallyDrop::new(dial(&route, &tls)?);
        Ok(Line { route, tls, pid: std::process::id(), channels, child: OnceLock::new() })
    }

    /// As it was given: of a set, all of them.
    pub fn url(&self) -> &str {
        self.route.list()
    }

    /// Which coordinator is asked now, and the way to it.
    pub(super) fn now(&self) -> Result<(usize, Channel)> {
        let at = self.route.at();
        Ok((at, self.channel(at)?))
    }

    /// What that one answered: another one is asked from now on if it does not lead. Whether it knows who does.
    pub(super) fn turn(&self, from: usize, status: &Status) -> bool {
        self.route.turn(from, status)
    }

    /// The cluster's uuid: two addresses with the same one lead to the same coordinator.
    pub fn cluster(&self, timeout: Duration, interrupt: &dyn Interrupt) -> Result<String> {
        let status = self.block("looking at the cluster", timeout, interrupt, |channel, _| async move {
            let mut client = AdminClient::new(channel).max_decoding_message_size(MAX_REPLY);
            client.get_status(v1::GetStatusRequest::default()).await
        })?;
        Ok(status.cluster)
    }

    fn channel(&self, at: usize) -> Result<Channel> {
        let pid = std::process::id();
        if pid == self.pid {
            return Ok(self.channels[at].clone());
        }
        let _inside = runtime::handle()?.enter();
        let fresh = dial(&self.route, &self.tls)?;
        let (owner, channels) = self.child.get_or_init(|| (pid, fresh.clone()));
        Ok(if *owner == pid { channels[at].clone() } else { fresh[at].clone() })
    }

    pub(super) fn block<T, F, Made>(
        &self,
        doing: &str,
        timeout: Duration,
        interrupt: &dyn Interrupt,
        make: F,
    ) -> Result<T>
    where
        F: Fn(Channel, Duration) -> Made,
        Made: Future<Output = Result<Response<T>, Status>>,
    {
        block_on(doing, timeout, interrupt, self.call(doing, timeout, make))
    }

    /// Makes a call that may be repeated, again and again while the connection breaks; `make` is given the time that is
    /// left. Unavailable when the coordinator could not be reached in time, Timeout when it does not answer.
    pub(super) async fn call<T, F, Made>(&self, doing: &str, timeout: Duration, make: F) -> Result<T>
    where
        F: Fn(Channel, Duration) -> Made,
        Made: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + timeout;
        let mut waits = retries();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (from, channel) = self.now()?;
            let status = match tokio::time::timeout(left + GRACE, make(channel, left)).await {
                Ok(Ok(reply)) => return Ok(reply.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => {
                    return Err(Error::timeout(format!(
                        "{doing}: the coordinator at {} has not answered for {timeout:?}",
                        self.url()
                    ))
                    .hint("is it stopped? The outcome of the call is unknown"));
                }
            };
            let broken = is_broken(&status);
            let is_named = self.turn(from, &status);
            let wait = if is_named { FIRST_RETRY } else { waits.next().unwrap_or(LAST_RETRY) };
            let late = Instant::now() + wait >= deadline;
            if broken && late {
                return Err(self.unreachable(doing, timeout, &status));
            }
            let error = Error::from(status);
            // Its own Unavailable: it is being stopped, and another one will answer.
            if !broken && (late || error.kind != Kind::Unavailable) {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn unreachable(&self, doing: &str, timeout: Duration, status: &Status) -> Error {
        let Refusal { why, hint } = refusal_of(self.route.url(), status);
        let url = self.url();
        Error::unavailable(format!("{doing}: can't reach the coordinator at {url} for {timeout:?}: {why}"))
            .hint(hint.unwrap_or("start it with `strata up` or `strata coordinator`, or correct its address"))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // In a forked child the channels belong to the parent's runtime, and its locks may be held for good.
        if self.pid == std::process::id() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.channels) };
        }
    }
}

fn dial(route: &Route, tls: &ClientTls) -> Result<Vec<Channel>> {
    route.urls().iter().map(|url| Ok(endpoint(url, tls)?.connect_lazy())).collect()
}

fn endpoint(url: &str, tls: &ClientTls) -> Result<Endpoint> {
    let endpoint = tls.endpoint(url)?;
    Ok(endpoint
        .connect_timeout(KEEP_ALIVE * 2)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// Waits between attempts; without an end, since each caller keeps its own time.
pub(super) fn retries() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_RETRY)
        .with_max_delay(LAST_RETRY)
        .without_max_times()
        .with_jitter()
        .build()
}
