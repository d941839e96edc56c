//! One attempt: all ranks from start to end.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::Signal;
use tokio::time::Instant;

use super::output::Screen;
use super::rank::{Meeting, RankGroup, RankProcess};
use super::{LaunchOptions, Stops};
use crate::error::{Doing, Result};

/// After a rank was lost the others get this long, to write out what they have to say. What they have Sealed survives
/// them, and a collective that waits for the lost rank never returns: waiting longer gains nothing.
const GRACE_AFTER_LOSS: Duration = Duration::from_secs(1);

/// Codes above it are signals.
const KILLED: u8 = 128;

pub enum Ended {
    /// Every rank ended with code 0.
    Well,
    /// We were asked to stop; the code of the first rank that failed, or 0.
    Stopped(u8),
    /// All have saved and stopped, so that a place that was left out can take part.
    ToGrow,
    /// The first rank that failed.
    Lost { rank: u32, code: u8 },
}

pub struct Attempt {
    ranks: Vec<RankProcess>,
}

impl Attempt {
    /// Starts a rank in every one of `places`, or none: those that started are ended when a later one can't be.
    pub fn start(options: &LaunchOptions, number: u32, places: &[u32]) -> Result<Attempt> {
        Attempt::with(options, number, places, false)
    }

    /// The same of ranks that wait in `strata.connect` until they are called.
    pub fn ahead(options: &LaunchOptions, number: u32, places: &[u32]) -> Result<Attempt> {
        Attempt::with(options, number, places, true)
    }

    fn with(options: &LaunchOptions, number: u32, places: &[u32], waits: bool) -> Result<Attempt> {
        let (out, err) = (Screen::new(tokio::io::stdout()), Screen::new(tokio::io::stderr()));
        let master_port = free_port()?;
        let meeting = Meeting { attempt: number, places: places.to_vec(), master_port, waits, out, err };
        let start = |rank| RankProcess::start(options, rank, &meeting);
        Ok(Attempt { ranks: (0..places.len() as u32).map(start).collect::<Result<_>>()? })
    }

    /// Whether every rank that was started ahead is still there.
    pub fn is_waiting(&mut self) -> bool {
        self.ranks.iter().all(|rank| !rank.group().is_ending())
    }

    pub fn call(&mut self) -> Result<()> {
        self.ranks.iter_mut().try_for_each(RankProcess::call)
    }

    /// Ends the ranks, whatever they are at.
    pub async fn discard(self) {
        for rank in self.ranks {
            rank.finish().await;
        }
    }

    /// Waits for the end of all ranks; at `grow_at` asks them to save and stop, if they know how to.
    pub async fn run(
        mut self,
        grace: Duration,
        grow_at: Option<std::time::Instant>,
        stops: &mut Stops,
    ) -> Result<Ended> {
        let outcome = self.supervise(grace, grow_at, stops).await;
        for rank in self.ranks {
            rank.finish().await;
        }
        outcome
    }

    async fn supervise(
        &mut self,
        grace: Duration,
        grow_at: Option<std::time::Instant>,
        stops: &mut Stops,
    ) -> Result<Ended> {
        let groups = self.ranks.iter().map(RankProcess::group).collect();
        let mut course = Course::new(groups, grace, grow_at.map(Instant::from_std));
        let mut running: FuturesUnordered<_> =
            self.ranks.iter_mut().map(|rank| async { (rank.rank, rank.ended().await) }).collect();
        loop {
            tokio::select! {
                ended = running.next() => match ended {
                    None => return Ok(course.ended()),
                    Some((rank, code)) => course.rank_ended(rank, code?),
                },
                signal = stops.next() => course.stop(signal),
                () = moment(course.deadline) => course.kill(),
                () = moment(course.grow_at) => course.ask_to_grow(),
            }
        }
    }
}

/// Never, where there is none.
async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What has happened to the ranks so far, and what they were told.
struct Course {
    groups: Vec<RankGroup>,
    grace: Duration,
    grow_at: Option<Instant>,
    asked: Option<Asked>,
    first_failure: Option<(u32, u8)>,
    /// Whose process had begun to end when the first was seen to have ended.
    ending: Vec<u32>,
    /// When who is left is killed.
    deadline: Option<Instant>,
    killed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Asked {
    ToStop,
    ToGrow,
}

impl Course {
    fn new(groups: Vec<RankGroup>, grace: Duration, grow_at: Option<Instant>) -> Course {
        let (asked, first_failure, ending) = (None, None, Vec::new());
        Course { groups, grace, grow_at, asked, first_failure, ending, deadline: None, killed: false }
    }

    fn tell_all(&self, signal: Signal) {
        self.groups.iter().for_each(|group| group.tell(signal));
    }

    fn rank_ended(&mut self, rank: u32, code: u8) {
        let orderly = self.asked == Some(Asked::ToGrow) && stops_when_asked(code);
        if code != 0 && self.first_failure.is_none() {
            self.first_failure = Some((rank, code));
            if self.asked != Some(Asked::ToStop) && !orderly {
                self.lose_the_rest();
            }
        } else if code > KILLED && self.ending.contains(&rank) {
            // Killed before, and the others knew it before its memory was freed.
            self.first_failure = Some((rank, code));
            self.ending.clear();
        }
        if orderly {
            // It has stopped at the step that all stop at, so the others are about to, or never will.
            self.deadline.get_or_insert(Instant::now() + self.grace);
        }
    }

    fn lose_the_rest(&mut self) {
        self.asked = None;
        self.grow_at = None;
        self.ending = self.groups.iter().filter(|group| group.is_ending()).map(|group| group.rank).collect();
        self.tell_all(Signal::TERM);
        self.deadline = Some(Instant::now() + self.grace.min(GRACE_AFTER_LOSS));
    }

    /// Forwards the first signal; the second ends the ranks at once.
    fn stop(&mut self, signal: Signal) {
        match self.asked {
            Some(Asked::ToStop) => self.groups.iter().for_each(RankGroup::kill),
            _ => self.tell_all(signal),
        }
        self.asked = Some(Asked::ToStop);
        self.grow_at = None;
        self.deadline.get_or_insert(Instant::now() + self.grace);
    }

    fn kill(&mut self) {
        self.groups.iter().for_each(RankGroup::kill);
        self.killed = true;
        self.deadline = None;
    }

    /// As a preemption does: the ranks agree on a step, save it, and end. Who does not ask for that trains on.
    fn ask_to_grow(&mut self) {
        self.grow_at = None;
        if !self.groups.iter().all(RankGroup::heeds_term) {
            tracing::info!(
                "a place could be tried again, but SIGTERM would end the ranks before they save: it takes part after the next restart"
            );
            return;
        }
        tracing::info!("a place that was left out is tried again: asking the ranks to save and stop");
        self.asked = Some(Asked::ToGrow);
        self.tell_all(Signal::TERM);
    }

    fn ended(&self) -> Ended {
        match (self.asked, self.first_failure) {
            (Some(Asked::ToStop), failure) => Ended::Stopped(failure.map_or(0, |(_, code)| code)),
            (Some(Asked::ToGrow), _) if !self.killed => Ended::ToGrow,
            (_, Some((rank, code))) => Ended::Lost { rank, code },
            (_, None) => Ended::Well,
        }
    }
}

/// Scripts end as they like when they are asked to stop: with 0, with a code for "work left", or of the signal itself.
fn stops_when_asked(code: u8) -> bool {
    code < KILLED || code == KILLED + Signal::TERM.as_raw() as u8
}

/// A port that was free a moment ago, for MASTER_PORT.
fn free_port() -> Result<u16> {
    let probe =
        std::net::TcpListener::bind(("127.0.0.1", 0)).doing(|| "looking for a free port for MASTER_PORT")?;
    Ok(probe.local_addr().doing(|| "looking for a free port for MASTER_PORT")?.port())
}
