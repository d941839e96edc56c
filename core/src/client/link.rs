//! The session stream: Hello up, events down, dialled again when it breaks.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use super::call::Caller;
use super::options::ConnectOptions;
use super::state::{Link, State};
use crate::config::locate;
use crate::error::{Error, Kind, Result};
use crate::proto::v1::session_event::Event;
use crate::proto::v1::session_request::Request;
use crate::proto::v1::sidecar_client::SidecarClient;
use crate::proto::v1::{
    self, Goodbye, Hello, SessionEvent, SessionRequest, StepQueryEvent, VoteStepRequest, Welcome,
};
use crate::version;

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_millis(500);

/// An open stream, past Hello.
pub(super) struct Stream {
    requests: mpsc::Sender<SessionRequest>,
    events: Streaming<SessionEvent>,
}

/// Opens a stream and says Hello; `resume` is 0 for a new session.
pub(super) async fn open(
    channel: &Channel,
    options: &ConnectOptions,
    socket: &str,
    resume: u64,
) -> Result<(Stream, Welcome)> {
    let doing = || format!("joining job {} as rank {} of {}", options.job, options.rank, options.world_size);
    let own = options.version.as_deref().unwrap_or(crate::VERSION);
    let mut version = v1::Version { version: own.to_owned(), ..version::ours() };
    version.features.retain(|feature| feature != version::STACKS || options.stacks.is_some());
    let hello = Hello {
        version: Some(version),
        job: options.job.to_string(),
        rank: options.rank.0,
        world_size: options.world_size.0,
        store: options.store.clone().unwrap_or_default(),
        token: options.token.clone().unwrap_or_default(),
        coordinator: options.coordinator.clone().unwrap_or_default(),
        pid: std::process::id(),
        host: locate::host_name(),
        resume,
        timeout_ms: options.timeout.as_millis() as u64,
    };
    let (requests, outgoing) = mpsc::channel(4);
    let first = SessionRequest { request: Some(Request::Hello(hello)) };
    requests.try_send(first).expect("a new channel has room for the first message");
    let mut client = SidecarClient::new(channel.clone());
    let mut events = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
    let welcome = match events.message().await? {
        Some(SessionEvent { event: Some(Event::Welcome(welcome)) }) => welcome,
        Some(other) => {
            return Err(Error::internal(format!("{}: the sidecar's first word was {other:?}", doing())));
        }
        None => return Err(Error::unavailable(format!("{}: the sidecar ended the stream", doing()))),
    };
    let theirs = welcome.version.as_ref().map(|version| version.version.as_str()).unwrap_or("unknown");
    if !version::work_together(own, theirs) {
        return Err(Error::invalid(format!("client {own} can't speak to sidecar {theirs} at {socket}"))
            .hint("run \"strata wheel .\" on this node and install it"));
    }
    Ok((Stream { requests, events }, welcome))
}

/// What the listener works with.
pub(super) struct Listener {
    pub options: ConnectOptions,
    pub socket: String,
    pub channel: Channel,
    pub state: watch::Sender<State>,
    /// Ends the stream without a word: the session's owner is gone.
    pub dropped: CancellationToken,
    /// Says Goodbye and ends.
    pub closing: CancellationToken,
}

impl Listener {
    /// Reads events until the session ends; a broken stream is dialled again within the job's time-out.
    pub async fn run(self, mut stream: Stream) {
        loop {
            tokio::select! {
                biased;
                () = self.dropped.cancelled() => return,
                () = self.closing.cancelled() => {
                    self.say_goodbye(stream).await;
                    return self.end(Error::fenced("calling on a closed job: it was closed").hint("connect again"));
                }
                () = self.listen(&mut stream) => {}
            }
            self.state.send_modify(|state| state.link = Link::Down);
            tokio::select! {
                biased;
                () = self.dropped.cancelled() => return,
                () = self.closing.cancelled() => {
                    return self.end(Error::fenced("calling on a closed job: it was closed").hint("connect again"));
                }
                again = self.reopen() => match again {
                    Ok((again, welcome)) => {
                        stream = again;
                        self.state.send_modify(|state| state.apply(Event::Welcome(welcome)));
                    }
                    Err(error) => return self.end(error),
                }
            }
        }
    }

    fn end(&self, error: Error) {
        self.state.send_modify(|state| state.link = Link::Ended(error));
    }

    /// Returns when the stream has ended, however it did.
    async fn listen(&self, stream: &mut Stream) {
        while let Ok(Some(message)) = stream.events.message().await {
            match message.event {
                Some(Event::StepQuery(query)) => self.answer_query(query),
                Some(Event::TakeStack(asked)) => self.answer_stack(asked.request),
                Some(event) => self.state.send_modify(|state| state.apply(event)),
                None => {}
            }
        }
    }

    /// Tells where this rank stands; repeated over breaks of the stream.
    fn answer_query(&self, query: StepQueryEvent) {
        let mut said = None;
        self.state.send_if_modified(|state| {
            said = state.asks.query(&query);
            false
        });
        let Some(last) = said else { return };
        let (caller, state) = (self.caller(), self.state.clone());
        tokio::spawn(async move {
            let answer = |mut client: SidecarClient<Channel>, session| async move {
                let StepQueryEvent { purpose, vote } = query;
                client.vote_step(VoteStepRequest { session, last_step: last.0, purpose, vote }).await
            };
            if let Err(error) = caller.call(answer).await {
                state.send_modify(|state| {
                    state.warnings.push(format!("agreeing on a step with the other ranks: {error}"))
                });
            }
        });
    }

    /// Says what this process is doing; the rank may be stuck, this thread is not.
    fn answer_stack(&self, request: u64) {
        let (caller, stacks) = (self.caller(), self.options.stacks.clone());
        tokio::spawn(async move {
            let Some(stacks) = stacks else { return };
            let taken = tokio::task::spawn_blocking(move || (stacks.0)()).await;
            let answer = taken.unwrap_or_else(|error| Err(format!("taking it failed: {error}")));
            let (stack, missing) = match answer {
                Ok(stack) => (stack, String::new()),
                Err(missing) => (String::new(), missing),
            };
            let tell = |mut client: SidecarClient<Channel>, session| {
                let (stack, missing) = (stack.clone(), missing.clone());
                async move {
                    client.answer_stack(v1::AnswerStackRequest { session, request, stack, missing }).await
                }
            };
            // Whoever asked is told by the sidecar that no answer came.
            if let Err(error) = caller.call(tell).await {
                tracing::debug!("telling what this process is doing: {error}");
            }
        });
    }

    pub fn caller(&self) -> Caller {
        Caller { channel: self.channel.clone(), state: self.state.clone() }
    }

    async fn reopen(&self) -> Result<(Stream, Welcome)> {
        let resume = self.state.borrow().welcome.session;
        let waits = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(LAST_RETRY)
            .without_max_times()
            .with_jitter()
            .with_total_delay(Some(self.options.timeout))
            .build();
        let mut last = Error::unavailable("the stream broke");
        for wait in waits {
            tokio::time::sleep(wait).await;
            match open(&self.channel, &self.options, &self.socket, resume).await {
                Ok(opened) => return Ok(opened),
                Err(error) if matches!(error.kind, Kind::Unavailable | Kind::Timeout | Kind::Overloaded) => {
                    last = error;
                }
                Err(error) if error.kind == Kind::NotFound => {
                    return Err(Error::fenced(format!("taking up the session again: {}", error.message))
                        .hint("call strata.connect again to join the next generation"));
                }
                Err(error) => return Err(error.while_doing("taking up the session again")),
            }
        }
        Err(last
            .while_doing(format!(
                "reaching the sidecar again for {:?} at {}",
                self.options.timeout, self.socket
            ))
            .hint("start the sidecar again, then call strata.connect again"))
    }

    async fn say_goodbye(&self, mut stream: Stream) {
        let goodbye = SessionRequest { request: Some(Request::Goodbye(Goodbye {})) };
        if stream.requests.send(goodbye).await.is_err() {
            return;
        }
        drop(stream.requests);
        // The sidecar ends the stream once it has taken note; one that doesn't is not waited for.
        let ended = async { while let Ok(Some(_)) = stream.events.message().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
    }
}
