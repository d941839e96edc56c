//! One trainer's session with its sidecar.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::arenas::Arenas;
use super::call::Caller;
use super::interrupt::{Interrupt, block_on};
use super::link::{self, Listener};
use super::mapped::MappedSlots;
use super::options::ConnectOptions;
use super::runtime;
use super::socket;
use super::state::{Link, State};
use crate::error::{Doing, Error, Kind, Result};
use crate::handoff::life::{LifeLine, Spent};
use crate::ids::{Generation, JobName, Rank, Step, WorldSize};
use crate::proto::v1::admin_client::AdminClient;
use crate::proto::v1::{self, RankPhase};

/// Between tries to join.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_millis(500);

/// A rank's membership in a job, from `connect` to `close`. Cheap to clone. All calls block the calling thread, take a
/// time-out (None: the job's budget) and ask the interrupt every 50 ms. Once the generation has ended every call is
/// Fenced, naming who was lost. Dropped without `close`, the rank stays a member until its process ends.
pub struct Session {
    inner: ManuallyDrop<Arc<Inner>>,
}

pub(super) struct Inner {
    pid: u32,
    pub options: ConnectOptions,
    socket: PathBuf,
    pub caller: Caller,
    pub state: watch::Sender<State>,
    /// Of the membership, for calls from forked children, which must not take a lock of the parent.
    generation: AtomicU64,
    pub arenas: Arenas,
    pub mapped: MappedSlots,
    /// Tells the sidecar where this rank is, and when its process ends.
    life: Option<LifeLine>,
    /// Calls in which the script waits for others.
    waits: AtomicU32,
    /// Background calls that `close` waits for.
    pub tasks: TaskTracker,
    closing: CancellationToken,
    dropped: CancellationToken,
    pub barrier_rounds: Mutex<HashMap<String, u64>>,
    pub restore_rounds: AtomicU64,
    /// A forked child's own connection, and the child's pid.
    child: OnceLock<(u32, Channel)>,
}

impl Session {
    /// Joins the job. Unavailable, with each path tried, when no sidecar answers; Invalid for another version; Conflict
    /// when the rank lives already; Denied for another user or a wrong token.
    pub fn connect(options: ConnectOptions, interrupt: &dyn Interrupt) -> Result<Session> {
        let doing = format!("connecting to job {} as rank {}", options.job, options.rank);
        let timeout = options.timeout;
        let runtime = runtime::handle()?;
        block_on(&doing, timeout, interrupt, async {
            let path = socket::find(&options.sockets).await?;
            let channel = socket::channel(&path);
            let shown = path.display().to_string();
            let (stream, welcome) = join(&channel, &options, &shown).await?;
            let arena = welcome.arena.clone();
            let life = hold_life_line(&welcome.life);
            let generation = AtomicU64::new(welcome.generation);
            let state = watch::Sender::new(State::new(welcome));
            let (closing, dropped) = (CancellationToken::new(), CancellationToken::new());
            let listener = Listener {
                options: options.clone(),
                socket: shown,
                channel,
                state: state.clone(),
                dropped: dropped.clone(),
                closing: closing.clone(),
            };
            let caller = listener.caller();
            let tasks = TaskTracker::new();
            runtime.spawn(tasks.track_future(listener.run(stream)));
            let session = Session {
                inner: ManuallyDrop::new(Arc::new(Inner {
                    pid: std::process::id(),
                    options,
                    socket: path,
                    caller,
                    state,
                    generation,
                    arenas: Arenas::default(),
                    mapped: MappedSlots::default(),
                    life,
                    waits: AtomicU32::new(0),
                    tasks,
                    closing,
                    dropped,
                    barrier_rounds: Mutex::default(),
                    restore_rounds: AtomicU64::new(1),
                    child: OnceLock::new(),
                })),
            };
            if !arena.is_empty() {
                session.inner.arenas.use_file(Path::new(&arena))?.populate_in_background();
            }
            Ok(session)
        })
    }

    pub fn job(&self) -> &JobName {
        &self.inner.options.job
    }

    pub fn rank(&self) -> Rank {
        self.inner.options.rank
    }

    pub fn world_size(&self) -> WorldSize {
        self.inner.options.world_size
    }

    /// Of the socket that answered.
    pub fn socket(&self) -> &Path {
        &self.inner.socket
    }

    /// URL of the job's store, as the sidecar resolved it.
    pub fn store(&self) -> Result<String> {
        Ok(self.own()?.state.borrow().welcome.store.clone())
    }

    /// That this session joins, or has joined.
    pub fn generation(&self) -> Generation {
        Generation(self.inner.generation.load(Ordering::Relaxed))
    }

    /// A rank was lost, or the job was left: no call can succeed any more.
    pub fn has_ended(&self) -> bool {
        self.inner.state.borrow().ended().is_some()
    }

    /// The budget of a blocking call that names none.
    pub fn default_timeout(&self) -> Duration {
        match self.own().map(|inner| inner.state.borrow().welcome.timeout_ms) {
            Ok(milliseconds) if milliseconds > 0 => Duration::from_millis(milliseconds),
            _ => self.inner.options.timeout,
        }
    }

    /// Returns when the declared world is complete and the generation open. Timeout naming the missing ranks.
    pub fn wait_world(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<v1::Generation> {
        let inner = self.own()?;
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        let generation = self.block(
            "waiting for the world",
            timeout,
            interrupt,
            inner.caller.call(|mut client, session| async move {
                client.wait_world(v1::WaitWorldRequest { session, timeout_ms: milliseconds(timeout) }).await
            }),
        )?;
        inner.generation.store(generation.generation, Ordering::Relaxed);
        inner.state.send_modify(|state| state.generation = Some(generation.clone()));
        Ok(generation)
    }

    /// Sizes the rank's arena for the state and pre-faults it in the background, so that the first save is as quick as
    /// later ones. Overloaded, with the numbers, when memory is short.
    pub fn prepare(
        &self,
        slot_bytes: u64,
        timeout: Option<Duration>,
        interrupt: &dyn Interrupt,
    ) -> Result<()> {
        let inner = self.own()?;
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        let reply = self.block(
            "preparing the arena",
            timeout,
            interrupt,
            inner.caller.call(|mut client, session| async move {
                client.prepare(v1::PrepareRequest { session, slot_bytes, slots: 0 }).await
            }),
        )?;
        if !reply.arena.is_empty() {
            inner.arenas.use_file(Path::new(&reply.arena))?.populate_in_background();
        }
        Ok(())
    }

    /// Returns when every rank of the generation has called with this name; a rank that timed out calls again and
    /// arrives at the same round. Timeout naming the missing ranks and hosts.
    pub fn barrier(&self, name: &str, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<()> {
        let inner = self.own()?;
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        let round = *inner.barrier_rounds.lock().entry(name.to_owned()).or_insert(1);
        let _waiting = inner.waits(RankPhase::Waiting);
        let arrive = inner.caller.call(|mut client, session| async move {
            let timeout_ms = milliseconds(timeout);
            client
                .barrier(v1::SidecarBarrierRequest { session, name: name.to_owned(), round, timeout_ms })
                .await
        });
        self.block(&format!("waiting at barrier {name:?}"), timeout, interrupt, arrive)?;
        inner.barrier_rounds.lock().insert(name.to_owned(), round + 1);
        Ok(())
    }

    /// What went wrong in the background since it was last asked.
    pub fn take_warnings(&self) -> Vec<String> {
        let Ok(inner) = self.own() else { return Vec::new() };
        let mut warnings = Vec::new();
        inner.state.send_if_modified(|state| {
            warnings = std::mem::take(&mut state.warnings);
            false
        });
        warnings
    }

    /// Leaves the generation in good order; what is Sealed is still committed. Waits for background calls at most
    /// `timeout`. A closed session answers every call with Fenced; closing it again, or in a forked child, does nothing.
    pub fn close(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<()> {
        let Ok(inner) = self.own() else { return Ok(()) };
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        inner.tasks.close();
        let outcome = block_on("closing the job", timeout, interrupt, async {
            // All but the listener, which ends by this very call.
            while inner.tasks.len() > 1 && !matches!(inner.state.borrow().link, Link::Ended(_)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            inner.closing.cancel();
            inner.tasks.wait().await;
            Ok(())
        });
        inner.closing.cancel();
        outcome
    }

    /// The parts that only the process that connected may use. Invalid in a forked child.
    pub(super) fn own(&self) -> Result<&Arc<Inner>> {
        if self.inner.pid == std::process::id() {
            return Ok(&self.inner);
        }
        Err(Error::invalid(format!(
            "calling as rank {} of job {}: process {} connected, this is its forked child",
            self.inner.options.rank, self.inner.options.job, self.inner.pid
        ))
        .hint(
            "save, restore and barriers belong to the process that connected; in a child look-ups alone work",
        ))
    }

    pub(super) fn token(&self) -> String {
        self.inner.options.token.clone().unwrap_or_default()
    }

    /// A channel for look-ups, in a forked child its own.
    pub(super) fn channel(&self) -> Result<Channel> {
        let pid = std::process::id();
        if pid == self.inner.pid {
            return Ok(self.inner.caller.channel.clone());
        }
        let _inside = runtime::handle()?.enter();
        let (owner, channel) = self.inner.child.get_or_init(|| (pid, socket::channel(&self.inner.socket)));
        Ok(if *owner == pid { channel.clone() } else { socket::channel(&self.inner.socket) })
    }

    pub(super) fn block<T>(
        &self,
        doing: &str,
        timeout: Duration,
        interrupt: &dyn Interrupt,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        block_on(doing, timeout, interrupt, call).doing(|| format!("job {}", self.inner.options.job))
    }
}

impl Clone for Session {
    fn clone(&self) -> Session {
        Session { inner: self.inner.clone() }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // In a forked child everything here belongs to the parent's runtime and may be locked for good.
        if self.inner.pid == std::process::id() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

impl Inner {
    /// Says where this rank is, for whoever looks at it from outside; None: at the step that it named last.
    pub fn at(&self, step: Option<Step>, phase: RankPhase) {
        if let Some(life) = &self.life {
            life.set_progress(step, phase);
        }
    }

    /// A save has handed its state over, or given up, maybe on a thread of its own: the script may be waiting somewhere.
    pub fn saved(&self) {
        if self.waits.load(Ordering::Relaxed) == 0 {
            self.at(None, RankPhase::Training);
        }
    }

    /// Says that the script waits, until what it gives is dropped: a rank that waits is not taken for one that hangs.
    pub fn waits(&self, phase: RankPhase) -> Waits<'_> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        let before = self.phase();
        self.at(None, phase);
        Waits { inner: self, phase, before }
    }

    fn phase(&self) -> RankPhase {
        self.life.as_ref().map(LifeLine::phase).unwrap_or_default()
    }
}

pub(super) struct Waits<'a> {
    inner: &'a Inner,
    phase: RankPhase,
    before: RankPhase,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.inner.waits.fetch_sub(1, Ordering::Relaxed);
        // Another thread may have gone on to the next step.
        if self.inner.phase() != self.phase {
            return;
        }
        // A save that was under way may have ended meanwhile, without a word.
        let before = if self.before == RankPhase::Checkpointing { RankPhase::Training } else { self.before };
        self.inner.at(None, before);
    }
}

impl Session {
    /// Says that a save has held training for so long, for the job's ledger.
    pub fn saving_held(&self, time: Duration) {
        self.spend(Spent { saving: time, ..Spent::default() });
    }

    /// The same of a restore.
    pub fn restoring_held(&self, time: Duration) {
        self.spend(Spent { restoring: time, ..Spent::default() });
    }

    fn spend(&self, more: Spent) {
        if let Ok(inner) = self.own()
            && let Some(life) = &inner.life
        {
            life.spend(more);
        }
    }

    /// Where the job's time has gone, as the coordinator knows it.
    pub fn goodput(&self, timeout: Option<Duration>, interrupt: &dyn Interrupt) -> Result<v1::JobGoodput> {
        let timeout = timeout.unwrap_or_else(|| self.default_timeout());
        let request = v1::GetGoodputRequest { job: self.job().to_string() };
        let mut client = AdminClient::new(self.channel()?);
        let told = self.block("asking where time went", timeout, interrupt, async {
            Ok(client.get_goodput(request).await?.into_inner())
        })?;
        told.jobs.into_iter().next().ok_or_else(|| Error::internal("asking where time went: no answer"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.dropped.cancel();
    }
}

/// Without one the sidecar notices this process's end by its pidfd: later.
fn hold_life_line(path: &str) -> Option<LifeLine> {
    if path.is_empty() {
        return None;
    }
    LifeLine::hold(Path::new(path)).inspect_err(|error| tracing::warn!("{error}")).ok()
}

/// Says Hello until it is answered for good: the number of a rank that was lost without a proof of its death comes free
/// when its lease runs out.
async fn join(
    channel: &Channel,
    options: &ConnectOptions,
    socket: &str,
) -> Result<(link::Stream, v1::Welcome)> {
    let deadline = Instant::now() + options.timeout;
    loop {
        let error = match link::open(channel, options, socket, 0).await {
            Err(error) if error.kind == Kind::Conflict => error,
            answer => return answer,
        };
        match error.retry_after {
            Some(after) if Instant::now() + after < deadline => {
                tokio::time::sleep(after.clamp(SOON, LATER)).await;
            }
            _ => return Err(error),
        }
    }
}

pub(super) fn milliseconds(timeout: Duration) -> u64 {
    // 0 means "the default" on the wire.
    (timeout.as_millis() as u64).max(1)
}
