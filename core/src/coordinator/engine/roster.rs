//! What each node is told of an open generation: its own ranks and its place among the nodes, never all members. Put
//! together once for a generation, so that telling everyone costs O(members) and not O(members · nodes).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::state::{Job, Open};
use super::{Engine, convert};
use crate::error::Result;
use crate::ids::{Generation, JobName, Rank};
use crate::proto::v1;

/// Up to so many other nodes all are neighbours: each compares what it sees with everyone.
const ALL_OTHERS: usize = 8;
/// Of more nodes, how many that follow are: one alone makes a ring, the others are for nodes that can't answer.
const FOLLOWING: usize = 4;

#[derive(Default)]
pub struct Rosters {
    by_job: BTreeMap<JobName, Arc<Roster>>,
}

/// The nodes of an open generation, by the lowest rank of each.
pub struct Roster {
    generation: Generation,
    nodes: Vec<(String, Vec<Rank>)>,
    numbers: HashMap<String, usize>,
}

impl Roster {
    fn of(open: &Open) -> Roster {
        let mut roster = Roster { generation: open.generation, nodes: Vec::new(), numbers: HashMap::new() };
        for (rank, member) in &open.members {
            let node = member.node.as_deref().unwrap_or(convert::DIRECT);
            let number = match roster.numbers.get(node) {
                Some(number) => *number,
                None => {
                    roster.numbers.insert(node.to_owned(), roster.nodes.len());
                    roster.nodes.push((node.to_owned(), Vec::new()));
                    roster.nodes.len() - 1
                }
            };
            roster.nodes[number].1.push(*rank);
        }
        roster
    }

    pub fn ranks(&self, node: &str) -> &[Rank] {
        self.numbers.get(node).map_or(&[], |number| &self.nodes[*number].1)
    }

    fn place(&self, node: &str) -> v1::Place {
        let number = self.numbers.get(node).copied();
        v1::Place {
            number: number.map(|number| number as u32),
            nodes: self.nodes.len() as u32,
            neighbours: number.map(|number| self.neighbours(number)).unwrap_or_default(),
        }
    }

    fn neighbours(&self, number: usize) -> Vec<String> {
        let others = self.nodes.len() - 1;
        let count = if others <= ALL_OTHERS { others } else { FOLLOWING };
        let following = (1..=count).map(|step| &self.nodes[(number + step) % self.nodes.len()].0);
        following.filter(|other| *other != convert::DIRECT).cloned().collect()
    }

    /// Among those nodes that have any of `ranks` (ascending).
    fn place_among(&self, node: &str, ranks: &[u32]) -> v1::Place {
        let takes_part = |has: &[Rank]| has.iter().any(|rank| ranks.binary_search(&rank.0).is_ok());
        let mut lowest: Vec<(Rank, &str)> = Vec::new();
        for (name, has) in self.nodes.iter().filter(|(_, has)| takes_part(has)) {
            let first = has.iter().find(|rank| ranks.binary_search(&rank.0).is_ok());
            lowest.push((*first.expect("it takes part"), name));
        }
        lowest.sort();
        let number = lowest.iter().position(|(_, name)| *name == node);
        v1::Place {
            number: number.map(|number| number as u32),
            nodes: lowest.len() as u32,
            neighbours: Vec::new(),
        }
    }
}

impl Engine {
    /// Of the job's open generation.
    pub(super) fn roster(&mut self, job: &JobName) -> Option<Arc<Roster>> {
        let open = self.state.jobs.get(job)?.open.as_ref()?;
        if let Some(roster) = self.rosters.by_job.get(job).filter(|known| known.generation == open.generation)
        {
            return Some(roster.clone());
        }
        let roster = Arc::new(Roster::of(open));
        self.rosters.by_job.insert(job.clone(), roster.clone());
        Some(roster)
    }

    pub(super) fn roster_ended(&mut self, job: &JobName) {
        self.rosters.by_job.remove(job);
    }

    /// The open generation as a node is told of it: its own part, where it understands that.
    pub(super) fn generation_for(&mut self, node: &str, job: &JobName) -> Option<v1::Generation> {
        if self.nodes.by_name.get(node).is_some_and(|known| known.takes_places) {
            return self.own_part(node, job);
        }
        let known = self.state.jobs.get(job)?;
        Some(convert::generation(job, known, known.open.as_ref()?))
    }

    /// The open generation with the members of one node, and that node's place.
    pub(super) fn own_part(&mut self, node: &str, job: &JobName) -> Option<v1::Generation> {
        let roster = self.roster(job)?;
        let known: &Job = self.state.jobs.get(job)?;
        let open = known.open.as_ref()?;
        // Workers without a sidecar are no node that anything is told of.
        let ranks = if node == convert::DIRECT { &[][..] } else { roster.ranks(node) };
        let members = ranks.iter();
        let members = members.filter_map(|rank| Some(convert::member(*rank, open.members.get(rank)?)));
        let mut part = convert::generation_without_members(job, known, open);
        part.members = members.collect();
        part.place = Some(roster.place(node));
        Some(part)
    }

    /// Fails with Fenced when the generation is not the open one.
    pub fn place(&mut self, request: v1::GetPlaceRequest) -> Result<v1::Place> {
        let job: JobName = request.job.parse()?;
        let known = self.state.job(&job)?;
        if let Err(error) = known.fence(&job, Generation(request.generation)) {
            self.metrics.calls_fenced.inc();
            return Err(error);
        }
        let mut ranks = request.ranks;
        ranks.sort_unstable();
        let roster = self.roster(&job).expect("its generation is open");
        Ok(roster.place_among(&request.node, &ranks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::state::Member;
    use crate::ids::SessionId;

    fn open(nodes: usize, ranks_of_one: usize) -> Open {
        let member = |rank: usize| Member {
            host: format!("host-{}", rank / ranks_of_one),
            address: String::new(),
            node: Some(format!("node-{}", rank / ranks_of_one)),
            session: SessionId(1),
            incarnation: String::new(),
            key: String::new(),
            uid: None,
            left: false,
        };
        let members = (0..nodes * ranks_of_one).map(|rank| (Rank(rank as u32), member(rank))).collect();
        Open { members, ..Open::default() }
    }

    #[test]
    fn few_nodes_compare_notes_with_all_and_many_go_round() {
        let few = Roster::of(&open(3, 2));
        assert_eq!(few.place("node-1").neighbours, ["node-2", "node-0"]);
        assert_eq!((few.place("node-1").number, few.place("node-1").nodes), (Some(1), 3));
        let many = Roster::of(&open(100, 8));
        let mut at = 0;
        for _ in 0..100 {
            let neighbours = many.place(&format!("node-{at}")).neighbours;
            assert_eq!(neighbours.len(), FOLLOWING);
            let next = (at + 1) % 100;
            assert_eq!(neighbours[0], format!("node-{next}"), "nobody is left out of the round");
            at = next;
        }
        assert_eq!(at, 0);
        assert_eq!(many.place("elsewhere"), v1::Place { number: None, nodes: 100, neighbours: Vec::new() });
    }

    #[test]
    fn place_among_some_ranks_counts_their_nodes_alone() {
        let roster = Roster::of(&open(4, 2));
        let place = |node: &str, ranks: &[u32]| {
            let place = roster.place_among(node, ranks);
            (place.number, place.nodes)
        };
        assert_eq!(place("node-2", &[1, 5, 6]), (Some(1), 3));
        assert_eq!(place("node-1", &[1, 5, 6]), (None, 3));
        assert_eq!(place("node-0", &[0, 1]), (Some(0), 1));
    }
}
