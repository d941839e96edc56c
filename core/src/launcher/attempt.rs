//! One attempt: all ranks from start to end.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use rustix::process::Signal;

use super::output::Screen;
use super::rank::{Meeting, RankProcess};
use super::{LaunchOptions, Stops};
use crate::error::{Doing, Result};

/// After a rank was lost the others get this long. What they have Sealed survives them, and a collective that waits for
/// the lost rank never returns: waiting longer gains nothing.
const GRACE_AFTER_LOSS: Duration = Duration::from_secs(3);

/// Codes above it are signals.
const KILLED: u8 = 128;

pub enum Ended {
    /// Every rank ended with code 0.
    Well,
    /// We were asked to stop; the code of the first rank that failed, or 0.
    Stopped(u8),
    /// The first rank that failed.
    Lost { rank: u32, code: u8 },
}

pub struct Attempt {
    ranks: Vec<RankProcess>,
}

impl Attempt {
    /// Starts every rank, or none: those that started are ended when a later one can't be.
    pub fn start(options: &LaunchOptions, number: u32) -> Result<Attempt> {
        let (out, err) = (Screen::new(tokio::io::stdout()), Screen::new(tokio::io::stderr()));
        let meeting = Meeting { attempt: number, master_port: free_port()?, out, err };
        let start = |rank| RankProcess::start(options, rank, &meeting);
        Ok(Attempt { ranks: (0..options.ranks).map(start).collect::<Result<_>>()? })
    }

    /// Waits for the end of all ranks.
    pub async fn run(mut self, grace: Duration, stops: &mut Stops) -> Result<Ended> {
        let outcome = self.supervise(grace, stops).await;
        for rank in self.ranks {
            rank.finish().await;
        }
        outcome
    }

    async fn supervise(&mut self, grace: Duration, stops: &mut Stops) -> Result<Ended> {
        let groups: Vec<_> = self.ranks.iter().map(RankProcess::group).collect();
        let signal_all = |signal| groups.iter().for_each(|group| group.send(signal));
        let mut running: FuturesUnordered<_> =
            self.ranks.iter_mut().map(|rank| async { (rank.rank, rank.ended().await) }).collect();
        let mut first_failure: Option<(u32, u8)> = None;
        let mut ending: Vec<u32> = Vec::new();
        let mut asked = false;
        let mut deadline: Option<tokio::time::Instant> = None;
        loop {
            let patience = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = running.next() => match ended {
                    None => break,
                    Some((rank, code)) => {
                        let code = code?;
                        if code != 0 && first_failure.is_none() {
                            first_failure = Some((rank, code));
                            if !asked {
                                ending = groups.iter().filter(|group| group.is_ending()).map(|group| group.rank).collect();
                                signal_all(Signal::TERM);
                                deadline = Some(tokio::time::Instant::now() + grace.min(GRACE_AFTER_LOSS));
                            }
                        } else if code > KILLED && ending.contains(&rank) {
                            // Killed before, and the others knew it before its memory was freed.
                            first_failure = Some((rank, code));
                            ending.clear();
                        }
                    }
                },
                signal = stops.next() => {
                    signal_all(if asked { Signal::KILL } else { signal });
                    asked = true;
                    deadline.get_or_insert(tokio::time::Instant::now() + grace);
                }
                () = patience => {
                    signal_all(Signal::KILL);
                    deadline = None;
                }
            }
        }
        Ok(match first_failure {
            _ if asked => Ended::Stopped(first_failure.map_or(0, |(_, code)| code)),
            Some((rank, code)) => Ended::Lost { rank, code },
            None => Ended::Well,
        })
    }
}

/// A port that was free a moment ago, for MASTER_PORT.
fn free_port() -> Result<u16> {
    let probe =
        std::net::TcpListener::bind(("127.0.0.1", 0)).doing(|| "looking for a free port for MASTER_PORT")?;
    Ok(probe.local_addr().doing(|| "looking for a free port for MASTER_PORT")?.port())
}
