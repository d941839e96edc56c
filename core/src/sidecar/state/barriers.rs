//! Barriers of the ranks of this node, folded: the coordinator hears of a node once all its ranks have come. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Generation, JobName, Rank};
use crate::proto::v1::BarrierArrival;

/// Which barrier, in which generation. Rounds count per name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Meeting {
    pub job: JobName,
    pub generation: Generation,
    pub name: String,
    pub round: u64,
}

#[derive(Default)]
pub(in super::super) struct Barriers {
    arrived: BTreeMap<Meeting, BTreeSet<Rank>>,
    /// Highest released round of a name: it answers every earlier one too.
    released: BTreeMap<(JobName, Generation, String), u64>,
}

impl Barriers {
    /// Everyone of this node who has come so far.
    pub fn arrive(&mut self, meeting: &Meeting, rank: Rank) -> &BTreeSet<Rank> {
        let arrived = self.arrived.entry(meeting.clone()).or_default();
        arrived.insert(rank);
        arrived
    }

    pub fn is_released(&self, meeting: &Meeting) -> bool {
        let key = (meeting.job.clone(), meeting.generation, meeting.name.clone());
        self.released.get(&key).is_some_and(|round| *round >= meeting.round)
    }

    pub fn release(&mut self, meeting: &Meeting) {
        self.arrived.remove(meeting);
        let key = (meeting.job.clone(), meeting.generation, meeting.name.clone());
        let round = self.released.entry(key).or_insert(meeting.round);
        *round = (*round).max(meeting.round);
    }

    pub fn arrival(&self, meeting: &Meeting) -> Option<BarrierArrival> {
        self.arrived
            .get(meeting)
            .map(|ranks| report(meeting, ranks.iter().map(|rank| rank.0).collect(), false))
    }

    /// Everything a coordinator that was restarted must hear again.
    pub fn again(&self) -> Vec<BarrierArrival> {
        let released = self.released.iter().map(|((job, generation, name), round)| {
            let (job, generation, name) = (job.clone(), *generation, name.clone());
            report(&Meeting { job, generation, name, round: *round }, Vec::new(), true)
        });
        let arrived = self
            .arrived
            .iter()
            .map(|(meeting, ranks)| report(meeting, ranks.iter().map(|rank| rank.0).collect(), false));
        released.chain(arrived).collect()
    }

    pub fn forget_before(&mut self, job: &JobName, generation: Generation) {
        self.arrived.retain(|meeting, _| meeting.job != *job || meeting.generation >= generation);
        self.released.retain(|(of, at, _), _| of != job || *at >= generation);
    }
}

fn report(meeting: &Meeting, ranks: Vec<u32>, released: bool) -> BarrierArrival {
    BarrierArrival {
        job: meeting.job.to_string(),
        generation: meeting.generation.0,
        name: meeting.name.clone(),
        round: meeting.round,
        ranks,
        released,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meeting(name: &str, round: u64) -> Meeting {
        Meeting { job: "j".parse().unwrap(), generation: Generation(3), name: name.into(), round }
    }

    #[test]
    fn released_round_answers_itself_and_earlier_ones_and_is_told_again() {
        let mut barriers = Barriers::default();
        barriers.arrive(&meeting("a", 1), Rank(0));
        assert_eq!(barriers.arrive(&meeting("a", 1), Rank(2)).len(), 2);
        assert!(!barriers.is_released(&meeting("a", 1)));
        barriers.release(&meeting("a", 2));
        assert!(barriers.is_released(&meeting("a", 1)) && !barriers.is_released(&meeting("a", 3)));
        assert!(!barriers.is_released(&meeting("b", 1)));
        barriers.arrive(&meeting("b", 1), Rank(0));
        let again = barriers.again();
        assert!(again.iter().any(|told| told.released && told.name == "a" && told.round == 2));
        assert!(again.iter().any(|told| !told.released && told.name == "b" && told.ranks == [0]));
    }

    #[test]
    fn ended_generations_barriers_are_forgotten() {
        let mut barriers = Barriers::default();
        barriers.arrive(&meeting("a", 1), Rank(0));
        barriers.release(&meeting("b", 1));
        barriers.forget_before(&"other".parse().unwrap(), Generation(9));
        assert_eq!(barriers.again().len(), 2);
        barriers.forget_before(&"j".parse().unwrap(), Generation(4));
        assert!(barriers.again().is_empty());
    }
}
