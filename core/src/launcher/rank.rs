//! One rank as a child process: its environment, its process group, its end.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal};
use tokio::io::{Stderr, Stdout};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::LaunchOptions;
use super::output::{self, Screen};
use crate::error::{Error, Kind, Result};

pub struct RankProcess {
    pub rank: u32,
    group: Pid,
    child: Child,
    streams: [JoinHandle<()>; 2],
}

/// A rank and all that it has started.
#[derive(Clone, Copy)]
pub struct RankGroup {
    pub rank: u32,
    group: Pid,
}

/// In proc(5)'s flags of a task (`linux/sched.h`).
const PF_EXITING: u64 = 4;

impl RankGroup {
    /// Its process runs no code any more. Its end can't be waited for before its memory is freed, 70 ms a GiB.
    pub fn is_ending(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.group.as_raw_pid()));
        // The second field, in brackets, may hold anything.
        let fields =
            stat.as_ref().ok().and_then(|stat| stat.rsplit_once(')')).map_or("", |(_, fields)| fields);
        let mut fields = fields.split_ascii_whitespace();
        let is_dead = fields.next().is_some_and(|state| matches!(state, "Z" | "X"));
        let flags: Option<u64> = fields.nth(5).and_then(|flags| flags.parse().ok());
        is_dead || flags.is_some_and(|flags| flags & PF_EXITING != 0)
    }

    /// A group that is gone already is no error.
    pub fn send(&self, signal: Signal) {
        if let Err(errno) = kill_process_group(self.group, signal)
            && errno != rustix::io::Errno::SRCH
        {
            tracing::warn!("sending {signal:?} to rank {}: {errno}", self.rank);
        }
    }
}

/// Where the ranks of one attempt meet.
pub struct Meeting {
    pub attempt: u32,
    pub master_port: u16,
    pub out: Screen<Stdout>,
    pub err: Screen<Stderr>,
}

impl RankProcess {
    /// Starts rank `rank` in a process group of its own.
    pub fn start(options: &LaunchOptions, rank: u32, meeting: &Meeting) -> Result<RankProcess> {
        let program = &options.command[0];
        let mut command = Command::new(program);
        command.args(&options.command[1..]).envs(environment(options, rank, meeting));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        end_with_us(&mut command, Signal::KILL);
        let mut child = command.spawn().map_err(|error| {
            let error = Error::io(format!("starting rank {rank}: running {program:?}"), &error);
            match error.kind {
                Kind::NotFound => error.hint("the command after `--` is looked up in PATH"),
                _ => error,
            }
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let group =
            group.ok_or_else(|| Error::internal(format!("starting rank {rank}: it has no process id")))?;
        let log = output::Log::open(options.log_dir.as_deref(), rank, meeting.attempt)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let streams = [
            tokio::spawn(output::forward(out, meeting.out.clone(), rank, log.clone())),
            tokio::spawn(output::forward(err, meeting.err.clone(), rank, log)),
        ];
        Ok(RankProcess { rank, group, child, streams })
    }

    /// Waits for the end; returns the exit code, 128 + n for signal n.
    pub async fn ended(&mut self) -> Result<u8> {
        let status =
            self.child.wait().await.map_err(|e| Error::io(format!("waiting for rank {}", self.rank), &e))?;
        Ok(exit_code(status))
    }

    pub fn group(&self) -> RankGroup {
        RankGroup { rank: self.rank, group: self.group }
    }

    /// Ends what the rank left behind in its group and waits until its output is written out.
    pub async fn finish(self) {
        self.group().send(Signal::KILL);
        for stream in self.streams {
            if let Err(error) = stream.await {
                tracing::warn!("forwarding the output of rank {}: {error}", self.rank);
            }
        }
    }
}

pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn environment(options: &LaunchOptions, rank: u32, meeting: &Meeting) -> Vec<(OsString, OsString)> {
    let world = options.ranks.to_string();
    let mut pairs: Vec<(OsString, OsString)> = [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", world.clone()),
        ("LOCAL_WORLD_SIZE", world),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", meeting.master_port.to_string()),
        ("STRATA_JOB", options.job.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.into(), value.into()))
    .collect();
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        // Every rank taking all cores for itself slows all of them down.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = (cores / options.ranks as usize).max(1);
        pairs.push(("OMP_NUM_THREADS".into(), share.to_string().into()));
    }
    if std::env::var_os("PYTHONUNBUFFERED").is_none() {
        // Into a pipe Python writes 8 KiB at a time: a killed rank's last lines would be lost with it.
        pairs.push(("PYTHONUNBUFFERED".into(), "1".into()));
    }
    pairs.extend(options.environment.iter().cloned());
    pairs
}

/// The child gets `signal` when we die, whatever kills us.
pub(super) fn end_with_us(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only two system calls are made, both async-signal-safe; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(signal))?;
            // We may have died before the line above: then nobody would end this child.
            match getppid() {
                Some(now) if now == parent => Ok(()),
                _ => Err(rustix::io::Errno::SRCH.into()),
            }
        });
    }
}
