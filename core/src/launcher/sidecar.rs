//! The sidecar that a launcher starts where none answers: before the first rank, until after the last one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::rank::{end_with_us, exit_code};
use super::{LaunchOptions, Stops};
use crate::client::{Uninterrupted, find_sidecar};
use crate::error::{Doing, Error, Result};

/// A start reads a log and scans arenas: seconds on a slow disk.
const START: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Between the end of one that died and the start of the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Exit code of a sidecar that ended with steps only in memory.
pub const WORK_LEFT: u8 = 75;

/// A sidecar of our own. It survives ranks, is started again when it dies, and drains when we end, however we end.
pub struct OwnSidecar {
    socket: PathBuf,
    stop: CancellationToken,
    kept: JoinHandle<Result<u8>>,
}

impl OwnSidecar {
    /// Starts it and waits until it answers. None when a signal came first.
    /// Its own error has gone to its log when it can't start: Unavailable names that.
    pub async fn start(
        command: &[OsString],
        options: &LaunchOptions,
        stops: &mut Stops,
    ) -> Result<Option<OwnSidecar>> {
        let log = options.log_dir.as_deref().map(|folder| folder.join("sidecar.log"));
        let start = Start { command: command.to_vec(), log };
        let mut child = start.spawn()?;
        let socket = tokio::select! {
            socket = answers(&options.sockets) => socket?,
            code = child.wait() => {
                let code = exit_code(code.doing(|| "waiting for the sidecar")?);
                return Err(start.failed(code));
            }
            _ = stops.next() => {
                signal(&child, Signal::TERM);
                child.wait().await.doing(|| "waiting for the sidecar")?;
                return Ok(None);
            }
        };
        let stop = CancellationToken::new();
        // On this thread: the death signal is bound to the one that forks.
        let kept = tokio::spawn(start.keep(child, stop.clone()));
        Ok(Some(OwnSidecar { socket, stop, kept }))
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Lets it persist what is sealed; true when work is left. A signal ends the wait.
    pub async fn end(mut self, stops: &mut Stops) -> Result<bool> {
        self.stop.cancel();
        let code = tokio::select! {
            code = &mut self.kept => code.map_err(|error| Error::internal(format!("ending the sidecar: {error}")))??,
            _ = stops.next() => WORK_LEFT,
        };
        Ok(code == WORK_LEFT)
    }
}

struct Start {
    command: Vec<OsString>,
    log: Option<PathBuf>,
}

impl Start {
    fn spawn(&self) -> Result<Child> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| Error::invalid("starting a sidecar: the command is empty"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(path) = &self.log {
            let file = std::fs::File::options().create(true).append(true).open(path);
            command.stderr(file.doing(|| format!("making the log {}", path.display()))?);
        }
        // Ctrl-C in a terminal is for the ranks: they may still save.
        command.process_group(0);
        end_with_us(&mut command, Signal::TERM);
        command.spawn().doing(|| format!("starting a sidecar: running {}", program.display()))
    }

    /// Starts it again whenever it dies, until `stop`; then the exit code of its orderly end.
    async fn keep(self, mut child: Child, stop: CancellationToken) -> Result<u8> {
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    signal(&child, Signal::TERM);
                    return Ok(exit_code(child.wait().await.doing(|| "waiting for the sidecar")?));
                }
                ended = child.wait() => {
                    let code = exit_code(ended.doing(|| "waiting for the sidecar")?);
                    tracing::warn!("the sidecar ended with code {code}: starting it again");
                    tokio::time::sleep(PAUSE).await;
                    child = self.spawn()?;
                }
            }
        }
    }

    fn failed(&self, code: u8) -> Error {
        let error = Error::unavailable(format!("starting a sidecar: it ended with code {code}"));
        match &self.log {
            Some(path) => error.hint(format!("its own words are in {}", path.display())),
            None => error.hint("its own words stand above"),
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) else { return };
    if let Err(errno) = kill_process(pid, signal) {
        tracing::warn!("sending {signal:?} to the sidecar: {errno}");
    }
}

/// The first of the sockets that answers, as soon as one does.
async fn answers(sockets: &[PathBuf]) -> Result<PathBuf> {
    let deadline = tokio::time::Instant::now() + START;
    loop {
        let candidates = sockets.to_vec();
        let asked = tokio::task::spawn_blocking(move || find_sidecar(&candidates, &Uninterrupted)).await;
        match asked.map_err(|error| Error::internal(format!("asking for the sidecar: {error}")))? {
            Ok(socket) => return Ok(socket),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}
