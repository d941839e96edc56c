//! One rank as a child process: its environment, its process group, its end.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{
    Pid, Signal, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};
use tokio::io::{Stderr, Stdout};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::LaunchOptions;
use super::output::{self, Screen};
use crate::error::{Doing, Error, Kind, Result};

pub struct RankProcess {
    pub rank: u32,
    group: Pid,
    child: Child,
    streams: [JoinHandle<()>; 2],
    /// Where one that was started ahead of time is called.
    call: Option<OwnedFd>,
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

    /// Whether SIGTERM means something to its process: it has a handler, and will not just die of it.
    pub fn heeds_term(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.group.as_raw_pid()));
        let caught = status.as_ref().ok().and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            u64::from_str_radix(mask.trim(), 16).ok()
        });
        caught.is_some_and(|caught| caught >> (Signal::TERM.as_raw() - 1) & 1 == 1)
    }

    /// Tells the rank alone: what it has started is its own to end. (A torch DataLoader fails when its workers are
    /// told too, before the rank has saved.) A rank that is gone already is no error.
    pub fn tell(&self, signal: Signal) {
        self.sent(signal, kill_process(self.group, signal));
    }

    /// Ends the rank and all that it has started.
    pub fn kill(&self) {
        self.sent(Signal::KILL, kill_process_group(self.group, Signal::KILL));
    }

    fn sent(&self, signal: Signal, sent: rustix::io::Result<()>) {
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => tracing::warn!("sending {signal:?} to rank {}: {errno}", self.rank),
        }
    }
}

/// Where the ranks of one attempt meet.
pub struct Meeting {
    pub attempt: u32,
    /// By rank: where on the node each has its place.
    pub places: Vec<u32>,
    pub master_port: u16,
    /// Its ranks are started ahead of time.
    pub waits: bool,
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
        let (called, call) =
            if meeting.waits { Some(called_through(&mut command)?).unzip() } else { (None, None) };
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
        drop(called);
        Ok(RankProcess { rank, group, child, streams, call })
    }

    /// Lets one that was started ahead of time begin.
    pub fn call(&mut self) -> Result<()> {
        let Some(call) = self.call.take() else { return Ok(()) };
        rustix::io::write(&call, b"!").doing(|| format!("calling rank {}", self.rank)).map(drop)
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
        self.group().kill();
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
    let world = meeting.places.len();
    let mut pairs: Vec<(OsString, OsString)> = [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", world.to_string()),
        ("LOCAL_WORLD_SIZE", world.to_string()),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", meeting.master_port.to_string()),
        ("STRATA_JOB", options.job.to_string()),
        ("STRATA_PLACE", meeting.places[rank as usize].to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.into(), value.into()))
    .collect();
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        // Every rank taking all cores for itself slows all of them down.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = (cores / world).max(1);
        pairs.push(("OMP_NUM_THREADS".into(), share.to_string().into()));
    }
    if std::env::var_os("PYTHONUNBUFFERED").is_none() {
        // Into a pipe Python writes 8 KiB at a time: a killed rank's last lines would be lost with it.
        pairs.push(("PYTHONUNBUFFERED".into(), "1".into()));
    }
    if world < options.ranks as usize {
        pairs.extend(visible_devices(options.ranks, &meeting.places, |name| std::env::var(name).ok()));
    }
    pairs.extend(options.environment.iter().cloned());
    pairs
}

/// Which accelerators a process sees, in the order of LOCAL_RANK.
const VISIBLE: [&str; 3] = ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

/// Scripts take the device of their LOCAL_RANK, which counts without gaps: the devices of places that are left out are
/// hidden. A list that is not one device a rank stays as it is; without any the devices are counted from 0.
fn visible_devices(
    ranks: u32,
    places: &[u32],
    set: impl Fn(&str) -> Option<String>,
) -> Vec<(OsString, OsString)> {
    let listed: Vec<_> = VISIBLE.iter().filter_map(|name| set(name).map(|list| (*name, list))).collect();
    let all = match listed.is_empty() {
        true => vec![(VISIBLE[0], (0..ranks).map(|n| n.to_string()).collect::<Vec<_>>().join(","))],
        false => listed,
    };
    let of_places = |list: &str| {
        let devices: Vec<&str> = list.split(',').map(str::trim).collect();
        let one_each = devices.len() == ranks as usize;
        one_each.then(|| places.iter().map(|place| devices[*place as usize]).collect::<Vec<_>>().join(","))
    };
    all.iter().filter_map(|(name, list)| Some(((*name).into(), of_places(list)?.into()))).collect()
}

/// The child waits (in `strata.connect`) until something is written to the second of these ends of a pipe, and ends when
/// that is closed. The first is the child's, which has it open under the same number.
fn called_through(command: &mut Command) -> Result<(OwnedFd, OwnedFd)> {
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (called, call) = pipe.doing(|| "making a pipe to call a rank through")?;
    let number = called.as_raw_fd();
    command.env("STRATA_STANDBY", number.to_string());
    // SAFETY: one system call between fork and exec, on a descriptor that stays open until the child was started.
    unsafe {
        command.pre_exec(move || {
            let kept = BorrowedFd::borrow_raw(number);
            Ok(rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::empty())?)
        });
    }
    Ok((called, call))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_places_that_are_left_out_are_hidden() {
        let seen = |set: &[(&str, &str)]| {
            let of =
                |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, list)| (*list).to_owned());
            visible_devices(4, &[0, 2, 3], of)
        };
        let pair = |name: &str, list: &str| (OsString::from(name), OsString::from(list));
        assert_eq!(seen(&[]), [pair("CUDA_VISIBLE_DEVICES", "0,2,3")]);
        assert_eq!(
            seen(&[("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b, GPU-c, GPU-d")]),
            [pair("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-c,GPU-d")]
        );
        assert_eq!(seen(&[("HIP_VISIBLE_DEVICES", "7,6,5,4")]), [pair("HIP_VISIBLE_DEVICES", "7,5,4")]);
        assert_eq!(seen(&[("CUDA_VISIBLE_DEVICES", "0,1")]), []);
        assert_eq!(seen(&[("CUDA_VISIBLE_DEVICES", "")]), []);
    }
}
