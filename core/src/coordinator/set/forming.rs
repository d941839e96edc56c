//! How a coordinator comes to be one of its set. With a home of the set it simply goes on. With an empty one it asks the others
//! first: it helps to found the set, together with all others, only where all of them are empty too. Where the set is there already, this home has been lost, with
//! all that it may have promised: it takes the highest vote that enough others know for its own, and votes for nobody until it
//! knows all that a leader after that vote knows (`doors` sees to that). Otherwise two of three, one of them with its memory lost,
//! could decide against what the third knows to be decided.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::BasicNode;
use openraft::error::{InitializeError, RaftError};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::Standing;
use super::entry::Vote;
use super::journal::Change;
use super::network::greeting;
use super::phase::Phase;
use super::seat::Seat;
use crate::error::{Error, Result};
use crate::proto::v1::replication_client::ReplicationClient;
use crate::proto::v1::{PeerPhase, PeerStanding};
use crate::transport::refusal_of;

const ANSWER: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(200);

impl Seat {
    /// Returns when it takes part; None: it was stopped before.
    pub async fn form(&self, stop: &CancellationToken) -> Result<Option<()>> {
        let phase = match self.phase.get() {
            Some(phase) => phase,
            None => {
                let Some(phase) = self.ask_all(stop).await? else { return Ok(None) };
                self.phase.set(phase)?;
                phase
            }
        };
        if let Phase::Joining(Some(floor)) = phase
            && self.journal.vote().is_none_or(|vote| vote < floor)
        {
            self.journal.write(vec![Change::Vote(floor)])?;
        }
        let founds = phase == Phase::Founding && self.journal.is_pristine();
        if founds && self.wait_for_founders(stop).await?.is_none() {
            return Ok(None);
        }
        let raft = self.begin().await?;
        // After a crash at this point it is done again: it founds only what is not there.
        if founds {
            let members: BTreeMap<u64, BasicNode> =
                self.peers.urls.iter().map(|(number, url)| (*number, BasicNode::new(url))).collect();
            match raft.initialize(members).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(Error::internal(format!("founding the set: {error}"))),
            }
        }
        Ok(Some(()))
    }

    /// Until the answers tell what this home is to the set.
    async fn ask_all(&self, stop: &CancellationToken) -> Result<Option<Phase>> {
        self.until(stop, |known| decide(self.peers.urls.len(), known)).await
    }

    /// Nobody leads, and nothing is acknowledged, before all remember that they found the set: one that did not would be taken for
    /// one that has lost its home. None: it was stopped.
    async fn wait_for_founders(&self, stop: &CancellationToken) -> Result<Option<()>> {
        let others = self.peers.urls.len() - 1;
        let are_there = |known: &[PeerStanding]| {
            // Who has voted has seen all of them.
            let has_begun = |peer: &PeerStanding| peer.phase() == PeerPhase::Founded || !peer.vote.is_empty();
            let has_begun = known.iter().any(has_begun);
            let remember = known.iter().filter(|peer| peer.phase() != PeerPhase::Empty).count();
            Ok((has_begun || remember == others).then_some(()))
        };
        self.until(stop, are_there).await
    }

    /// Asks the others again and again until their answers are enough; None: it was stopped.
    async fn until<T>(
        &self,
        stop: &CancellationToken,
        enough: impl Fn(&[PeerStanding]) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        loop {
            let asked =
                self.peers.others().map(|(number, _)| async move { (number, self.ask(number).await) });
            let answers = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                answers = futures::future::join_all(asked) => answers,
            };
            let (mut known, mut silent) = (Vec::new(), Vec::new());
            for (number, answer) in answers {
                match answer {
                    Ok(standing) => known.push(standing),
                    Err(error) => silent.push(format!("{}: {}", self.peers.urls[&number], error.message)),
                }
            }
            if let Some(found) = enough(&known)? {
                return Ok(Some(found));
            }
            self.stands(Standing::Forming(match silent.is_empty() {
                true => "its home is empty, and too few of the others remember the set yet".to_owned(),
                false => format!("its home is empty, and it waits for the others ({})", silent.join("; ")),
            }));
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn ask(&self, number: u64) -> Result<PeerStanding> {
        let channel = self.peers.channel(number).ok_or_else(|| Error::internal("asking itself"))?;
        let message = self.peers.sealed(greeting(&self.peers, number));
        let mut client = ReplicationClient::new(channel);
        match tokio::time::timeout(ANSWER, client.greet(message)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == Code::Unavailable => {
                Err(Error::unavailable(refusal_of(&self.peers.urls[&number], &status).why))
            }
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(Error::timeout("no answer")),
        }
    }
}

/// What an empty home is to a set of `size`, by what the others say of themselves; None: too few have spoken.
fn decide(size: usize, known: &[PeerStanding]) -> Result<Option<Phase>> {
    let is_founded = known.iter().any(|peer| matches!(peer.phase(), PeerPhase::Founded | PeerPhase::Joining));
    if !is_founded {
        return Ok((known.len() == size - 1).then_some(Phase::Founding));
    }
    // Of any majority that this one may have been part of, one other at least is among so many; those that have lost their own
    // memory know nothing of it.
    let remembering =
        known.iter().filter(|peer| matches!(peer.phase(), PeerPhase::Founded | PeerPhase::Founding));
    let votes = remembering.map(|peer| read_vote(&peer.vote)).collect::<Result<Vec<_>>>()?;
    if votes.len() < size - (size / 2 + 1) + 1 {
        return Ok(None);
    }
    let mut highest: Option<Vote> = None;
    for vote in votes.into_iter().flatten() {
        if highest.is_none_or(|known| known < vote) {
            highest = Some(vote);
        }
    }
    // Not as one that has won: this one has heard of no leader yet.
    Ok(Some(Phase::Joining(highest.map(|vote| Vote { committed: false, ..vote }))))
}

fn read_vote(bytes: &[u8]) -> Result<Option<Vote>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let damaged = |error| Error::invalid(format!("joining the set: a vote that can't be read: {error}"));
    serde_json::from_slice(bytes).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(phase: PeerPhase, vote: Option<Vote>) -> PeerStanding {
        let vote = vote.map(|vote| serde_json::to_vec(&vote).unwrap()).unwrap_or_default();
        PeerStanding { phase: phase.into(), vote }
    }

    #[test]
    fn empty_home_founds_only_with_all_others_and_joins_behind_every_vote_it_may_have_given() {
        let (empty, founding) =
            (peer(PeerPhase::Empty, None), peer(PeerPhase::Founding, Some(Vote::new(1, 2))));
        let old = peer(PeerPhase::Founded, Some(Vote::new_committed(3, 1)));
        let new = peer(PeerPhase::Founded, Some(Vote::new_committed(7, 2)));
        let lost = peer(PeerPhase::Joining, Some(Vote::new(2, 1)));
        let decide = |size, known: &[&PeerStanding]| {
            decide(size, &known.iter().map(|peer| (*peer).clone()).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(decide(3, &[&empty]), None, "the third may know more");
        assert_eq!(decide(3, &[&empty, &founding]), Some(Phase::Founding));
        assert_eq!(decide(3, &[&old]), None, "what it may have voted for lately only the third knows");
        assert_eq!(decide(3, &[&old, &lost]), None, "who has lost its memory vouches for nothing");
        assert_eq!(decide(3, &[&new, &old]), Some(Phase::Joining(Some(Vote::new(7, 2)))));
        assert_eq!(decide(5, &[&new, &old]), None);
        assert_eq!(decide(5, &[&new, &old, &founding]), Some(Phase::Joining(Some(Vote::new(7, 2)))));
    }
}
