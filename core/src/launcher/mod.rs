//! `strata run`: ranks, their environment, restarts and logs on one node.
//! Called by the command line. Never touches checkpoints itself: what is Sealed when a rank dies is the sidecar's.

mod attempt;
mod output;
mod rank;
mod roster;
mod sidecar;
mod standby;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use humantime::format_duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Doing, Error, Result};
use crate::ids::JobName;
use attempt::{Attempt, Ended};
use roster::{Next, Roster};
use sidecar::OwnSidecar;
use standby::{Standby, beside};

/// What `strata run` was asked for.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    /// Program and arguments of every rank.
    pub command: Vec<OsString>,
    /// Ranks on this node; also the world size.
    pub ranks: u32,
    /// With as few as these the run goes on when ranks are lost again and again.
    pub min_ranks: u32,
    /// How often all ranks are started again after one was lost.
    pub max_restarts: u32,
    /// How long a place waits that was left out, until it is tried again; twice as long each time that this fails.
    pub grow_after: Duration,
    /// So long after an attempt's start the next one's ranks are started: they wait in `strata.connect`. None: never.
    pub standby: Option<Duration>,
    /// Where `rank-<rank>.<attempt>.log` is kept; none: the output is only shown.
    pub log_dir: Option<PathBuf>,
    /// How long ranks may take to end after a forwarded SIGTERM or SIGINT.
    pub grace: Duration,
    pub job: JobName,
    /// Where the node's sidecar may answer; the ranks' STRATA_SOCKET is the one that does.
    pub sockets: Vec<PathBuf>,
    /// Starts a sidecar on one of `sockets`, before the ranks and until after them; none: one answers already.
    pub sidecar: Option<Vec<OsString>>,
    /// Set for every rank beside RANK and its like.
    pub environment: Vec<(OsString, OsString)>,
}

impl LaunchOptions {
    fn check(&self) -> Result<()> {
        if self.command.is_empty() {
            return Err(Error::invalid("starting ranks: no command was given")
                .hint("put it behind two dashes: strata run --nproc-per-node 2 -- python train.py"));
        }
        if self.ranks == 0 {
            return Err(Error::invalid("starting ranks: --nproc-per-node is 0").hint("use 1 or more"));
        }
        if self.min_ranks == 0 || self.min_ranks > self.ranks {
            return Err(Error::invalid(format!(
                "starting ranks: --min-nproc is {}, --nproc-per-node {}",
                self.min_ranks, self.ranks
            ))
            .hint("use 1 or more, and no more than --nproc-per-node"));
        }
        Ok(())
    }

    fn spent(&self) -> String {
        match self.max_restarts {
            0 => "no restart was asked for (--max-restarts)".to_owned(),
            1 => "the one restart is used up".to_owned(),
            used => format!("all {used} restarts are used up"),
        }
    }
}

/// Exit code of a launch that was stopped before it began.
const INTERRUPTED: u8 = 130;

/// [`launch`] on a runtime of its own: the death signal by which ranks end with us is bound to the thread that starts
/// them, so that has to be the one thread of the runtime.
pub fn run(options: &LaunchOptions) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.doing(|| "starting the runtime")?.block_on(launch(options))
}

/// Runs all ranks until they end well, restarting all of them when one is lost (fewer, where `min_ranks` allows it); returns the exit code: 0, or that of
/// the first failed rank (128 + n for signal n). SIGTERM and SIGINT are forwarded, after which nothing is restarted; a
/// second one ends the ranks at once.
///
/// Wants a runtime of one thread, see [`run`]. Fails with Invalid for a wrong option and NotFound for a command that is not there.
pub async fn launch(options: &LaunchOptions) -> Result<u8> {
    options.check()?;
    if let Some(folder) = &options.log_dir {
        std::fs::create_dir_all(folder).doing(|| format!("making the log folder {}", folder.display()))?;
    }
    let mut stops = Stops::listen()?;
    let Some(command) = &options.sidecar else { return restarting(options, &mut stops).await };
    let Some(sidecar) = OwnSidecar::start(command, options, &mut stops).await? else {
        return Ok(INTERRUPTED);
    };
    let mut told = options.clone();
    told.environment.push(("STRATA_SOCKET".into(), sidecar.socket().into()));
    let ended = restarting(&told, &mut stops).await;
    let work_left = sidecar.end(&mut stops).await?;
    if work_left {
        tracing::warn!("the sidecar ended with steps that are only in memory");
    }
    Ok(match ended? {
        0 if work_left => sidecar::WORK_LEFT,
        code => code,
    })
}

async fn restarting(options: &LaunchOptions, stops: &mut Stops) -> Result<u8> {
    let roster = Roster::new(options.ranks, options.min_ranks, options.max_restarts, options.grow_after);
    let mut attempts = Attempts { options, roster, begin: Instant::now(), waiting: None };
    let code = attempts.run(stops).await;
    if let Some(standby) = attempts.waiting {
        standby.discard().await;
    }
    code
}

/// One after the other.
struct Attempts<'a> {
    options: &'a LaunchOptions,
    roster: Roster,
    begin: Instant,
    /// The next one's ranks, started ahead of time.
    waiting: Option<Standby>,
}

impl Attempts<'_> {
    async fn run(&mut self, stops: &mut Stops) -> Result<u8> {
        for number in 0.. {
            let places = self.roster.line_up(self.begin.elapsed());
            let started = Instant::now();
            let attempt = self.attempt(number, &places).await?;
            match self.run_one(attempt, number, &places, stops).await? {
                Ended::Well => return Ok(0),
                Ended::Stopped(code) => return Ok(code),
                Ended::ToGrow => {}
                Ended::Lost { rank, code } => {
                    let next =
                        self.roster.lost(places[rank as usize], started.elapsed(), self.begin.elapsed());
                    let lost = format!("rank {rank} ended with code {code}");
                    if next == Next::End {
                        tracing::error!("{lost}; {}", self.options.spent());
                        return Ok(code);
                    }
                    tracing::warn!("{lost}: {}", self.options.going_on(&next, &places, rank));
                }
            }
        }
        unreachable!("the attempts are counted without end")
    }

    /// Its ranks run: those that wait, if they are the right ones.
    async fn attempt(&mut self, number: u32, places: &[u32]) -> Result<Attempt> {
        if let Some(standby) = self.waiting.take()
            && let Some(called) = standby.called(places).await
        {
            return Ok(called);
        }
        Attempt::start(self.options, number, places)
    }

    async fn run_one(
        &mut self,
        attempt: Attempt,
        number: u32,
        places: &[u32],
        stops: &mut Stops,
    ) -> Result<Ended> {
        let grow_at = self.roster.next_trial().map(|at| self.begin + at);
        let run = attempt.run(self.options.grace, grow_at, stops);
        let Some(after) = self.options.standby else { return run.await };
        let ahead = || Standby::start(self.options, number + 1, places);
        let (ended, standby) = beside(run, after, ahead).await;
        self.waiting = standby;
        ended
    }
}

impl LaunchOptions {
    /// What is done after a loss that ends nothing.
    fn going_on(&self, next: &Next, places: &[u32], rank: u32) -> String {
        match next {
            Next::Without { rest } => format!(
                "going on with {} without place {}, which is tried again in {}",
                ranks(places.len() - 1),
                places[rank as usize],
                format_duration(*rest)
            ),
            Next::Again { restart } => {
                let all =
                    if places.len() == 1 { "it".to_owned() } else { format!("all {}", ranks(places.len())) };
                format!("starting {all} again (restart {restart} of {})", self.max_restarts)
            }
            Next::End => self.spent(),
        }
    }
}

fn ranks(count: usize) -> String {
    if count == 1 { "1 rank".to_owned() } else { format!("{count} ranks") }
}

/// The signals that ask us to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn listen() -> Result<Stops> {
        let listen = |kind| signal(kind).doing(|| "listening for signals");
        Ok(Stops { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> rustix::process::Signal {
        tokio::select! {
            _ = self.terminate.recv() => rustix::process::Signal::TERM,
            _ = self.interrupt.recv() => rustix::process::Signal::INT,
        }
    }
}

#[cfg(test)]
mod tests;
