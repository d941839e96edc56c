//! Which node stores which replicated tensor, so that over all nodes each byte is stored once. Pure.

use crate::format::chunks::LARGE_TENSOR;
use crate::proto::format::Tensor;

/// This node's number among the nodes of the expected set (both in the same order everywhere).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeShare {
    pub node: usize,
    pub nodes: usize,
}

impl NodeShare {
    /// The only node: it stores everything.
    pub const ALONE: NodeShare = NodeShare { node: 0, nodes: 1 };

    /// For each tensor, whether this node stores it if it is replicated. Depends only on the names' order and the
    /// sizes of the replicated tensors, which are equal on all ranks: every node comes to the same partition.
    ///
    /// Largest first to the least loaded node (Graham's LPT rule). Small tensors go together as one unit, because
    /// they share chunks.
    pub fn of(&self, tensors: &[Tensor]) -> Vec<bool> {
        let replicated = |number: &usize| tensors[*number].replicated;
        let (large, small): (Vec<usize>, Vec<usize>) =
            (0..tensors.len()).filter(replicated).partition(|&number| tensors[number].bytes >= LARGE_TENSOR);
        let mut units: Vec<Vec<usize>> = large.into_iter().map(|number| vec![number]).collect();
        units.push(small);
        let bytes = |unit: &[usize]| unit.iter().map(|&number| tensors[number].bytes).sum::<u64>();
        units.sort_by_key(|unit| std::cmp::Reverse(bytes(unit)));

        let mut load = vec![0; self.nodes.max(1)];
        let mut mine = vec![false; tensors.len()];
        for unit in units {
            let node = (0..load.len()).min_by_key(|&node| load[node]).expect("there is at least one node");
            load[node] += bytes(&unit);
            if node == self.node {
                unit.into_iter().for_each(|number| mine[number] = true);
            }
        }
        mine
    }
}
