//! End of a run: everything must come to rest, and is measured.

use std::collections::BTreeMap;

use skirmish_core::id::NodeId;

use super::{DELIVERY, LOOK, REST, ROOT, TreeStats, TreeWorld};
use crate::oracle::{Guarantee, Violation, broken};

impl TreeWorld<'_> {
    /// Waits until each node has the parent and the children that the plan names.
    pub(super) fn rest(&mut self) -> Result<(), Violation> {
        let end = self.now + REST;
        while let Some(unrest) = self.unrest() {
            if self.now >= end {
                return broken(Guarantee::Liveness, format_args!("the tree is not at rest: {unrest}"));
            }
            self.run_until(self.now + LOOK)?;
        }
        Ok(())
    }

    /// Returns the first difference between the plan and the nodes.
    fn unrest(&self) -> Option<String> {
        let tree = self.primary.tree();
        if !tree.is_at_rest() {
            return Some("moves are under way".to_owned());
        }
        for (node, stub) in &self.stubs {
            if tree.level(*node) == 0 {
                return Some(format!("node {} is not in the tree", node.0));
            }
            if !stub.is_settled() || !stub.parents().eq(tree.parent(*node)) {
                return Some(format!("node {} does not have its parent, and no other", node.0));
            }
            let mut children = tree.children(*node).to_vec();
            children.sort_unstable();
            if !stub.children().eq(children) {
                return Some(format!("node {} does not have its children, and no others", node.0));
            }
        }
        tree.nodes()
            .find(|node| !self.stubs.contains_key(node))
            .map(|node| format!("node {} is in the tree, and not alive", node.0))
    }

    /// Waits until all nodes have all entries.
    pub(super) fn deliver(&mut self) -> Result<(), Violation> {
        let end = self.now + DELIVERY;
        let head = self.entries.len() as u64;
        while self.now < end && self.stubs.values().any(|stub| stub.head() < head) {
            self.run_until(self.now + LOOK)?;
        }
        self.stubs.keys().try_for_each(|node| self.oracle.rest(*node))
    }

    /// Measures the tree.
    pub(super) fn shape(&self, stats: &mut TreeStats) {
        let tree = self.primary.tree();
        stats.nodes = tree.len();
        stats.levels = tree.depth();
        let inner: Vec<NodeId> = tree.nodes().filter(|node| !tree.children(*node).is_empty()).collect();
        stats.fan_out = (tree.len() - 1) as f64 / inner.len().max(1) as f64;
        let weights = inner.iter().filter(|node| **node != ROOT).map(|node| f64::from(tree.weight(*node)));
        let mean = weights.clone().sum::<f64>() / (inner.len() as f64 - 1.0).max(1.0);
        stats.skew = if mean > 0.0 { weights.fold(0.0, f64::max) / mean } else { 1.0 };
    }

    /// Measures the broadcasts. The first `busy` entries are from the time of faults, and `before` has
    /// the frames of each node at their end.
    pub(super) fn count(&self, stats: &mut TreeStats, busy: usize, before: &BTreeMap<NodeId, u64>) {
        let times = |entries: &[(u64, u64)]| entries.iter().map(|(from, to)| to - from).collect::<Vec<_>>();
        let joined = self.entries.partition_point(|(from, _)| *from < self.scenario.joined).min(busy);
        stats.busy = times(&self.entries[joined..busy]);
        stats.calm = times(&self.entries[busy..]);
        stats.moves = self.primary.moves().to_vec();
        stats.skipped = self.oracle.skipped();
        let count = stats.calm.len().max(1) as f64;
        let frames = |(node, stub): (&NodeId, &super::TreeStub)| {
            (stub.frames() - before.get(node).copied().unwrap_or_default()) as f64 / count
        };
        stats.root_frames = self.stubs.iter().filter(|(node, _)| **node == ROOT).map(frames).sum();
        stats.busiest_frames = self.stubs.iter().map(frames).fold(0.0, f64::max);
    }
}
